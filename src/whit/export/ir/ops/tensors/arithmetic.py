"""Elementwise operators on tensors of any rank, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isnan
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from whit.export.ir.graph import Operation
from whit.export.ir.ops.activation import ACTIVATION, FUNCTIONS, read_clamp
from whit.export.ir.ops.operator import Constants, Converter
from whit.export.ir.ops.tensors.aten_call import Call
from whit.export.ir.ops.tensors.indexing import slice_range
from whit.export.ir.ops.tensors.tensor_operator import (
    Operand,
    TensorOperator,
    number,
    operands,
    write_operands,
)
from whit.export.ir.ops.values import Layout, TensorValue, UnsupportedOp, ValueView
from whit.export.onnx import OnnxWriter

Unary = tuple[Callable[[Tensor], Tensor], tuple[str, ...]]
# By ATen operator: the function, and the ONNX operators that compute it, each of the last one.
_UNARY: dict[str, Unary] = {
    "abs": (torch.abs, ("Abs",)),
    "neg": (torch.neg, ("Neg",)),
    "exp": (torch.exp, ("Exp",)),
    "log": (torch.log, ("Log",)),
    "sqrt": (torch.sqrt, ("Sqrt",)),
    "rsqrt": (torch.rsqrt, ("Sqrt", "Reciprocal")),
    "reciprocal": (torch.reciprocal, ("Reciprocal",)),
    "sin": (torch.sin, ("Sin",)),
    "cos": (torch.cos, ("Cos",)),
    "erf": (torch.erf, ("Erf",)),
    "sign": (torch.sign, ("Sign",)),
    "floor": (torch.floor, ("Floor",)),
    "ceil": (torch.ceil, ("Ceil",)),
    "round": (torch.round, ("Round",)),
    "softplus": (F.softplus, ("Softplus",)),
    "log_sigmoid": (F.logsigmoid, ("Neg", "Softplus", "Neg")),
    "mish": (F.mish, ("Mish",)),
    "selu": (F.selu, ("Selu",)),
    "softsign": (F.softsign, ("Softsign",)),
    "logical_not": (lambda x: (x == 0).to(x.dtype), ()),
}
_ARITHMETIC: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "add": (torch.add, "Add"),
    "sub": (torch.sub, "Sub"),
    "mul": (torch.mul, "Mul"),
    "div": (torch.div, "Div"),
    "pow": (torch.pow, "Pow"),
    "maximum": (torch.maximum, "Max"),
    "minimum": (torch.minimum, "Min"),
}
_COMPARISONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "gt": (torch.gt, "Greater"),
    "ge": (torch.ge, "GreaterOrEqual"),
    "lt": (torch.lt, "Less"),
    "le": (torch.le, "LessOrEqual"),
    "eq": (torch.eq, "Equal"),
}


def _write_unary(writer: OnnxWriter, op: Operation) -> None:
    kinds = _UNARY[op.attributes["function"]][1]
    (name,) = op.inputs
    if not kinds:
        name = writer.node("Equal", f"{op.name}:equal", name, number(writer, 0.0))
        _write_cast(writer, op.name, name, to_bool=False)
    for i, kind in enumerate(kinds, start=1):
        name = writer.node(kind, op.name if i == len(kinds) else f"{op.name}:{i}", name)


def _write_cast(writer: OnnxWriter, name: str, value: str, *, to_bool: bool) -> str:
    from onnx import TensorProto

    to = TensorProto.BOOL if to_bool else TensorProto.FLOAT
    return writer.node("Cast", name, value, to=to)


# Attribute function.
UNARY = TensorOperator(
    kind="function",
    run=lambda op, inputs, constants: _UNARY[op.attributes["function"]][0](inputs[0]),
    onnx=_write_unary,
)


def _run_binary(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    return _ARITHMETIC[op.attributes["function"]][0](*operands(op, inputs, constants))


# Attribute function.
BINARY = TensorOperator(
    kind="arithmetic",
    run=_run_binary,
    onnx=lambda writer, op: writer.node(
        _ARITHMETIC[op.attributes["function"]][1], op.name, *write_operands(writer, op)
    ),
)


def _run_comparison(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    a, b = operands(op, inputs, constants)
    return _COMPARISONS[op.attributes["function"]][0](a, b).to(inputs[0].dtype)


def _write_comparison(writer: OnnxWriter, op: Operation) -> None:
    kind = _COMPARISONS[op.attributes["function"]][1]
    found = writer.node(kind, f"{op.name}:bool", *write_operands(writer, op))
    _write_cast(writer, op.name, found, to_bool=False)


# 1 where it holds, else 0. Attribute function.
COMPARISON = TensorOperator(kind="comparison", run=_run_comparison, onnx=_write_comparison)


def _run_where(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    condition, a, b = operands(op, inputs, constants)
    return torch.where(condition != 0, a, b)


def _write_where(writer: OnnxWriter, op: Operation) -> None:
    condition, a, b = write_operands(writer, op)
    chosen = _write_cast(writer, f"{op.name}:condition", condition, to_bool=True)
    writer.node("Where", op.name, chosen, a, b)


# Operands: condition, value where it is not 0, value elsewhere.
WHERE = TensorOperator(kind="where", run=_run_where, onnx=_write_where)


def _convert_unary(name: str) -> Converter:
    def convert(call: Call) -> TensorValue:
        for argument, expected in (("threshold", 20), ("decimals", 0)):
            if call.arguments.get(argument, expected) != expected:
                raise UnsupportedOp(f"{call.name} is supported with {argument} {expected} only")
        value, beta = call.tensor(next(iter(call.arguments))), float(call.arguments.get("beta", 1))
        value = value if beta == 1 else binary(call, "mul", value, beta)
        found = call.add(UNARY, [value], None, {"function": name})
        return found if beta == 1 else binary(call, "div", found, beta)

    return convert


def _celu(call: Call) -> TensorValue:
    value, alpha = call.tensor(), float(call["alpha"])
    settings = {"function": "elu", "slope": 1.0}
    scaled = call.add(ACTIVATION, [binary(call, "div", value, alpha)], None, settings)
    return binary(call, "mul", scaled, alpha)


def binary(call: Call, function: str, a: Operand, b: Operand, sizes: Any = None) -> TensorValue:
    return call.add(BINARY, [a, b], sizes, {"function": function})


def where(call: Call, condition: Operand, a: Operand, b: Operand) -> TensorValue:
    """Return a where the condition holds, else b."""
    return call.add(WHERE, [condition, a, b])


def _add(call: Call) -> TensorValue:
    a, b = call["self"], call["other"]
    for value, other in ((a, b), (b, a)):
        if isinstance(value, Tensor) and value.isinf().any() and "alpha" in call.arguments:
            return _masked(call, call.operand(other), value, call["alpha"])
    return _scaled(call, "add", call.operand(a), call.operand(b))


def _masked(call: Call, value: Operand, mask: Tensor, alpha: float) -> TensorValue:
    """Add a constant with minus infinity, which masks scores before a softmax."""
    if alpha != 1 or (mask == inf).any():
        raise UnsupportedOp("add with a constant that has infinite values is not supported")
    hidden = call.operand((mask == -inf).to(mask.dtype))
    finite = mask.masked_fill(mask == -inf, 0)
    if finite.any():
        value = binary(call, "add", value, call.operand(finite))
    return where(call, hidden, -inf, value)


def _scaled(call: Call, function: str, a: Operand, b: Operand) -> TensorValue:
    alpha = call.arguments.get("alpha", 1)
    if alpha != 1:
        if isinstance(b, TensorValue):
            b = binary(call, "mul", b, float(alpha), b.sizes)
        else:
            b = b * alpha
    return binary(call, function, a, b)


def _sub(call: Call) -> TensorValue:
    return _scaled(call, "sub", call.operand(call["self"]), call.operand(call["other"]))


def _rsub(call: Call) -> TensorValue:
    return _scaled(call, "sub", call.operand(call["other"]), call.operand(call["self"]))


def _binary(function: str) -> Converter:
    names = ("self", "exponent" if function == "pow" else "other")

    def convert(call: Call) -> TensorValue:
        if call.arguments.get("rounding_mode"):
            mode = call["rounding_mode"]
            raise UnsupportedOp(f"division with rounding_mode={mode!r} is not supported")
        return binary(call, function, *(call.operand(call[name]) for name in names))

    return convert


def _comparison(function: str) -> Converter:
    def convert(call: Call) -> TensorValue:
        both = [call.operand(call[name]) for name in ("self", "other")]
        return call.add(COMPARISON, both, None, {"function": function})

    return convert


def _not_equal(call: Call) -> TensorValue:
    equal = _comparison("eq")(call)
    return call.add(UNARY, [equal], None, {"function": "logical_not"})


def _where(call: Call) -> TensorValue:
    return where(call, *(call.operand(call[name]) for name in ("condition", "self", "other")))


def _masked_fill(call: Call) -> TensorValue:
    mask, value = call.operand(call["mask"]), call.operand(call["value"])
    return where(call, mask, value, call.operand(call["self"]))


def _clamp(call: Call) -> TensorValue:
    low, high = (
        call.arguments.get(name, call.arguments.get(f"{name}_val")) for name in ("min", "max")
    )
    if any(_has_nan(bound) for bound in (low, high)):
        raise UnsupportedOp("clamp with a bound that is not a number is not supported")
    value = call.tensor()
    bounds = [call.operand(bound) if bound is not None else None for bound in (low, high)]
    if any(isinstance(bound, Tensor | TensorValue) for bound in bounds):
        for function, bound in zip(("maximum", "minimum"), bounds, strict=True):
            value = value if bound is None else binary(call, function, value, bound)
        return value
    settings, _ = read_clamp(ValueView("", (1,), Layout.VECTOR), *bounds)
    return call.add(ACTIVATION, [value], None, settings)


def _has_nan(bound: Any) -> bool:
    if isinstance(bound, Tensor):
        return bool(bound.isnan().any())
    return isinstance(bound, float) and isnan(bound)


def _prelu(call: Call) -> TensorValue:
    value, slope = call.tensor(), call.constant("weight")
    assert slope is not None
    slope = slope.flatten()
    slope = slope.view(-1, *(1,) * (len(value.sizes) - 2)) if len(value.sizes) > 1 else slope
    negative = binary(call, "minimum", value, 0.0)
    positive = binary(call, "maximum", value, 0.0)
    return binary(call, "add", positive, binary(call, "mul", negative, slope))


def _glu(call: Call) -> TensorValue:
    value = call.tensor()
    dim = call.dim(call["dim"], value)
    half = value.sizes[dim] // 2
    linear = slice_range(call, value, dim, 0, half)
    gate = slice_range(call, value, dim, half, 2 * half)
    gate = call.add(ACTIVATION, [gate], gate.sizes, {"function": "sigmoid"})
    return binary(call, "mul", linear, gate)


def _activation(name: str) -> Converter:
    function = FUNCTIONS[name]

    def convert(call: Call) -> TensorValue:
        view = ValueView("", (1,), Layout.VECTOR)
        given, _ = function.read(view, *call.positional[1:], **call.named)
        attributes = {"function": name, **given}
        return call.add(ACTIVATION, [call.tensor(next(iter(call.arguments)))], None, attributes)

    return convert


_SIMPLE = [name for name in FUNCTIONS if name not in ("prelu", "relu6", "clamp", "gelu_tanh")]
CONVERTERS: dict[str, Converter] = {
    **{name: _convert_unary(name) for name in _UNARY},
    "celu": _celu,
    "bitwise_not": _convert_unary("logical_not"),
    "add": _add,
    "sub": _sub,
    "rsub": _rsub,
    **{name: _binary(name) for name in ("mul", "div", "pow", "maximum", "minimum")},
    **dict.fromkeys(("logical_and", "bitwise_and"), _binary("mul")),
    "square": lambda call: binary(call, "mul", call.tensor(), call.tensor()),
    **{name: _comparison(name) for name in _COMPARISONS},
    "ne": _not_equal,
    "where": _where,
    "masked_fill": _masked_fill,
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "hardtanh"), _clamp),
    "relu6": lambda call: call.add(ACTIVATION, [call.tensor()], None, {"function": "relu6"}),
    **dict.fromkeys(("prelu", "_prelu_kernel"), _prelu),
    "glu": _glu,
    **{name: _activation(name) for name in _SIMPLE},
}
OPERATORS = (UNARY, BINARY, COMPARISON, WHERE)
