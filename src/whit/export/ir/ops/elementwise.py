"""Addition, subtraction and multiplication of two values or a value and a constant; softmax."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whit.export.ir.graph import Graph, Operation
from whit.export.ir.ops.channels import repeat_channel
from whit.export.ir.ops.constant import constant_like
from whit.export.ir.ops.layers import conv
from whit.export.ir.ops.operator import Constants, Operator
from whit.export.ir.ops.scale import add_scale
from whit.export.ir.ops.values import (
    Expanded,
    GraphBuilder,
    Layout,
    UnsupportedOp,
    ValueView,
    collapse,
    require_float,
)
from whit.export.onnx import OnnxWriter
from whit.export.program import Ints, Kernel, Step
from whit.export.quantization.builder import QuantizedProgramBuilder
from whit.export.quantization.fixed_point import BYTE_RANGE, quantize_multiplier, scalar_multiplier

_CALL = "({input}, {other}, {per_channel}, {pixels}, {channels}, "


def _run(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    x, other = inputs
    other = other if other.shape == x.shape else other[:, :, None, None]
    return op.operator.function(x, other)  # type: ignore[attr-defined, no-any-return]


@dataclass(frozen=True, eq=False, kw_only=True)
class Binary(Operator):
    """A binary operator; a vector (C,) is broadcast over the pixels of a map.

    function: takes two tensors or numbers.
    as_scale: returns the scale and offset equivalent to a constant second operand (C,).
    exchange: for an operator that is not commutative: returns its value with operands exchanged.
    """

    function: Callable[[Any, Any], Any]
    as_scale: Callable[[Tensor], tuple[Tensor, Tensor]]
    exchange: Callable[[GraphBuilder, ValueView, Any], ValueView] | None = None
    run: Callable[[Operation, list[Tensor], Constants], Tensor] = _run
    settings: Callable[[Graph, Operation], dict[str, Any]] = lambda graph, op: {
        "per_channel": graph.value_shape(op.inputs[1]) != op.shape
    }

    def write_onnx(self, writer: OnnxWriter, op: Operation) -> None:
        a, b = op.inputs
        if writer.graph.value_shape(b) != writer.graph.value_shape(a):
            axes = writer.array("axes:HW", [2, 3], np.int64)
            b = writer.node("Unsqueeze", f"{op.name}:map", b, axes)
        writer.node(str(self.onnx), op.name, a, b)

    def convert(self, builder: GraphBuilder, a: Any, b: Any, *, alpha: float = 1) -> Any:
        if alpha != 1:
            b = MULTIPLY.convert(builder, b, alpha) if _is_variable(b) else b * alpha
        if isinstance(a, Expanded) and isinstance(b, Expanded) and a.lengths == b.lengths:
            return Expanded(self.of_any(builder, a.value, b.value), a.lengths)
        if isinstance(a, Expanded) and not _is_variable(b):
            return Expanded(self.of_any(builder, a.value, self._fit(b, a)), a.lengths)
        if isinstance(b, Expanded) and not _is_variable(a):
            of_two = self.exchange or self.by_constant
            return Expanded(of_two(builder, b.value, self._fit(a, b)), b.lengths)
        a, b = self._unexpanded(a, b), self._unexpanded(b, a)
        if isinstance(a, ValueView):
            return self.of_any(builder, a, b)
        return (self.exchange or self.by_constant)(builder, b, a)

    def of_any(self, builder: GraphBuilder, a: ValueView, b: Any) -> ValueView:
        """Apply it to a value and another value or a constant."""
        of_two = self.of_values if isinstance(b, ValueView) else self.by_constant
        return of_two(builder, a, b)

    def _unexpanded(self, value: Any, other: Any) -> Any:
        """Undo the expansion of a value to the size of the other operand."""
        if not isinstance(value, Expanded):
            return value
        if not isinstance(other, ValueView) or value.lengths != other.lengths:
            raise UnsupportedOp(f"{self.kind} of these two shapes is not supported")
        return value.value

    def _fit(self, constant: Any, other: Expanded) -> Any:
        """Return a constant as an operand of the value that is expanded."""
        if not isinstance(constant, Tensor):
            return constant
        constant = collapse(constant, other.lengths)
        lengths = zip(constant.shape[1:], other.value.lengths, strict=True)
        if any(size not in (1, length) for size, length in lengths):
            why = "a constant that varies where the other operand is expanded"
            raise UnsupportedOp(f"{self.kind} with {why} is not supported")
        return constant

    def of_values(self, builder: GraphBuilder, a: ValueView, b: ValueView) -> ValueView:
        if (a.shape, a.axes) != (b.shape, b.axes):
            is_flat = len(a.axes) == 2 and a.lengths == b.lengths
            as_vector = builder.as_flat_vector if is_flat else builder.as_channel_vector
            a, b = as_vector(a), as_vector(b)
        if (a.shape, a.axes) == (b.shape, b.axes):
            return builder.add(self, [a, b], a.shape, axes=a.axes)
        if b.is_map and a.axes in (Layout.MAP, Layout.BY_CHANNEL) and a.shape[0] == 1 < b.shape[0]:
            return self.of_values(builder, repeat_channel(builder, a, b.shape[0]), b)
        if a.is_map and b.axes in (Layout.MAP, Layout.BY_CHANNEL) and b.shape[0] == 1 < a.shape[0]:
            return self.of_values(builder, a, repeat_channel(builder, b, a.shape[0]))
        if b.is_map and a.axes == Layout.BY_CHANNEL:
            return (self.exchange or self.of_values)(builder, b, a)
        if a.is_map and b.axes == Layout.BY_CHANNEL and a.shape[0] == b.shape[0]:
            return builder.add(self, [a, b], a.shape)
        raise UnsupportedOp(f"{self.kind} of these two shapes is not supported")

    def by_constant(self, builder: GraphBuilder, value: ValueView, by: Any) -> ValueView:
        rank, channels = len(value.axes), value.shape[0]
        constant = torch.as_tensor(by, dtype=torch.float64)
        if constant.ndim > rank:
            why = "a constant of more dimensions than the value"
            raise UnsupportedOp(f"{self.kind} with {why} is not supported")
        constant = collapse(constant, value.lengths)
        at = next((dim for dim, group in enumerate(value.axes) if group == ("C",)), None)
        if any(size > 1 for dim, size in enumerate(constant.shape) if dim != at):
            return self.of_values(builder, value, constant_like(builder, value, constant))
        broadcasts = constant.numel() > channels  # one channel becomes several
        if broadcasts and value.axes != Layout.MAP:
            raise UnsupportedOp(
                f"{self.kind} that broadcasts one channel to several is not supported"
            )
        constant = constant.flatten().expand(max(channels, constant.numel())).clone()
        scale, offset = self.as_scale(constant)
        if broadcasts:
            return conv(builder, value, scale.view(-1, 1, 1, 1), offset)
        return add_scale(builder, value, scale, offset)


def _is_variable(value: Any) -> bool:
    return isinstance(value, ValueView | Expanded)


def _float_kernel(kind: str, sign: str) -> Kernel:
    words = {"kind": kind, "operator": sign}
    return Kernel(kind, kind + _CALL + "{output})", None, "float/binary.c", words, in_place=True)


def _int8_kernel(kind: str, compute: Callable[[Ints, Ints, Mapping[str, Any]], Ints]) -> Kernel:
    def of_step(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
        a, b = inputs
        b = b.reshape(len(b), 1, 1, -1) if step.settings["per_channel"] else b
        return compute(a, b, step.settings)

    call, helpers = kind + _CALL + "{scalars}, {output})", ("requantize",)
    return Kernel(kind, call, of_step, helpers=helpers, in_place=True, elementwise=True)


_ADD_INT8 = _int8_kernel("add", lambda a, b, s: a * s["factor_a"] + b * s["factor_b"] + s["offset"])
_MULTIPLY_INT8 = _int8_kernel(
    "multiply", lambda a, b, s: (a - s["zero_point_a"]) * (b - s["zero_point_b"])
)


def _lower_sum_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    a, b = (builder.qparams[name] for name in op.inputs)
    qparams = builder.choose(op.name)
    sign = 1 if op.operator is ADD else -1
    factors = np.array([a.scale, sign * b.scale]) / qparams.scale
    # The sum of two products: twice the range of one byte bounds it.
    bounds = (BYTE_RANGE[0], 2 * BYTE_RANGE[1])
    multiplier = quantize_multiplier(op.name, factors, np.zeros(2), bounds)
    factor_a, factor_b = multiplier.factors.tolist()
    zero = (qparams.zero_point << multiplier.shift) + (1 << (multiplier.shift - 1))
    settings = {
        "factor_a": factor_a,
        "factor_b": factor_b,
        "offset": zero - factor_a * a.zero_point - factor_b * b.zero_point,
        "shift": multiplier.shift,
    }
    builder.add(op, _ADD_INT8, settings | op.operator.settings(builder.graph, op))


def _lower_product_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    a, b = (builder.qparams[name] for name in op.inputs)
    qparams, highest = builder.choose(op.name), 255 * 255
    factor = a.scale * b.scale / qparams.scale
    settings = scalar_multiplier(op.name, factor, qparams.zero_point, -highest, highest)
    zeros = {"zero_point_a": a.zero_point, "zero_point_b": b.zero_point}
    builder.add(op, _MULTIPLY_INT8, settings | zeros | op.operator.settings(builder.graph, op))


def _subtract_from(builder: GraphBuilder, b: ValueView, a: Any) -> ValueView:
    return ADD.of_any(builder, MULTIPLY.by_constant(builder, b, -1.0), a)


def _power(builder: GraphBuilder, value: Any, exponent: Any) -> Any:
    if _is_variable(exponent):
        raise UnsupportedOp("a power with an exponent that is not constant is not supported")
    if isinstance(exponent, Tensor) and exponent.numel() == 1:
        exponent = exponent.item()
    if isinstance(exponent, Tensor) or exponent != 2:
        which = "of several numbers" if isinstance(exponent, Tensor) else exponent
        raise UnsupportedOp(f"a power with exponent {which} is not supported, only 2")
    return MULTIPLY.convert(builder, value, value)


def _divide(builder: GraphBuilder, a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode is not None:
        raise UnsupportedOp(f"division with rounding_mode={rounding_mode!r} is not supported")
    if _is_variable(b):
        raise UnsupportedOp("division is supported by constants only")
    return MULTIPLY.by_constant(builder, a, 1 / torch.as_tensor(b, dtype=torch.float64))


ADD: Binary = Binary(
    kind="add",
    function=operator.add,
    kernel=_float_kernel("add", "+"),
    onnx="Add",
    converters={
        "add": lambda builder, a, b, *, alpha: ADD.convert(builder, a, b, alpha=alpha),
        "add.Scalar": lambda builder, a, b, alpha: ADD.convert(builder, a, b, alpha=alpha),
    },
    accepts_expanded=("add",),
    as_scale=lambda constant: (torch.ones_like(constant), constant),
    lower_int8=_lower_sum_int8,
)
SUBTRACT: Binary = Binary(
    kind="subtract",
    function=operator.sub,
    kernel=_float_kernel("subtract", "-"),
    onnx="Sub",
    converters={
        "sub": lambda builder, a, b, *, alpha: SUBTRACT.convert(builder, a, b, alpha=alpha),
        "sub.Scalar": lambda builder, a, b, alpha: SUBTRACT.convert(builder, a, b, alpha=alpha),
        "rsub": lambda builder, a, b, *, alpha: SUBTRACT.convert(builder, b, a, alpha=alpha),
        "rsub.Scalar": lambda builder, a, b, alpha: SUBTRACT.convert(builder, b, a, alpha=alpha),
    },
    accepts_expanded=("sub", "rsub"),
    as_scale=lambda constant: (torch.ones_like(constant), -constant),
    exchange=_subtract_from,
    lower_int8=_lower_sum_int8,
)
MULTIPLY: Binary = Binary(
    kind="multiply",
    function=operator.mul,
    kernel=_float_kernel("multiply", "*"),
    onnx="Mul",
    converters={
        "mul": lambda builder, a, b: MULTIPLY.convert(builder, a, b),
        "neg": lambda builder, value: MULTIPLY.convert(builder, value, -1.0),
        "square": lambda builder, value: _power(builder, value, 2),
        "pow": _power,
        "div": _divide,
    },
    accepts_expanded=("mul", "neg"),
    as_scale=lambda constant: (constant, torch.zeros_like(constant)),
    lower_int8=_lower_product_int8,
)


def _softmax(kind: str, function: Callable[[Tensor, int], Tensor], onnx: str) -> Operator:
    def convert(builder: GraphBuilder, value: ValueView, dim: int, dtype: Any) -> ValueView:
        require_float(dtype, kind)
        if value.axes[dim % len(value.axes)] != ("C",):
            raise UnsupportedOp(f"{kind} is supported over the classes only")
        if prod(value.shape) != value.shape[0]:
            raise UnsupportedOp(f"{kind} at each pixel of a map is not supported")
        vector = builder.as_vector(value)
        return builder.add(softmax, [vector], vector.shape, axes=value.axes)

    softmax = Operator(
        kind=kind,
        run=lambda op, inputs, constants: function(inputs[0], 1),
        kernel=Kernel(kind, kind + "({input}, {count}, {output})"),
        onnx=onnx,
        onnx_attributes=lambda op: {"axis": 1},
        converters={
            kind: convert,
            f"_{kind}": lambda builder, value, dim, half_to_float: convert(
                builder, value, dim, None
            ),
        },
        keeps_argmax=True,
    )
    return softmax


SOFTMAX = _softmax("softmax", F.softmax, "Softmax")
LOG_SOFTMAX = _softmax("log_softmax", F.log_softmax, "LogSoftmax")
OPERATORS = (ADD, SUBTRACT, MULTIPLY, SOFTMAX, LOG_SOFTMAX)
