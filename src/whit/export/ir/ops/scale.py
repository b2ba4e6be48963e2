"""x * scale + offset by channel: BatchNorm, constants, and how it is merged into neighbors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from whit.export.c.kernel import Ints, Kernel, KernelCall, Step
from whit.export.ir.fusion import remove_operation
from whit.export.ir.graph import INPUT, Graph, Operation
from whit.export.ir.ops.operator import Converter, Operator
from whit.export.ir.ops.values import (
    BY_CHANNEL,
    MAP,
    VECTOR,
    GraphBuilder,
    UnsupportedOp,
    ValueView,
)
from whit.export.ir.ops.weighted import WeightedOperator
from whit.export.quantization.fixed_point import BYTE_RANGE, quantize_multiplier
from whit.export.quantization.reference import requantize

if TYPE_CHECKING:
    from whit.export.onnx import OnnxWriter
    from whit.export.quantization.builder import QuantizedProgramBuilder


def _batch_norm(
    builder: GraphBuilder,
    value: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    momentum: float,
    eps: float,
) -> list[ValueView]:
    if not isinstance(value, ValueView) or value.axes not in (MAP, VECTOR, BY_CHANNEL):
        raise UnsupportedOp("it uses BatchNorm over dimensions that were exchanged or merged")
    scale = (var.double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.double()
    offset = -mean.double() * scale
    if bias is not None:
        offset = offset + bias.double()
    return [scaled(builder, value, scale, offset)]


def scaled(builder: GraphBuilder, value: ValueView, scale: Tensor, offset: Tensor) -> ValueView:
    """Return value * scale + offset, by channel."""
    constants = {"scale": scale, "offset": offset}
    return builder.add(SCALE, [value], value.shape, {}, constants, value.axes)


def _call(call: KernelCall) -> list[str]:
    by = call.vectors if call.int8 else f"{call.constants['scale']}, {call.constants['offset']}"
    return [f"scale{call.suffix}({call.values}, {by}, {call.output})"]


def _compute(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    sums = inputs[0] * constants["factor"] + constants["offset"]
    return requantize(sums, step.settings["shift"])


class Scale(Operator):
    """Constants scale (C,) and offset (C,)."""

    kind = "scale"
    converters: Mapping[str, Converter] = {"_native_batch_norm_legit_no_training": _batch_norm}
    kernel = Kernel(
        "scale", _call, _compute, int8_helpers=("settle",), in_place=True, elementwise=True
    )

    def run(self, op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
        (x,) = inputs
        shape = (1, -1, *(1,) * (x.ndim - 2))
        return x * constants["scale"].view(shape) + constants["offset"].view(shape)

    def fuse(self, graph: Graph, op: Operation) -> Graph | None:
        """Merge it into a neighbor: the layer or scale in front, else the layer behind.

        Between them may stand operations that commute with it. Weights that several operations
        share are left alone: each of them would need its own copy.
        """
        scale, offset = (graph.constants[op.constants[role]] for role in ("scale", "offset"))
        into = _find_in_front(graph, op, scale) or _find_behind(graph, op, scale)
        if into is None:
            return None
        constants, changed = dict(graph.constants), {}
        if into.operator is self:
            names = {role: f"{into.name}.{role}" for role in ("scale", "offset")}
            first, second = (constants[into.constants[role]] for role in ("scale", "offset"))
            constants[names["scale"]] = first * scale
            constants[names["offset"]] = second * scale + offset
            changed[into.name] = replace(into, constants=names)
        else:
            assert isinstance(into.operator, WeightedOperator)
            names = {role: into.constants[role] for role in ("weight", "bias")}
            held = (constants[names["weight"]], constants[names["bias"]])
            if graph.operations.index(into) < graph.operations.index(op):
                made = into.operator.scale_outputs(*held, scale, offset)
            else:
                made = into.operator.scale_inputs(into, *held, scale, offset)
            constants[names["weight"]], constants[names["bias"]] = made
        return remove_operation(replace(graph, constants=constants), op, changed)

    def lower_int8(self, builder: QuantizedProgramBuilder, op: Operation) -> None:
        read, made = builder.qparams[op.inputs[0]], builder.choose(op.name)
        numbers = quantize_multiplier(
            op.name,
            builder.constant(op, "scale") * read.scale / made.scale,
            builder.constant(op, "offset") / made.scale + made.zero_point,
            BYTE_RANGE,
            read.zero_point,
            bits=builder.graph.bits,
        )
        held = builder.store_multiplier(op.name, numbers)
        builder.add(op, self.kernel, numbers.channel_settings(), **held)

    def write_onnx(self, writer: OnnxWriter, op: Operation) -> None:
        scale, offset = (writer.channel_constant(op, role) for role in ("scale", "offset"))
        product = writer.node("Mul", f"{op.name}:scaled", *op.inputs, scale)
        writer.node("Add", op.name, product, offset)


def _has_own_constants(graph: Graph, op: Operation) -> bool:
    users = graph.constant_users()
    return all(users[name] == 1 for name in op.constants.values())


def _find_in_front(graph: Graph, op: Operation, scale: Tensor) -> Operation | None:
    """Return the layer or scale in front of a scale that can take it over."""
    producers = {each.name: each for each in graph.operations}
    consumers = graph.consumers()
    (name,) = op.inputs
    while name != INPUT and consumers[name] == 1:
        found = producers[name]
        if isinstance(found.operator, WeightedOperator):
            return found if _has_own_constants(graph, found) else None
        if found.operator is SCALE:
            return found
        if not found.operator.commutes_with_scale(found, scale):
            return None
        (name,) = found.inputs
    return None


def _find_behind(graph: Graph, op: Operation, scale: Tensor) -> Operation | None:
    """Return the convolution without padding or linear layer behind a scale that can take it over.

    Weights of few bits stay multiples of one step an output: no scale goes into some of them.
    """
    consumers = graph.consumers()
    name = op.name
    while consumers[name] == 1 and name != graph.output:
        (found,) = (each for each in graph.operations if name in each.inputs)
        if isinstance(found.operator, WeightedOperator):
            padded = any(found.attributes.get("padding", ()))
            uneven = graph.bits < 8 and bool((scale != scale[0]).any())
            return None if padded or uneven or not _has_own_constants(graph, found) else found
        if not found.operator.commutes_with_scale(found, scale):
            return None
        name = found.name
    return None


SCALE = Scale()
OPERATORS = (SCALE,)
