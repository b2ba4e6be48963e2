"""Pooling by windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from whit.errors import ModelError
from whit.export.c.kernel import Ints, Kernel, KernelCall, Step
from whit.export.ir.graph import Operation
from whit.export.ir.ops.operator import Converter, Operator
from whit.export.ir.ops.reductions import MEAN
from whit.export.ir.ops.values import (
    BY_CHANNEL,
    VECTOR,
    GraphBuilder,
    UnsupportedOp,
    ValueView,
    as_map,
    is_channel_vector,
    pair,
    window_positions,
)
from whit.export.quantization.reference import window_taps

if TYPE_CHECKING:
    from whit.export.onnx import OnnxWriter
    from whit.export.quantization.builder import QuantizedProgramBuilder


def _max_pool(
    builder: GraphBuilder,
    image: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> ValueView:
    value = as_map(image, "a pooling")
    return _pool(builder, MAX_POOL, value, kernel, stride, padding, ceil, pair(dilation, 1))


def _avg_pool(
    builder: GraphBuilder,
    image: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil: bool = False,
    counts_padding: bool = True,
    divisor: int | None = None,
) -> ValueView:
    value = as_map(image, "a pooling")
    if divisor is not None:
        raise UnsupportedOp("it uses avg_pool2d with a divisor of its own")
    if pair(kernel, 1) == value.shape[1:] and pair(padding, 0) == (0, 0):
        return _pool(builder, MEAN, value, kernel, stride, padding, ceil)
    settings = {"counts_padding": counts_padding}
    return _pool(builder, AVG_POOL, value, kernel, stride, padding, ceil, **settings)


def _pool(
    builder: GraphBuilder,
    operator: Operator,
    value: ValueView,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil: bool,
    dilation: tuple[int, int] = (1, 1),
    **settings: Any,
) -> ValueView:
    kernels, pads = pair(kernel, 1), pair(padding, 0)
    strides = kernels if stride is None or stride == [] else pair(stride, 1)
    each = list(zip(value.shape[1:], kernels, strides, pads, dilation, strict=True))
    if ceil and any((size + 2 * p - d * (k - 1) - 1) % step for size, k, step, p, d in each):
        raise UnsupportedOp("it uses a pooling with ceil_mode that reaches beyond the map")
    if operator is MEAN:
        return builder.add(MEAN, [value], value.shape[:1], axes=BY_CHANNEL)
    if operator is MAX_POOL:
        settings["dilation"] = dilation
    attributes = {"kernel": kernels, "stride": strides, "padding": pads, **settings}
    shape = (value.shape[0], *(window_positions(*sizes) for sizes in each))
    return builder.add(operator, [value], shape, attributes)


def _adaptive(pool: Callable[..., ValueView], *, gives_indices: bool) -> Callable[..., Any]:
    def convert(builder: GraphBuilder, image: Any, output: Any) -> Any:
        size = pair(output, 1)
        if is_channel_vector(image) and size == (1, 1):
            pooled = image
        else:
            value = as_map(image, "a pooling")
            sides = list(zip(value.shape[1:], size, strict=True))
            if any(side % out for side, out in sides):
                raise UnsupportedOp(
                    f"it uses adaptive pooling of {value.shape[1]}x{value.shape[2]} to "
                    f"{size[0]}x{size[1]}, whose windows differ in size"
                )
            pooled = pool(builder, value, [side // out for side, out in sides])
        return [pooled, None] if gives_indices else pooled

    return convert


def _amax(builder: GraphBuilder, image: Any, dims: Any = (), keepdim: bool = False) -> ValueView:
    axes = BY_CHANNEL if keepdim else VECTOR
    is_whole_map = {dim % 4 for dim in dims} == {2, 3}
    if is_channel_vector(image) and is_whole_map:
        return ValueView(image.name, image.shape, axes)
    value = as_map(image, "a largest value")
    if not is_whole_map:
        raise UnsupportedOp("it uses amax over something else than the whole map")
    pooled = builder.as_vector(_max_pool(builder, value, value.shape[1:]))
    return ValueView(pooled.name, pooled.shape, axes)


def _compute_max_pool(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    largest: Ints = np.stack([tap for tap, _ in window_taps(step, inputs[0], -1)]).max(0)
    return largest


class MaxPool(Operator):
    """kernel, stride, padding, dilation; what lies outside the map never wins."""

    kind = "maxpool"
    converters: Mapping[str, Converter] = {
        "max_pool2d": _max_pool,
        "adaptive_max_pool2d": _adaptive(_max_pool, gives_indices=True),
        "amax": _amax,
    }
    keeps_range = True
    kernel = Kernel(
        "maxpool",
        lambda call: [f"maxpool({call.input_map}, {call.window}, {call.output_map})"],
        _compute_max_pool,
        "maxpool.c",
        in_place=True,
    )

    def stem(self, attributes: Mapping[str, Any]) -> str:
        return "pool"

    def run(self, op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
        names = ("kernel", "stride", "padding", "dilation")
        pooled: Tensor = F.max_pool2d(inputs[0], *(op.attributes[name] for name in names))
        return pooled

    def commutes_with_scale(self, op: Operation, scale: Tensor) -> bool:
        return bool((scale > 0).all())

    def write_onnx(self, writer: OnnxWriter, op: Operation) -> None:
        _write_pool(writer, op, "MaxPool", dilations=list(op.attributes["dilation"]))


def _write_pool(writer: OnnxWriter, op: Operation, kind: str, **more: Any) -> None:
    settings = op.attributes
    writer.node(
        kind,
        op.name,
        *op.inputs,
        kernel_shape=list(settings["kernel"]),
        strides=list(settings["stride"]),
        pads=[*settings["padding"], *settings["padding"]],
        **more,
    )


def _call_avg_pool(call: KernelCall) -> list[str]:
    counts = int(call.settings["counts_padding"])
    window = f"{call.window}, {counts}, {call.zero}"
    return [f"avgpool({call.input_map}, {window}{call.output_map})"]


def _compute_avg_pool(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    taps = list(window_taps(step, inputs[0], step.settings["zero"]))
    counts_padding = step.settings["counts_padding"]
    counted = np.stack([np.ones_like(inside) if counts_padding else inside for _, inside in taps])
    sums = (np.stack([tap for tap, _ in taps]) * counted).sum(0)
    count = counted.sum(0)
    averages: Ints = (sums + count // 2) // count
    return averages


class AvgPool(Operator):
    """kernel, stride, padding; what lies outside the map is 0 where `counts_padding`."""

    kind = "avgpool"
    converters: Mapping[str, Converter] = {
        "avg_pool2d": _avg_pool,
        "adaptive_avg_pool2d": _adaptive(_avg_pool, gives_indices=False),
    }
    kernel = Kernel("avgpool", _call_avg_pool, _compute_avg_pool, in_place=True)

    def stem(self, attributes: Mapping[str, Any]) -> str:
        return "pool"

    def run(self, op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
        kernel, stride, padding = (op.attributes[name] for name in ("kernel", "stride", "padding"))
        counts = op.attributes["counts_padding"]
        return F.avg_pool2d(inputs[0], kernel, stride, padding, count_include_pad=counts)

    def commutes_with_scale(self, op: Operation, scale: Tensor) -> bool:
        # A zero of the padding would have to become the offset.
        return op.attributes["padding"] == (0, 0) or not op.attributes["counts_padding"]

    def lower_int8(self, builder: QuantizedProgramBuilder, op: Operation) -> None:
        qparams = builder.keep(op, rounded=True)
        if 255 * prod(op.attributes["kernel"]) >= 2**31:
            raise ModelError(
                f"{op.name}: cannot be exported in int8: a sum of its window could leave 32 bits."
            )
        builder.add(op, self.kernel, {**op.attributes, "zero": qparams.zero_point})

    def write_onnx(self, writer: OnnxWriter, op: Operation) -> None:
        counts = int(op.attributes["counts_padding"])
        _write_pool(writer, op, "AveragePool", count_include_pad=counts)


MAX_POOL, AVG_POOL = MaxPool(), AvgPool()
OPERATORS = (MAX_POOL, AVG_POOL)
