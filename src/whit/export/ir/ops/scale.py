"""x * scale + offset by channel: BatchNorm, constants, and how it is merged into neighbors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from whit.export.c.kernel import Kernel
from whit.export.ir.fusion import remove_operation
from whit.export.ir.graph import INPUT, Graph, Operation
from whit.export.ir.ops.layers import Layer
from whit.export.ir.ops.operator import Operator
from whit.export.ir.ops.values import GraphBuilder, UnsupportedOp, ValueView
from whit.export.onnx import OnnxWriter
from whit.export.quantization.builder import QuantizedProgramBuilder
from whit.export.quantization.fixed_point import BYTE_RANGE, quantize_multiplier


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
    if not isinstance(value, ValueView) or not value.has_channels:
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


def _run(op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
    (x,) = inputs
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return x * constants["scale"].view(shape) + constants["offset"].view(shape)


def _fuse(graph: Graph, op: Operation) -> Graph | None:
    """Merge it into a neighbor: the layer or scale in front, else the layer behind.

    Between them may stand operations that commute with it. Weights that several operations share
    are left alone: each of them would need its own copy.
    """
    constants, changed = dict(graph.constants), {}
    scale, offset = (constants[op.constants[role]] for role in ("scale", "offset"))
    if into := _find_in_front(graph, op, scale):
        roles = ("scale", "offset") if into.operator is SCALE else ("weight", "bias")
        factor, term = (constants[into.constants[role]] for role in roles)
        made = factor * scale.view(-1, *(1,) * (factor.ndim - 1)), term * scale + offset
        if into.operator is SCALE:  # its constants may be shared
            into = changed[into.name] = replace(
                into, constants={role: f"{into.name}.{role}" for role in roles}
            )
    elif into := _find_behind(graph, op, scale):
        roles = ("weight", "bias")
        weight, bias = (constants[into.constants[role]] for role in roles)
        assert isinstance(into.operator, Layer)
        made = into.operator.scale_inputs(into, weight, bias, scale, offset)
    else:
        return None
    constants.update({into.constants[role]: made[i] for i, role in enumerate(roles)})
    return remove_operation(replace(graph, constants=constants), op, changed)


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
        if isinstance(found.operator, Layer):
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
        if isinstance(found.operator, Layer):
            padded = any(found.attributes.get("padding", ()))
            uneven = graph.bits < 8 and bool((scale != scale[0]).any())
            return None if padded or uneven or not _has_own_constants(graph, found) else found
        if not found.operator.commutes_with_scale(found, scale):
            return None
        name = found.name
    return None


def _lower_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
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
    builder.add(op, _INT8_KERNEL, numbers.channel_settings(), **held)


def _write_onnx(writer: OnnxWriter, op: Operation) -> None:
    scale, offset = (writer.channel_constant(op, role) for role in ("scale", "offset"))
    product = writer.node("Mul", f"{op.name}:scaled", *op.inputs, scale)
    writer.node("Add", op.name, product, offset)


_INT8_KERNEL = Kernel(
    "scale",
    "scale{suffix}({values}, {vectors}, {output})",
    lambda step, inputs, constants: inputs[0],
    helpers=("settle",),
    in_place=True,
    elementwise=True,
)
# Constants scale (C,) and offset (C,).
SCALE = Operator(
    kind="scale",
    run=_run,
    kernel=Kernel("scale", "scale({values}, {scale}, {offset}, {output})", in_place=True),
    onnx=_write_onnx,
    converters={"_native_batch_norm_legit_no_training": _batch_norm},
    fuse=_fuse,
    lower_int8=_lower_int8,
)
OPERATORS = (SCALE,)
