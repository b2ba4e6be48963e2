"""Concatenation and slices of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import torch

from whit.export.ir.graph import Operation
from whit.export.ir.ops.constant import constant_beside
from whit.export.ir.ops.layers import pad_map
from whit.export.ir.ops.operator import Operator
from whit.export.ir.ops.pooling import MAX_POOL
from whit.export.ir.ops.values import GraphBuilder, Layout, UnsupportedOp, ValueView, as_map
from whit.export.onnx import OnnxWriter
from whit.export.program import Ints, Kernel, Step
from whit.export.quantization.builder import QuantizedProgramBuilder
from whit.export.quantization.fixed_point import BYTE_RANGE, quantize_multiplier


def repeat_channel(builder: GraphBuilder, value: ValueView, channels: int) -> ValueView:
    """Return a map or vector of one channel repeated to several channels."""
    shape = (channels, *value.shape[1:])
    axes = Layout.MAP if len(value.shape) == 3 else Layout.BY_CHANNEL
    return builder.add(CONCAT, [value] * channels, shape, axes=axes)


def _concat(builder: GraphBuilder, values: Sequence[Any], dim: int) -> ValueView:
    known = next(value for value in values if isinstance(value, ValueView))
    values = [
        value if isinstance(value, ValueView) else constant_beside(builder, known, value)
        for value in values
    ]
    at = dim % len(values[0].axes)
    if any(value.axes != Layout.MAP for value in values):
        is_vector = len(values[0].axes) == 2
        convert = builder.as_flat_vector if is_vector else builder.as_channel_vector
        values = [convert(value) for value in values]
    axes = values[0].axes
    if axes[at] != ("C",) or any(value.axes != axes for value in values):
        raise UnsupportedOp("cat is supported along channels only")
    if any(value.shape[1:] != values[0].shape[1:] for value in values):
        raise UnsupportedOp("cat of maps of different height or width is not supported")
    shape = (sum(value.shape[0] for value in values), *values[0].shape[1:])
    return builder.add(CONCAT, values, shape, axes=axes)


def _split(
    builder: GraphBuilder, value: ValueView, size: int | Sequence[int], dim: int
) -> list[ValueView]:
    if value.axes[dim % len(value.axes)] != ("C",):
        raise UnsupportedOp("split is supported along channels only")
    channels = value.shape[0]
    sizes = size if not isinstance(size, int) else [size] * -(-channels // size)
    ends = zip(accumulate(sizes), sizes, strict=True)
    return [_slice(builder, value, dim, end - size, min(channels, end), 1) for end, size in ends]


def _slice(
    builder: GraphBuilder, value: ValueView, dim: int, start: Any, stop: Any, step: int
) -> ValueView:
    group = value.axes[dim % len(value.axes)]
    size = prod(value.sizes[axis] for axis in group)
    first = 0 if start is None else min(size, start if start >= 0 else max(0, size + start))
    last = size if stop is None else min(size, stop if stop >= 0 else max(0, size + stop))
    if (first, last, step) == (0, size, 1) or dim % len(value.axes) == 0:
        return value
    if step > 1 and value.axes == Layout.MAP and group in (("H",), ("W",)):
        cropped = _slice(builder, value, dim, first, last, 1)
        strides = (step, 1) if group == ("H",) else (1, step)
        sides = (-(-n // s) for n, s in zip(cropped.shape[1:], strides, strict=True))
        settings = {"kernel": (1, 1), "stride": strides, "padding": (0, 0), "dilation": (1, 1)}
        return builder.add(MAX_POOL, [cropped], (cropped.shape[0], *sides), settings)
    if step != 1 or last <= first or group not in (("C",), ("H",), ("W",)):
        raise UnsupportedOp("slicing is supported for ranges of channels, rows or columns only")
    if group != ("C",):
        ends = (-first, last - size)
        pads = (0, 0, *ends) if group == ("H",) else (*ends, 0, 0)
        cropped = pad_map(builder, as_map(value, "padding"), *pads)
        return ValueView(cropped.name, cropped.shape, value.axes)
    shape = (last - first, *value.shape[1:])
    return builder.add(SLICE, [value], shape, {"start": first, "stop": last}, axes=value.axes)


def _compute_concat(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    numbers = zip(inputs, step.settings["factors"], step.settings["offsets"], strict=True)
    return np.concatenate([x * factor + offset for x, factor, offset in numbers], -1)


def _lower_concat_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    qparams, read = builder.choose(op.name), [builder.qparams[name] for name in op.inputs]
    factors = np.array([each.scale / qparams.scale for each in read])
    offsets = np.full(len(read), float(qparams.zero_point))
    excess = np.array([each.zero_point for each in read], np.int64)
    multiplier = quantize_multiplier(op.name, factors, offsets, BYTE_RANGE, excess)
    settings = {"factors": multiplier.factors.tolist(), "offsets": multiplier.offsets.tolist()}
    settings["shift"] = multiplier.shift
    builder.add(op, _CONCAT_INT8, settings)


_CONCAT_INT8 = Kernel(
    "concat",
    "concat({values}, {scalars}, {output}, {first}, {outputs})",
    _compute_concat,
    helpers=("requantize",),
    elementwise=True,
    per_input=True,
)
CONCAT = Operator(
    kind="concat",
    run=lambda op, inputs, constants: torch.cat(inputs, 1),
    kernel=Kernel("concat", "concat({values}, {output}, {first}, {outputs})", per_input=True),
    onnx="Concat",
    onnx_attributes=lambda op: {"axis": 1},
    converters={"cat": _concat},
    lower_int8=_lower_concat_int8,
)


def _write_slice(writer: OnnxWriter, op: Operation) -> None:
    bounds = (
        writer.array(f"index:{op.attributes[side]}", [op.attributes[side]], np.int64)
        for side in ("start", "stop")
    )
    writer.node("Slice", op.name, *op.inputs, *bounds, writer.array("axes:C", [1], np.int64))


# Attributes start, stop: a half-open range of channels.
SLICE = Operator(
    kind="slice",
    run=lambda op, inputs, constants: inputs[0][:, op.attributes["start"] : op.attributes["stop"]],
    kernel=Kernel(
        "slice",
        "slice({input}, {pixels}, {start}, {in_channels}, {output}, {outputs})",
        lambda step, inputs, _: inputs[0][..., step.settings["start"] : step.settings["stop"]],
        "slice.c",
        in_place=True,
        elementwise=True,
    ),
    onnx=_write_slice,
    converters={"slice": _slice, "split": _split, "split_with_sizes": _split},
    keeps_range=True,
    settings=lambda graph, op: {
        **op.attributes,
        "in_channels": graph.value_shape(op.inputs[0])[0],
    },
)
OPERATORS = (CONCAT, SLICE)
