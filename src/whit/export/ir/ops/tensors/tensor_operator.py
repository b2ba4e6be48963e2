"""The definition of an operator on tensors of any rank, and how its operations are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whit.export.ir.graph import Operation, Shape
from whit.export.ir.ops.operator import Constants, Operator
from whit.export.ir.ops.values import BATCH, GraphBuilder, TensorValue, UnsupportedOp
from whit.export.onnx import OnnxWriter

Operand = TensorValue | Tensor | float


@dataclass(frozen=True, eq=False, kw_only=True)
class TensorOperator(Operator):
    """An operator on tensors of any rank, for ONNX alone.

    Operands are values, constants or numbers: `operands` and `write_operands` list them in order.
    """

    targets: frozenset[str] = frozenset({"onnx"})


def add_operation(
    builder: GraphBuilder,
    operator: Operator,
    operands: Sequence[Operand],
    sizes: Sequence[int],
    attributes: Mapping[str, Any] | None = None,
    constants: Mapping[str, Tensor] | None = None,
) -> TensorValue:
    """Append an operation and return its output.

    Constants among the operands broadcast over the batch; `constants` are others, by role.
    """
    inputs: list[TensorValue] = []
    order: list[str | float | None] = []  # None for an input, the role of a constant, or a number
    named = dict(constants or {})
    for i, operand in enumerate(operands):
        if isinstance(operand, TensorValue):
            inputs.append(operand)
            order.append(None)
        elif isinstance(operand, Tensor):
            named[f"operand{i}"] = operand
            order.append(f"operand{i}")
        else:
            order.append(float(operand))
    attributes = dict(attributes or {})
    if len(inputs) < len(operands):
        attributes["operands"] = tuple(order)
    shape = _without_batch(tuple(sizes))
    return TensorValue(builder.add(operator, inputs, shape, attributes, named).name, tuple(sizes))


def _without_batch(sizes: Shape) -> Shape:
    """Return the shape of a value, which has no batch dimension if that is the first one."""
    multiples = sum(size < 0 for size in sizes)
    if multiples == 0:
        raise UnsupportedOp("a value that combines the images of a batch is not supported")
    if multiples > 1:
        raise UnsupportedOp("a value that relates the images of a batch is not supported")
    return sizes[1:] if sizes[0] == -1 else sizes


def operands(op: Operation, inputs: list[Tensor], constants: Constants) -> list[Tensor]:
    """Return the operands of an operation as tensors."""
    rest = iter(inputs)
    found = []
    for operand in op.attributes.get("operands", (None,) * len(inputs)):
        if operand is None:
            found.append(next(rest))
        elif isinstance(operand, str):
            found.append(constants[operand])
        else:
            found.append(torch.tensor(operand, dtype=inputs[0].dtype))
    return found


def write_operands(writer: OnnxWriter, op: Operation) -> list[str]:
    """Return the names of the operands of an operation in the ONNX graph."""
    rest = iter(op.inputs)
    names = []
    for operand in op.attributes.get("operands", (None,) * len(op.inputs)):
        if operand is None:
            names.append(next(rest))
        elif isinstance(operand, str):
            names.append(writer.constant(op, operand))
        else:
            names.append(number(writer, operand))
    return names


def number(writer: OnnxWriter, value: float) -> str:
    """Store a float32 scalar once; return its name."""
    return writer.array(f"number:{value!r}", value, np.float32)


def integers(writer: OnnxWriter, values: Sequence[int]) -> str:
    """Store a vector of int64 once; return its name."""
    return writer.array(f"integers:{','.join(map(str, values))}", list(values), np.int64)


def over_batch(constant: Tensor) -> tuple[Tensor, int | None, int]:
    """Return a constant without the batch dimension, where that was, and what it was merged with.

    A dimension of the batch size becomes 1, and k times the batch size k.
    Raises UnsupportedOp if the constant differs from image to image.
    """
    multiples = [dim for dim, size in enumerate(constant.shape) if size and size % BATCH == 0]
    if not multiples:
        return constant, None, 1
    if len(multiples) > 1:
        raise UnsupportedOp("a constant that relates the images of a batch is not supported")
    (dim,) = multiples
    by_image = constant.unflatten(dim, (BATCH, -1))  # type: ignore[no-untyped-call]
    one = by_image.narrow(dim, 0, 1)
    if not torch.equal(by_image, one.expand_as(by_image)):
        raise UnsupportedOp(
            "a constant that differs from image to image of a batch is not supported"
        )
    return one.squeeze(dim).contiguous(), dim, constant.shape[dim] // BATCH
