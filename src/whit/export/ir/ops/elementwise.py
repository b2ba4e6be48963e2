"""Sums, differences and products of two values, or of one and a constant."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from whit.export.c.kernel import Ints, Kernel, KernelCall, Step
from whit.export.ir.graph import Graph, Operation
from whit.export.ir.ops.channels import repeat_channel
from whit.export.ir.ops.conv import conv
from whit.export.ir.ops.operator import Converter, Operator
from whit.export.ir.ops.scale import scaled
from whit.export.ir.ops.values import (
    BY_CHANNEL,
    MAP,
    Expanded,
    GraphBuilder,
    UnsupportedOp,
    ValueView,
)
from whit.export.quantization.fixed_point import BYTE_RANGE, quantize_multiplier
from whit.export.quantization.reference import by_factor, requantize

if TYPE_CHECKING:
    from whit.export.onnx import OnnxWriter
    from whit.export.quantization.builder import QuantizedProgramBuilder


def _is_number(value: Any) -> bool:
    return value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, int | float)


def _call(call: KernelCall) -> list[str]:
    by_channel = int(call.settings["by_channel"])
    values = f"{call.inputs[0]}, {call.inputs[1]}, {by_channel}, {call.pixels}, {call.channels}"
    return [f"{call.step.kind}({values}, {call.scalars}{call.output})"]


def _second(step: Step, inputs: list[Ints]) -> Ints:
    return inputs[1].reshape(len(inputs[1]), 1, 1, -1) if step.settings["by_channel"] else inputs[1]


class Binary(Operator):
    """Of two values of one shape; a vector (C,) counts for every pixel of a map.

    function: of tensors or numbers; sign: in C; aten: the ATen operator that `convert` reads;
    converters: of others.
    """

    def __init__(
        self,
        kind: str,
        function: Callable[[Any, Any], Any],
        sign: str,
        onnx: str,
        aten: str,
        **converters: Converter,
    ):
        self.kind, self.function, self.onnx = kind, function, onnx
        words = {"kind": kind, "sign": sign}
        self.kernel = Kernel(kind, _call, None, "float/binary.c", words, in_place=True)
        self.converters = {aten: self.convert, **converters}

    def convert(self, builder: GraphBuilder, a: Any, b: Any, alpha: float = 1) -> Any:
        if alpha != 1:
            b = MULTIPLY.convert(builder, b, alpha)
        if isinstance(a, Expanded) and isinstance(b, Expanded) and a.lengths == b.lengths:
            return Expanded(self.convert(builder, a.value, b.value), a.lengths)
        if isinstance(a, Expanded) and _is_number(b):
            return Expanded(self.convert(builder, a.value, b), a.lengths)
        if isinstance(b, Expanded) and _is_number(a):
            return Expanded(self.convert(builder, a, b.value), b.lengths)
        a, b = self._unexpanded(a, b), self._unexpanded(b, a)
        if isinstance(a, ValueView) and isinstance(b, ValueView):
            return self._of_values(builder, a, b)
        if isinstance(a, ValueView):
            return self.by_constant(builder, a, b)
        if isinstance(b, ValueView):
            return self._of_constant_and_value(builder, a, b)
        return self.function(a, b)

    def _unexpanded(self, value: Any, other: Any) -> Any:
        """Return a value that was expanded to the size of the other as it was before."""
        if not isinstance(value, Expanded):
            return value
        if not isinstance(other, ValueView) or value.lengths != other.lengths:
            raise UnsupportedOp(f"it uses {self.kind} of two values of different shapes")
        return value.value

    def _of_values(self, builder: GraphBuilder, a: ValueView, b: ValueView) -> ValueView:
        if (a.shape, a.axes) != (b.shape, b.axes):
            is_flat = len(a.axes) == 2 and a.lengths == b.lengths
            as_vector = builder.as_flat_vector if is_flat else builder.as_channel_vector
            a, b = as_vector(a), as_vector(b)
        if (a.shape, a.axes) == (b.shape, b.axes):
            return builder.add(self, [a, b], a.shape, axes=a.axes)
        if b.axes == MAP and a.axes in (MAP, BY_CHANNEL) and a.shape[0] == 1 < b.shape[0]:
            return self._of_values(builder, repeat_channel(builder, a, b.shape[0]), b)
        if a.axes == MAP and b.axes in (MAP, BY_CHANNEL) and b.shape[0] == 1 < a.shape[0]:
            return self._of_values(builder, a, repeat_channel(builder, b, a.shape[0]))
        if b.axes == MAP and a.axes == BY_CHANNEL:
            return self._of_vector_and_map(builder, a, b)
        if a.axes == MAP and b.axes == BY_CHANNEL and a.shape[0] == b.shape[0]:
            return builder.add(self, [a, b], a.shape)
        raise UnsupportedOp(f"it uses {self.kind} of two values of different shapes")

    def _of_vector_and_map(self, builder: GraphBuilder, a: ValueView, b: ValueView) -> ValueView:
        """Return the value where the order of the two may be exchanged."""
        return self._of_values(builder, b, a)

    def _of_constant_and_value(self, builder: GraphBuilder, a: Any, b: ValueView) -> ValueView:
        """Return the value where the order of the two may be exchanged."""
        return self.by_constant(builder, b, a)

    @abstractmethod
    def as_scale(self, constant: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scale and offset that a constant is as the second of the two."""

    def by_constant(self, builder: GraphBuilder, value: ValueView, by: Any) -> ValueView:
        channels = value.shape[0]
        if isinstance(by, Tensor):  # what was expanded is one number many times
            by = by[tuple(slice(0, 1 if stride == 0 else None) for stride in by.stride())]
        constant = torch.as_tensor(by, dtype=torch.float64)
        if constant.ndim > len(value.axes):
            raise UnsupportedOp(
                f"it uses {self.kind} by a constant of more dimensions than the value"
            )
        if constant.numel() > 1:
            at = next((dim for dim, group in enumerate(value.axes) if group == ("C",)), None)
            if at is None:
                raise UnsupportedOp(f"it uses {self.kind} by a constant over merged dimensions")
            shape = (1,) * (len(value.axes) - constant.ndim) + tuple(constant.shape)
            if any(size > 1 for dim, size in enumerate(shape) if dim != at):
                raise UnsupportedOp(
                    f"it uses {self.kind} by a constant that differs from place to place"
                )
        broadcasts = constant.numel() > channels  # one channel becomes several
        if broadcasts and value.axes != MAP:
            raise UnsupportedOp(f"it uses {self.kind} of one number by several")
        constant = constant.flatten().expand(max(channels, constant.numel())).clone()
        scale, offset = self.as_scale(constant)
        if broadcasts:
            return conv(builder, value, scale.view(-1, 1, 1, 1), offset)
        return scaled(builder, value, scale, offset)

    def run(self, op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
        x, other = inputs
        other = other if other.shape == x.shape else other[:, :, None, None]
        return self.function(x, other)  # type: ignore[no-any-return]

    def settings(self, graph: Graph, op: Operation) -> dict[str, Any]:
        return {"by_channel": graph.shape_of(op.inputs[1]) != op.shape}

    def write_onnx(self, writer: OnnxWriter, op: Operation) -> None:
        a, b = op.inputs
        if writer.graph.shape_of(b) != writer.graph.shape_of(a):
            axes = writer.array("axes:HW", [2, 3], np.int64)
            b = writer.node("Unsqueeze", f"{op.name}:map", b, axes)
        writer.node(self.onnx, op.name, a, b)


def _compute_add(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    settings = step.settings
    sums = inputs[0] * settings["factor_a"] + _second(step, inputs) * settings["factor_b"]
    return requantize(sums + settings["offset"], settings["shift"])


class Add(Binary):
    """The sum of two values."""

    accepts_expanded = ("add",)
    sign_of_second = 1
    int8_kernel = Kernel(
        "add", _call, _compute_add, int8_helpers=("settle",), in_place=True, elementwise=True
    )

    def as_scale(self, constant: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(constant), self.sign_of_second * constant

    def lower_int8(self, builder: QuantizedProgramBuilder, op: Operation) -> None:
        a, b = (builder.qparams[name] for name in op.inputs)
        made = builder.choose(op.name)
        factors = np.array([a.scale, self.sign_of_second * b.scale]) / made.scale
        # Two products in one sum: both bounds are met by twice a byte's.
        bounds = (BYTE_RANGE[0], 2 * BYTE_RANGE[1])
        numbers = quantize_multiplier(op.name, factors, np.zeros(2), bounds)
        factor_a, factor_b = numbers.factors.tolist()
        half = 1 << (numbers.shift - 1)
        zero = (made.zero_point << numbers.shift) + half
        settings = {
            "factor_a": factor_a,
            "factor_b": factor_b,
            "offset": zero - factor_a * a.zero_point - factor_b * b.zero_point,
            "shift": numbers.shift,
        }
        builder.add(op, self.int8_kernel, settings | self.settings(builder.graph, op))


class Subtract(Add):
    """The difference of two values."""

    accepts_expanded = ("sub", "rsub")
    sign_of_second = -1

    def _of_vector_and_map(self, builder: GraphBuilder, a: ValueView, b: ValueView) -> ValueView:
        return ADD._of_values(builder, MULTIPLY.by_constant(builder, b, -1.0), a)

    def _of_constant_and_value(self, builder: GraphBuilder, a: Any, b: ValueView) -> ValueView:
        return ADD.by_constant(builder, MULTIPLY.by_constant(builder, b, -1.0), a)


def _compute_multiply(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    settings = step.settings
    products = (inputs[0] - settings["zero_a"]) * (_second(step, inputs) - settings["zero_b"])
    return requantize(by_factor(products, settings), settings["shift"])


class Multiply(Binary):
    """The product of two values."""

    accepts_expanded = ("mul", "neg")
    int8_kernel = Kernel(
        "multiply",
        _call,
        _compute_multiply,
        int8_helpers=("settle",),
        in_place=True,
        elementwise=True,
    )

    def as_scale(self, constant: Tensor) -> tuple[Tensor, Tensor]:
        return constant, torch.zeros_like(constant)

    def lower_int8(self, builder: QuantizedProgramBuilder, op: Operation) -> None:
        a, b = (builder.qparams[name] for name in op.inputs)
        made = builder.choose(op.name)
        highest = np.full(1, 255 * 255, np.int64)
        factor = np.array([a.scale * b.scale / made.scale])
        zero = np.full(1, float(made.zero_point))
        numbers = quantize_multiplier(op.name, factor, zero, (-highest, highest))
        zeros = {"zero_a": a.zero_point, "zero_b": b.zero_point}
        settings = numbers.scalar_settings() | zeros | self.settings(builder.graph, op)
        builder.add(op, self.int8_kernel, settings)


def _reversed_subtract(builder: GraphBuilder, a: Any, b: Any, alpha: float = 1) -> Any:
    return SUBTRACT.convert(builder, b, a, alpha)


def _negate(builder: GraphBuilder, value: Any) -> Any:
    return MULTIPLY.convert(builder, value, -1.0)


def _power(builder: GraphBuilder, value: Any, exponent: Any = 2) -> Any:
    if exponent != 2:
        raise UnsupportedOp(f"it uses a power of {exponent}")
    return MULTIPLY.convert(builder, value, value)


def _divide(builder: GraphBuilder, a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode is not None:
        raise UnsupportedOp(f"it uses division with rounding by {rounding_mode}")
    if isinstance(b, ValueView):
        raise UnsupportedOp("it divides by a value that depends on the image")
    if not isinstance(a, ValueView):
        return a / b
    return MULTIPLY.by_constant(builder, a, 1 / torch.as_tensor(b, dtype=torch.float64))


ADD = Add("add", operator.add, "+", "Add", "add")
SUBTRACT = Subtract("subtract", operator.sub, "-", "Sub", "sub", rsub=_reversed_subtract)
_PRODUCTS = {"neg": _negate, "square": _power, "pow": _power, "div": _divide}
MULTIPLY = Multiply("multiply", operator.mul, "*", "Mul", "mul", **_PRODUCTS)
OPERATORS = (ADD, SUBTRACT, MULTIPLY)
