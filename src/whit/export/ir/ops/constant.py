"""A constant as an operand: a map or vector that varies over more than its channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from whit.export.ir.graph import Operation
from whit.export.ir.ops.operator import Operator
from whit.export.ir.ops.values import (
    GraphBuilder,
    Layout,
    UnsupportedOp,
    ValueView,
    collapse,
)
from whit.export.onnx import OnnxWriter
from whit.export.program import Array, Ints, Kernel, ProgramBuilder, Step
from whit.export.quantization.builder import QuantizedProgramBuilder


def constant_like(builder: GraphBuilder, value: ValueView, constant: Tensor) -> ValueView:
    """Return a constant, collapsed for this value, as a second operand with the same axes.

    Beside a vector of channels it may also be a map, over which the vector is broadcast.
    """
    if value.axes in (Layout.MAP, Layout.BY_CHANNEL):
        channels, *sides = _broadcast(constant.shape[1:], (1, *value.lengths[1:]))
        if value.axes == Layout.BY_CHANNEL:
            channels = max(channels, value.shape[0])
        elif tuple(sides) != value.shape[1:]:
            raise UnsupportedOp("a constant that broadcasts one row or column is not supported")
        return add_constant(builder, constant.expand(1, channels, *sides)[0])
    lengths = _broadcast(constant.shape[1:], value.lengths)
    if lengths != value.lengths:
        raise UnsupportedOp("a constant that broadcasts merged dimensions is not supported")
    order = [axis for group in value.axes for axis in group]
    by_axis = constant.expand(1, *lengths).reshape([value.sizes[axis] for axis in order])
    natural = by_axis.permute([order.index(axis) for axis in "CHW" if axis in order])
    return add_constant(builder, natural.reshape(value.shape), value)


def _broadcast(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """Return the common shape of two shapes of equal rank that torch has broadcast."""
    return tuple(max(pair) for pair in zip(a, b, strict=True))


def constant_beside(builder: GraphBuilder, value: ValueView, constant: Tensor) -> ValueView:
    """Return a constant as a map or vector to be concatenated with a value of the same rank."""
    rank = len(value.axes)
    if constant.ndim != rank or rank not in (2, 4):
        raise UnsupportedOp("cat with a constant of this shape is not supported")
    first = collapse(constant, constant.shape[1:])  # once for all images of a batch
    return add_constant(builder, first.expand(1, *constant.shape[1:])[0])


def add_constant(builder: GraphBuilder, tensor: Tensor, like: ValueView | None = None) -> ValueView:
    """Add a constant map (C, H, W) or vector (C,), with the axes of another value if given."""
    axes = None if like is None else like.axes
    shape = tuple(tensor.shape)
    return builder.add(CONSTANT, [], shape, constants={"value": tensor}, axes=axes)


def _layout(value: Array) -> Array:
    """Return a map (C, H, W) in the layout of kernels, (H, W, C)."""
    return value.transpose(1, 2, 0) if value.ndim == 3 else value


def _lower_float(builder: ProgramBuilder, op: Operation) -> None:
    stored = builder.store(op.constants["value"], _layout(builder.constant(op, "value")))
    builder.add(op, _KERNEL, {"size": builder.constant(op, "value").size}, value=stored)


def _lower_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    rounded = builder.choose(op.name).quantize(builder.constant(op, "value"))
    stored = builder.store(op.constants["value"], _layout(rounded.astype(np.uint8)))
    builder.add(op, _INT8_KERNEL, {"size": rounded.size}, value=stored)


def _compute(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    return constants["value"][None]


def _write_onnx(writer: OnnxWriter, op: Operation) -> None:
    name = op.constants["value"]
    value = writer.array(f"{name}:one", writer.graph.constants[name][None].numpy(), np.float32)
    count = writer.node("Shape", f"{op.name}:count", writer.images, start=0, end=1)
    ones = writer.array(f"ones:{len(op.shape)}", [1] * len(op.shape), np.int64)
    shape = writer.node("Concat", f"{op.name}:shape", count, ones, axis=0)
    writer.node("Expand", op.name, value, shape)


def _run(op: Operation, inputs: list[Tensor], constants: Mapping[str, Any]) -> Tensor:
    value: Tensor = constants["value"]
    return value[None]


_CALL = "constant({value}, {size}, {output})"
_KERNEL = Kernel("constant", _CALL, file="constant.c")
_INT8_KERNEL = Kernel("constant", _CALL, _compute, "constant.c")
# No input. Constant: value (C, H, W) or (C,), the same for every image.
CONSTANT = Operator(
    kind="constant",
    run=_run,
    kernel=_KERNEL,
    onnx=_write_onnx,
    lower_float=_lower_float,
    lower_int8=_lower_int8,
)
OPERATORS = (CONSTANT,)
