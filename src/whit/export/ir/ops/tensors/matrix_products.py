"""Matrix products and convolutions of tensors, transposed convolutions among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whit.export.ir.graph import Operation
from whit.export.ir.ops.operator import Constants, Converter
from whit.export.ir.ops.tensors.arithmetic import binary
from whit.export.ir.ops.tensors.aten_call import Call
from whit.export.ir.ops.tensors.tensor_layout import all_sizes
from whit.export.ir.ops.tensors.tensor_operator import (
    Operand,
    TensorOperator,
    operands,
    write_operands,
)
from whit.export.ir.ops.values import TensorValue, UnsupportedOp
from whit.export.onnx import OnnxWriter


def _per_image(op: Operation) -> int:
    """The number of output elements of one image."""
    return prod(map(abs, all_sizes(op)))


def _run_linear(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    return F.linear(inputs[0], constants["weight"], constants.get("bias"))


def _write_linear(writer: OnnxWriter, op: Operation) -> None:
    name = op.constants["weight"]
    values = writer.graph.constants[name].t().numpy()
    weight = writer.array(f"{name}:transposed", values, np.float32)
    if "bias" not in op.constants:
        writer.node("MatMul", op.name, *op.inputs, weight)
        return
    product = writer.node("MatMul", f"{op.name}:product", *op.inputs, weight)
    writer.node("Add", op.name, product, writer.constant(op, "bias"))


# Of the last dimension. Constants weight (K, N), bias (K,) if any.
LINEAR = TensorOperator(
    kind="linear_over_last",
    stem="linear",
    run=_run_linear,
    onnx=_write_linear,
    num_macs=lambda op, constants: _per_image(op) * constants[op.constants["weight"]].shape[1],
)
# Attribute length: of the sum.
MATMUL = TensorOperator(
    kind="matmul",
    run=lambda op, inputs, constants: torch.matmul(*operands(op, inputs, constants)),
    onnx=lambda writer, op: writer.node("MatMul", op.name, *write_operands(writer, op)),
    num_macs=lambda op, constants: _per_image(op) * abs(op.attributes["length"]),
)


def _write_einsum(writer: OnnxWriter, op: Operation) -> None:
    equation = op.attributes["equation"]
    writer.node("Einsum", op.name, *write_operands(writer, op), equation=equation)


# Attributes equation, length: the product of the sizes summed over.
EINSUM = TensorOperator(
    kind="einsum",
    run=lambda op, inputs, constants: torch.einsum(
        op.attributes["equation"], *operands(op, inputs, constants)
    ),
    onnx=_write_einsum,
    num_macs=lambda op, constants: _per_image(op) * op.attributes["length"],
)


def linear(call: Call, value: TensorValue, weight: Tensor, bias: Tensor | None) -> TensorValue:
    sizes = (*value.sizes[:-1], len(weight))
    return call.add(LINEAR, [value], sizes, {}, {"weight": weight, "bias": bias})


def matmul(call: Call, a: Operand, b: Operand, sizes: Sequence[int] | None = None) -> TensorValue:
    if isinstance(b, Tensor) and b.ndim == 2 and isinstance(a, TensorValue) and sizes is None:
        return linear(call, a, b.t(), None)
    length = (a.sizes if isinstance(a, TensorValue) else a.shape)[-1]  # type: ignore[union-attr]
    if length < 0:
        raise UnsupportedOp(f"{call.name} that sums over the images of a batch is not supported")
    return call.add(MATMUL, [a, b], sizes, {"length": length})


def _linear(call: Call) -> TensorValue:
    weight, bias = call.constant("weight"), call.constant("bias")
    assert weight is not None
    value = call.tensor("input")
    return linear(call, value, weight.reshape(-1, value.sizes[-1]), bias)


def _matmul(call: Call) -> TensorValue:
    names = ("self", "other", "mat2", "vec")
    a, b = (call.operand(call[name]) for name in names if name in call.arguments)
    return matmul(call, a, b)


def _addmm(call: Call) -> TensorValue:
    names = ("mat1", "mat2") if "mat1" in call.arguments else ("batch1", "batch2")
    a, b = (call.operand(call[name]) for name in names)
    product = matmul(call, a, b)
    added = call.operand(call["self"])
    alpha, beta = float(call["alpha"]), float(call["beta"])
    if beta == 0:
        return product if alpha == 1 else binary(call, "mul", product, alpha)
    if alpha != 1:
        product = binary(call, "mul", product, alpha)
    if beta != 1:
        added = binary(call, "mul", added, beta) if isinstance(added, TensorValue) else added * beta
    return binary(call, "add", product, added)


def _einsum(call: Call) -> TensorValue:
    equation = call["equation"].replace(" ", "")
    factors = [call.operand(each) for each in call["tensors"]]
    if "..." in equation:
        raise UnsupportedOp("einsum with '...' is not supported: name each dimension")
    terms, _, output = equation.partition("->")
    lengths: dict[str, int] = {}
    for term, factor in zip(terms.split(","), factors, strict=True):
        sizes = factor.sizes if isinstance(factor, TensorValue) else factor.shape  # type: ignore[union-attr]
        lengths |= {letter: n for letter, n in zip(term, sizes, strict=True) if n != 1}
    summed = {letter: n for letter, n in lengths.items() if letter not in output}
    if min(summed.values(), default=1) < 0:
        raise UnsupportedOp("einsum that sums over the images of a batch is not supported")
    settings = {"equation": equation, "length": prod(summed.values())}
    return call.add(EINSUM, factors, None, settings)


def _run_conv(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    settings, weight = op.attributes, constants["weight"]
    function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[weight.ndim]
    padded = _pad_sides(inputs[0], settings["pads"])
    rest = (settings["strides"], 0, settings["dilations"], settings["group"])
    output: Tensor = function(padded, weight, constants.get("bias"), *rest)
    return output


def _pad_sides(value: Tensor, pads: Sequence[int]) -> Tensor:
    half = len(pads) // 2
    sides = [side for dim in reversed(range(half)) for side in (pads[dim], pads[half + dim])]
    return F.pad(value, sides)


def _write_conv(writer: OnnxWriter, op: Operation) -> None:
    kind = "ConvTranspose" if "output_padding" in op.attributes else "Conv"
    settings = {
        name: each if isinstance(each, int) else list(each) for name, each in op.attributes.items()
    }
    names = [writer.constant(op, role) for role in ("weight", "bias") if role in op.constants]
    kernel = list(writer.graph.constants[op.constants["weight"]].shape[2:])
    writer.node(kind, op.name, *op.inputs, *names, kernel_shape=kernel, **settings)


def _conv_macs(op: Operation, constants: Constants) -> int:
    return _per_image(op) * prod(constants[op.constants["weight"]].shape[1:])


# Along any number of dimensions. Constants weight, bias if any; attributes as of ONNX.
CONV = TensorOperator(
    kind="conv_nd", stem="conv", run=_run_conv, onnx=_write_conv, num_macs=_conv_macs
)


def _run_conv_transpose(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    settings, weight = op.attributes, constants["weight"]
    functions = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}
    padding = settings["pads"][: weight.ndim - 2]
    output: Tensor = functions[weight.ndim](
        *(inputs[0], weight, constants.get("bias"), settings["strides"], padding),
        *(settings["output_padding"], settings["group"], settings["dilations"]),
    )
    return output


def _conv_transpose_macs(op: Operation, constants: Constants) -> int:
    weight = constants[op.constants["weight"]]
    return int(op.attributes["positions"]) * prod(weight.shape)


def _write_conv_transpose(writer: OnnxWriter, op: Operation) -> None:
    settings = {name: each for name, each in op.attributes.items() if name != "positions"}
    _write_conv(writer, replace(op, attributes=settings))


# Attributes as of ONNX, and positions: of the input of one image.
CONV_TRANSPOSE = TensorOperator(
    kind="conv_transpose",
    run=_run_conv_transpose,
    onnx=_write_conv_transpose,
    num_macs=_conv_transpose_macs,
)


def _read_conv(call: Call) -> tuple[TensorValue, dict[str, Any], dict[str, Tensor | None]]:
    value, weight, bias = call.tensor("input"), call.constant("weight"), call.constant("bias")
    assert weight is not None
    rank = weight.ndim - 2
    if len(value.sizes) != weight.ndim:
        raise UnsupportedOp(f"{call.name} of an image without a batch dimension is not supported")
    if value.sizes[0] > 0 or min(value.sizes[1:]) < 0:
        raise UnsupportedOp(f"{call.name} over the images of a batch is not supported")

    def each(name: str) -> tuple[int, ...]:
        given = call[name]
        given = [given] if isinstance(given, int) else list(given)
        return tuple(given * rank if len(given) == 1 else given)

    settings = {"strides": each("stride"), "dilations": each("dilation"), "group": call["groups"]}
    padding = call["padding"]
    if padding in ("valid", "same"):
        total = [d * (k - 1) for d, k in zip(each("dilation"), weight.shape[2:], strict=True)]
        total = [size * (padding == "same") for size in total]
        # As in torch, the last side gets one more.
        settings["pads"] = (*(n // 2 for n in total), *(n - n // 2 for n in total))
    else:
        settings["pads"] = each("padding") * 2
    if "output_padding" in call.arguments:
        settings["output_padding"] = each("output_padding")
    return value, settings, {"weight": weight, "bias": bias}


def _conv(call: Call) -> TensorValue:
    value, settings, constants = _read_conv(call)
    return call.add(CONV, [value], None, settings, constants)


def _conv_transpose(call: Call) -> TensorValue:
    value, settings, constants = _read_conv(call)
    settings["positions"] = prod(value.sizes[2:]) * -value.sizes[0]
    return call.add(CONV_TRANSPOSE, [value], None, settings, constants)


CONVERTERS: dict[str, Converter] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _addmm),
    "einsum": _einsum,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
}
OPERATORS = (LINEAR, MATMUL, EINSUM, CONV, CONV_TRANSPOSE)
