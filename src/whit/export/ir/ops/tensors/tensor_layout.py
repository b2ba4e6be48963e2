"""Reshaping, transposing and expanding tensors, and every captured value as a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from whit.export.ir.graph import INPUT, Operation, with_batch
from whit.export.ir.ops.operator import Constants
from whit.export.ir.ops.tensors.tensor_operator import (
    TensorOperator,
    add_operation,
    integers,
    over_batch,
)
from whit.export.ir.ops.values import (
    Expanded,
    GraphBuilder,
    Layout,
    TensorValue,
    UnsupportedOp,
    ValueView,
)
from whit.export.onnx import OnnxWriter


def all_sizes(op: Operation) -> tuple[int, ...]:
    """Return all sizes of an operation's output, -k for k times the batch size."""
    return with_batch(op.shape, -1)


def _run_reshape(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    return inputs[0].reshape([max(size, -1) for size in all_sizes(op)])


def _write_reshape(writer: OnnxWriter, op: Operation) -> None:
    shape = integers(writer, [max(size, -1) for size in all_sizes(op)])
    writer.node("Reshape", op.name, *op.inputs, shape)


# The same elements in the same order.
RESHAPE = TensorOperator(kind="reshape", run=_run_reshape, onnx=_write_reshape)
# Attribute order: of the dimensions.
TRANSPOSE = TensorOperator(
    kind="transpose",
    run=lambda op, inputs, constants: inputs[0].permute(op.attributes["order"]),
    onnx="Transpose",
    onnx_attributes=lambda op: {"perm": list(op.attributes["order"])},
)


def _write_expand(writer: OnnxWriter, op: Operation) -> None:
    # A size of 1 leaves the batch dimension as it is.
    shape = integers(writer, [max(size, 1) for size in all_sizes(op)])
    writer.node("Expand", op.name, *op.inputs, shape)


# Repeats dimensions of size 1.
EXPAND = TensorOperator(
    kind="expand",
    run=lambda op, inputs, constants: inputs[0].expand([max(size, -1) for size in all_sizes(op)]),
    onnx=_write_expand,
)


def _run_repeat(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    batch, dim = len(inputs[0]), op.attributes["dim"]
    once = constants["values"].unsqueeze(dim)
    lengths = [*once.shape[:dim], batch, *once.shape[dim + 1 :]]
    return once.expand(lengths).reshape([max(size, -1) for size in all_sizes(op)])


def _write_repeat(writer: OnnxWriter, op: Operation) -> None:
    dim, sizes = op.attributes["dim"], all_sizes(op)
    name = op.constants["values"]
    values = writer.graph.constants[name].unsqueeze(dim).numpy()
    once = writer.array(f"{name}:once", values, np.float32)
    batch = writer.node("Shape", f"{op.name}:batch", *op.inputs, start=0, end=1)
    before, after = values.shape[:dim], values.shape[dim + 1 :]
    parts = [
        *([integers(writer, before)] if before else []),
        batch,
        *([integers(writer, after)] if after else []),
    ]
    lengths = writer.node("Concat", f"{op.name}:lengths", *parts, axis=0)
    repeated = writer.node("Expand", f"{op.name}:repeated", once, lengths)
    writer.node("Reshape", op.name, repeated, integers(writer, [max(size, -1) for size in sizes]))


# A constant for each image. Constant values; attribute dim: where the batch dimension is.
CONSTANT = TensorOperator(kind="constant_for_each", run=_run_repeat, onnx=_write_repeat)


def reshape(builder: GraphBuilder, value: TensorValue, sizes: Sequence[int]) -> TensorValue:
    if value.sizes == tuple(sizes):
        return value
    return add_operation(builder, RESHAPE, [value], sizes)


def transpose(builder: GraphBuilder, value: TensorValue, order: Sequence[int]) -> TensorValue:
    order = tuple(dim % len(value.sizes) for dim in order)
    if order == tuple(range(len(order))):
        return value
    sizes = [value.sizes[dim] for dim in order]
    return add_operation(builder, TRANSPOSE, [value], sizes, {"order": order})


def expand(builder: GraphBuilder, value: TensorValue, sizes: Sequence[int]) -> TensorValue:
    if value.sizes == tuple(sizes):
        return value
    return add_operation(builder, EXPAND, [value], sizes)


def as_tensor(builder: GraphBuilder, value: Any) -> TensorValue:
    """Return a captured value as a tensor; a constant must have a batch dimension."""
    if isinstance(value, TensorValue):
        return value
    if isinstance(value, ValueView):
        return _from_view(builder, value)
    if isinstance(value, Expanded):
        return expand(builder, as_tensor(builder, value.value), (-1, *value.lengths))
    if not isinstance(value, Tensor):
        raise UnsupportedOp("an argument that is no tensor is not supported")
    values, dim, merged = over_batch(value)
    if dim is None:
        raise UnsupportedOp("a constant in place of a value is not supported")
    sizes = list(value.shape)
    sizes[dim] = -merged
    image = TensorValue(INPUT, ())
    if merged == 1:
        values = values.squeeze(dim)
    return add_operation(builder, CONSTANT, [image], sizes, {"dim": dim}, {"values": values})


def _from_view(builder: GraphBuilder, value: ValueView) -> TensorValue:
    tensor = TensorValue(value.name, (-1, *value.shape))
    names = "CHW"[: len(value.shape)]
    order = [names.index(axis) for group in value.axes[1:] for axis in group if axis in names]
    missing = [at for at in range(len(names)) if at not in order]
    assert all(value.shape[at] == 1 for at in missing)
    moved = transpose(builder, tensor, (0, *(1 + at for at in (*order, *missing))))
    return reshape(builder, moved, (-1, *value.lengths))


def as_view(value: TensorValue) -> ValueView | TensorValue:
    """Return a tensor as a map or vector if it has the dimensions of one."""
    batch, *sizes = value.sizes
    if batch != -1 or len(sizes) not in (1, 3):
        return value
    return ValueView(value.name, tuple(sizes), Layout.MAP if len(sizes) == 3 else Layout.VECTOR)


def as_logits(builder: GraphBuilder, value: TensorValue) -> ValueView | None:
    """Return a value as the vector of logits of each image; None if it is none."""
    if value.sizes[0] != -1:
        return None
    length = prod(value.sizes[1:])
    return ValueView(reshape(builder, value, (-1, length)).name, (length,), Layout.VECTOR)
