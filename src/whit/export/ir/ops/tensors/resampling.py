"""Upsampling, and pooling that C does not have, as linear maps and extremes along dimensions.

The weights and indices come from torch itself, for one dimension at a time: `Resize` of onnxruntime
rounds some coordinates otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whit.export.ir.graph import Operation
from whit.export.ir.ops.operator import Constants, Converter
from whit.export.ir.ops.tensors.aten_call import Call
from whit.export.ir.ops.tensors.indexing import gather, pad
from whit.export.ir.ops.tensors.reduction import reduce
from whit.export.ir.ops.tensors.tensor_operator import TensorOperator
from whit.export.ir.ops.values import TensorValue
from whit.export.onnx import OnnxWriter


def _run(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    dim = op.attributes["dim"]
    return (inputs[0].movedim(dim, -1) @ constants["weight"].t()).movedim(-1, dim)


def _write(writer: OnnxWriter, op: Operation) -> None:
    (value,), dim, rank = op.inputs, op.attributes["dim"], op.attributes["rank"]
    if dim == rank - 2:
        writer.node("MatMul", op.name, writer.constant(op, "weight"), value)
        return
    stored = op.constants["weight"]
    weight = writer.graph.constants[stored].t().numpy()
    weight_name = writer.array(f"{stored}:transposed", weight, np.float32)
    if dim == rank - 1:
        writer.node("MatMul", op.name, value, weight_name)
        return
    order = list(range(rank))
    order[dim], order[-1] = order[-1], order[dim]
    last = writer.node("Transpose", f"{op.name}:last", value, perm=order)
    product = writer.node("MatMul", f"{op.name}:product", last, weight_name)
    writer.node("Transpose", op.name, product, perm=order)


# Weighted sums along a dimension. Constant weight (outputs, inputs); attributes dim, rank.
LINEAR_MAP = TensorOperator(kind="linear_map", run=_run, onnx=_write)


def _map(call: Call, value: TensorValue, dim: int, weight: Tensor) -> TensorValue:
    sizes = [*value.sizes[:dim], len(weight), *value.sizes[dim + 1 :]]
    settings = {"dim": dim, "rank": len(sizes)}
    return call.add(LINEAR_MAP, [value], sizes, settings, {"weight": weight})


def _extremes(call: Call, value: TensorValue, dim: int, index: Any) -> TensorValue:
    """Return the largest element of each row of indices along a dimension."""
    found: TensorValue = reduce(call, "amax", gather(call, value, dim, index), (dim + 1,), False)
    return found


def _along(of_line: Callable[[Tensor], Tensor], size: int) -> Tensor:
    """Return the weights (outputs, inputs) of a linear function of lines (B, 1, size)."""
    return of_line(torch.eye(size)[:, None]).flatten(1).t().contiguous()


def _spatial(call: Call, value: TensorValue, count: int) -> range:
    dims = range(len(value.sizes) - count, len(value.sizes))
    for dim in dims:
        call.dim(dim, value)
    return dims


def _upsample(count: int, *, by_index: bool) -> Converter:
    """Convert upsampling of `count` dimensions, each alone by the same ATen operator."""

    def convert(call: Call) -> TensorValue:
        value, sizes = call.tensor(next(iter(call.arguments))), call.sizes
        arguments = dict(call.arguments)
        del arguments[next(iter(arguments))]
        settings = {}
        if "align_corners" in arguments:
            settings["align_corners"] = arguments["align_corners"]
        scales = arguments.get("scale_factors") or [
            arguments.get(f"scales_{axis}", arguments.get("scales")) for axis in "dhw"[3 - count :]
        ]
        for i, dim in enumerate(_spatial(call, value, count)):
            scale, outputs = scales[i], sizes[dim]
            if value.sizes[dim] == outputs and scale in (None, 1):
                continue
            of_line = _upsampling_of_line(call, count, outputs, scale, settings)
            if by_index:
                ramp = torch.arange(value.sizes[dim], dtype=torch.float32)[None, None]
                value = gather(call, value, dim, of_line(ramp).flatten().long().numpy())
            else:
                value = _map(call, value, dim, _along(of_line, value.sizes[dim]))
        return value

    return convert


def _upsampling_of_line(
    call: Call, count: int, outputs: int, scale: float | None, settings: dict[str, Any]
) -> Callable[[Tensor], Tensor]:
    function = getattr(torch.ops.aten, call.name.partition(".")[0]).default
    # In two dimensions, all lines are the rows of one image, whose height stays.
    scales = [1.0] * (count - 1) + [scale] if scale is not None else [None] * count

    def of_line(lines: Tensor) -> Tensor:
        if count == 1:
            return function(lines, [outputs], *settings.values(), *scales)  # type: ignore[no-any-return]
        image, size = lines.transpose(0, 1)[None], [len(lines), outputs]
        return function(image, size, *settings.values(), *scales)[0].transpose(0, 1)  # type: ignore[no-any-return]

    return of_line


def _windows(size: int, outputs: int) -> Any:
    """Return the indices of each window of adaptive pooling, the last one repeated."""
    starts = np.arange(outputs) * size // outputs
    ends = -(-(np.arange(outputs) + 1) * size // outputs)
    steps = np.arange((ends - starts).max())
    return np.minimum(starts[:, None] + steps, ends[:, None] - 1)


def _adaptive_avg_pool(count: int) -> Converter:
    def convert(call: Call) -> TensorValue:
        value, sizes = call.tensor(), call.sizes
        for dim in _spatial(call, value, count):
            outputs = sizes[dim]
            if value.sizes[dim] != outputs:
                of_line = partial(F.adaptive_avg_pool1d, output_size=outputs)
                value = _map(call, value, dim, _along(of_line, value.sizes[dim]))
        return value

    return convert


def _adaptive_max_pool(count: int) -> Converter:
    def convert(call: Call) -> list[Any]:
        value, sizes = call.tensor(), call.sizes_of(call.node.meta["val"][0])
        for dim in _spatial(call, value, count):
            if value.sizes[dim] != sizes[dim]:
                value = _extremes(call, value, dim, _windows(value.sizes[dim], sizes[dim]))
        return [value, None]

    return convert


def _each(call: Call, name: str, count: int, default: int = 1) -> list[int]:
    given = call.arguments.get(name, default)
    given = [given] if isinstance(given, int) else list(given)
    if not given:  # the stride, by default the kernel
        return _each(call, "kernel_size", count)
    return given * count if len(given) == 1 else given


def _avg_pool(count: int) -> Converter:
    def convert(call: Call) -> TensorValue:
        value, divisor = call.tensor(), call.arguments.get("divisor_override")
        settings = [_each(call, name, count) for name in ("kernel_size", "stride")]
        settings.append(_each(call, "padding", count, 0))
        for dim, kernel, stride, padding in zip(
            _spatial(call, value, count), *settings, strict=True
        ):

            def of_line(
                lines: Tensor, k: int = kernel, s: int = stride, p: int = padding
            ) -> Tensor:
                return F.avg_pool2d(
                    *(lines[..., None], (k, 1), (s, 1), (p, 0), call["ceil_mode"]),
                    *(call["count_include_pad"], None if divisor is None else 1),
                )

            if (kernel, stride, padding) != (1, 1, 0):
                value = _map(call, value, dim, _along(of_line, value.sizes[dim]))
        if divisor is not None:
            last = len(value.sizes) - 1
            value = _map(call, value, last, torch.eye(value.sizes[last]) / divisor)
        return value

    return convert


def _max_pool(count: int, *, gives_indices: bool = False) -> Converter:
    def convert(call: Call) -> Any:
        value = call.tensor()
        outputs = call.node.meta["val"]
        sizes = call.sizes_of(outputs[0] if gives_indices else outputs)
        names = (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1))
        settings = [_each(call, name, count, default) for name, default in names]
        for dim, kernel, stride, padding, dilation in zip(
            _spatial(call, value, count), *settings, strict=True
        ):
            windows = np.arange(sizes[dim])[:, None] * stride + np.arange(kernel) * dilation
            # The last window may reach beyond the padding.
            after = int(windows.max()) + 1 - padding - value.sizes[dim]
            rest = len(value.sizes) - 1 - dim
            sides = [*(0, 0) * rest, padding, max(0, after)]
            value = _extremes(call, pad(call, value, sides, -inf), dim, windows)
        return [value, None] if gives_indices else value

    return convert


_UPSAMPLING = {
    **{f"upsample_nearest{count}d": (count, True) for count in (1, 2)},
    **{f"_upsample_nearest_exact{count}d": (count, True) for count in (1, 2)},
    "upsample_linear1d": (1, False),
    **{
        name: (2, False)
        for kind in ("bilinear2d", "bicubic2d")
        for name in (f"upsample_{kind}", f"_upsample_{kind}_aa")
    },
}
CONVERTERS: dict[str, Converter] = {
    **{name: _upsample(n, by_index=index) for name, (n, index) in _UPSAMPLING.items()},
    **{f"adaptive_avg_pool{n}d": _adaptive_avg_pool(n) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": _adaptive_max_pool(n) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": _avg_pool(n) for n in (1, 2, 3)},
    **{f"max_pool{n}d": _max_pool(n) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": _max_pool(n, gives_indices=True) for n in (1, 2, 3)},
}
OPERATORS = (LINEAR_MAP,)
