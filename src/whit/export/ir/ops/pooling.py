"""Pooling, and means and sums over a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from whit.errors import ModelError
from whit.export.ir.graph import Operation
from whit.export.ir.ops.operator import Operator
from whit.export.ir.ops.scale import add_scale
from whit.export.ir.ops.values import (
    GraphBuilder,
    Layout,
    UnsupportedOp,
    ValueView,
    as_map,
    is_channel_vector,
    pair,
    require_float,
    window_positions,
)
from whit.export.program import Ints, Kernel, Step
from whit.export.quantization.builder import LOGITS, QuantizedProgramBuilder
from whit.export.quantization.fixed_point import scalar_multiplier
from whit.export.quantization.reference import window_taps


def _max_pool(
    builder: GraphBuilder,
    image: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil: bool,
) -> ValueView:
    value, dilation = as_map(image, "pooling"), pair(dilation, 1)
    return _pool(builder, MAX_POOL, value, kernel, stride, padding, ceil, dilation=dilation)


def _avg_pool(
    builder: GraphBuilder,
    image: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> ValueView:
    value = as_map(image, "pooling")
    if divisor is not None:
        raise UnsupportedOp("avg_pool2d with divisor_override is not supported")
    if pair(kernel, 1) == value.shape[1:] and pair(padding, 0) == (0, 0):
        return _pool(builder, MEAN, value, kernel, stride, padding, ceil)
    settings = {"count_include_pad": count_include_pad}
    return _pool(builder, AVG_POOL, value, kernel, stride, padding, ceil, **settings)


def _pool(
    builder: GraphBuilder,
    operator: Operator,
    value: ValueView,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil: bool,
    **settings: Any,
) -> ValueView:
    kernels, pads, dilation = pair(kernel, 1), pair(padding, 0), settings.get("dilation", (1, 1))
    strides = kernels if stride is None or stride == [] else pair(stride, 1)
    each = list(zip(value.shape[1:], kernels, strides, pads, dilation, strict=True))
    if ceil and any((size + 2 * p - d * (k - 1) - 1) % step for size, k, step, p, d in each):
        raise UnsupportedOp(
            "pooling with ceil_mode is supported only if windows stay within the map"
        )
    if operator is MEAN:
        return builder.add(MEAN, [value], value.shape[:1], axes=Layout.BY_CHANNEL)
    attributes = {"kernel": kernels, "stride": strides, "padding": pads, **settings}
    shape = (value.shape[0], *(window_positions(*sizes) for sizes in each))
    return builder.add(operator, [value], shape, attributes)


def _adaptive(pool: Callable[..., ValueView], *, gives_indices: bool) -> Callable[..., Any]:
    def convert(builder: GraphBuilder, image: Any, output: Any) -> Any:
        size = pair(output, 1)
        if is_channel_vector(image) and size == (1, 1):
            pooled = image
        else:
            value = as_map(image, "pooling")
            sides = list(zip(value.shape[1:], size, strict=True))
            if any(side % out for side, out in sides):
                before, after = ("x".join(map(str, each)) for each in (value.shape[1:], size))
                why = f"{before} to {after}, whose windows differ in size,"
                raise UnsupportedOp(f"adaptive pooling from {why} is not supported")
            pooled = pool(builder, value, [side // out for side, out in sides])
        return [pooled, None] if gives_indices else pooled

    return convert


def _whole_windows(builder: GraphBuilder, value: ValueView, kernel: Sequence[int]) -> ValueView:
    """Max pooling over windows that neither overlap nor leave the map."""
    return _max_pool(builder, value, kernel, [], 0, 1, False)


def _amax(builder: GraphBuilder, image: Any, dims: Sequence[int], keepdim: bool) -> ValueView:
    axes = Layout.BY_CHANNEL if keepdim else Layout.VECTOR
    is_whole_map = {dim % 4 for dim in dims} == {2, 3}
    if is_channel_vector(image) and is_whole_map:
        return ValueView(image.name, image.shape, axes)
    value = as_map(image, "amax")
    if not is_whole_map:
        raise UnsupportedOp("amax is supported over the whole map only")
    pooled = builder.as_vector(_whole_windows(builder, value, value.shape[1:]))
    return ValueView(pooled.name, pooled.shape, axes)


def _mean(
    builder: GraphBuilder,
    value: ValueView,
    dims: Sequence[int] | None,
    keepdim: bool,
    *,
    dtype: Any,
) -> ValueView:
    require_float(dtype, "mean")
    rank = len(value.axes)
    reduced = {dim % rank for dim in dims or range(rank)}
    axes = {axis for dim in reduced for axis in value.axes[dim]}
    if 0 in reduced:
        raise UnsupportedOp("mean over the batch is not supported")
    rest = {axis for axis in ("H", "W") if value.sizes[axis] > 1 and len(value.shape) == 3} - axes
    if "C" in axes or rest:
        raise UnsupportedOp("mean is supported over the whole map only")
    kept = tuple(
        () if dim in reduced else tuple(axis for axis in group if axis == "C")
        for dim, group in enumerate(value.axes)
        if keepdim or dim not in reduced
    )
    if len(value.shape) == 1:  # each map is one number already
        return ValueView(value.name, value.shape, kept)
    return builder.add(MEAN, [value], value.shape[:1], axes=kept)


def _sum(
    builder: GraphBuilder,
    value: ValueView,
    dims: Sequence[int] | None,
    keepdim: bool,
    *,
    dtype: Any,
) -> ValueView:
    """A sum over the whole map, as its mean times the number of pixels."""
    mean = _mean(builder, value, dims, keepdim, dtype=dtype)
    one = torch.ones(mean.shape[0])
    return add_scale(builder, mean, one * prod(value.shape[1:]), torch.zeros_like(one))


def _window(op: Operation) -> dict[str, Any]:
    kernel, stride, padding = (list(op.attributes[n]) for n in ("kernel", "stride", "padding"))
    return {"kernel_shape": kernel, "strides": stride, "pads": padding * 2}


# Attributes kernel, stride, padding, dilation. Padding is ignored.
MAX_POOL = Operator(
    kind="maxpool",
    run=lambda op, inputs, constants: F.max_pool2d(
        inputs[0], *(op.attributes[name] for name in ("kernel", "stride", "padding", "dilation"))
    ),
    kernel=Kernel(
        "maxpool",
        "maxpool({input_map}, {window}, {output_map})",
        lambda step, inputs, constants: np.stack(
            [tap for tap, _ in window_taps(step, inputs[0], -1)]
        ).max(0),
        "maxpool.c",
        in_place=True,
    ),
    onnx="MaxPool",
    onnx_attributes=lambda op: _window(op) | {"dilations": list(op.attributes["dilation"])},
    converters={
        "max_pool2d": _max_pool,
        "adaptive_max_pool2d": _adaptive(_whole_windows, gives_indices=True),
        "amax": _amax,
    },
    stem="pool",
    commutes_with_scale=lambda op, scale: bool((scale > 0).all()),
    keeps_range=True,
)


def _compute_avg_pool(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    taps = list(window_taps(step, inputs[0], step.settings["zero_point"]))
    count_include_pad = step.settings["count_include_pad"]
    mask = np.stack([np.ones_like(inside) if count_include_pad else inside for _, inside in taps])
    sums = (np.stack([tap for tap, _ in taps]) * mask).sum(0)
    count = mask.sum(0)
    return (sums + count // 2) // count  # type: ignore[no-any-return]


def _lower_avg_pool_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    qparams = builder.keep(op, rounded=True)
    if 255 * prod(op.attributes["kernel"]) >= 2**31:
        raise ModelError(
            f"{op.name}: cannot be exported in int8: the sum over a window could overflow int32."
        )
    builder.add(op, _AVG_POOL_INT8, {**op.attributes, "zero_point": qparams.zero_point})


_AVG_POOL_CALL = "avgpool({input_map}, {window}, {count_include_pad}, "
_AVG_POOL_INT8 = Kernel(
    "avgpool", _AVG_POOL_CALL + "{zero_point}, {output_map})", _compute_avg_pool, in_place=True
)
# Attributes kernel, stride, padding, count_include_pad.
AVG_POOL = Operator(
    kind="avgpool",
    run=lambda op, inputs, constants: F.avg_pool2d(
        *(inputs[0], op.attributes["kernel"], op.attributes["stride"], op.attributes["padding"]),
        count_include_pad=op.attributes["count_include_pad"],
    ),
    kernel=Kernel("avgpool", _AVG_POOL_CALL + "{output_map})", in_place=True),
    onnx="AveragePool",
    onnx_attributes=lambda op: (
        _window(op) | {"count_include_pad": int(op.attributes["count_include_pad"])}
    ),
    converters={
        "avg_pool2d": _avg_pool,
        "adaptive_avg_pool2d": _adaptive(
            lambda builder, value, kernel: _avg_pool(
                builder, value, kernel, [], 0, False, True, None
            ),
            gives_indices=False,
        ),
    },
    stem="pool",
    # Else padding zeros would have to become the offset.
    commutes_with_scale=lambda op, scale: (
        op.attributes["padding"] == (0, 0) or not op.attributes["count_include_pad"]
    ),
    lower_int8=_lower_avg_pool_int8,
)


def _lower_mean_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    read, pixels = builder.qparams[op.inputs[0]], prod(builder.graph.value_shape(op.inputs[0])[1:])
    is_last = op.name == builder.output
    qparams = LOGITS if is_last else builder.choose(op.name)
    factor, zero = read.scale / pixels / qparams.scale, read.zero_point * pixels
    multiplier = scalar_multiplier(
        op.name, factor, qparams.zero_point, 0, 255 * pixels, zero, rounded=not is_last
    )
    builder.add(op, _MEAN_LOGITS if is_last else _MEAN_INT8, multiplier)


_MEAN_INT8 = Kernel(
    "mean",
    "mean({values}, {scalars}, {output})",
    lambda step, inputs, constants: inputs[0].sum((1, 2)),
    helpers=("requantize",),
    in_place=True,
)
_MEAN_LOGITS = Kernel(
    "mean_logits",
    "mean_logits({values}, {scalars}, {output})",
    _MEAN_INT8.compute,
    helpers=("logit_of",),
)
# Global average pooling: (C, H, W) to (C,).
MEAN = Operator(
    kind="mean",
    run=lambda op, inputs, constants: inputs[0].mean((2, 3)),
    kernel=Kernel("mean", "mean({values}, {output})", in_place=True),
    onnx=lambda writer, op: writer.node(
        "ReduceMean", op.name, *op.inputs, writer.array("axes:HW", [2, 3], np.int64), keepdims=0
    ),
    converters={
        "mean.dim": _mean,
        "mean": lambda builder, value, *, dtype: _mean(builder, value, None, False, dtype=dtype),
        "sum.dim_IntList": _sum,
        "sum": lambda builder, value, *, dtype: _sum(builder, value, None, False, dtype=dtype),
    },
    stem="gap",
    commutes_with_scale=lambda op, scale: True,
    lower_int8=_lower_mean_int8,
)
OPERATORS = (MAX_POOL, AVG_POOL, MEAN)
