"""x * scale + offset per channel: BatchNorm and constants, and their fusion into neighbors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from whit.export.ir.fusion import remove_operation
from whit.export.ir.graph import INPUT, Graph, Operation
from whit.export.ir.ops.layers import Layer
from whit.export.ir.ops.operator import Operator
from whit.export.ir.ops.values import GraphBuilder, UnsupportedOp, ValueView
from whit.export.onnx import OnnxWriter
from whit.export.program import Kernel
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
        raise UnsupportedOp("BatchNorm is not supported after channels were permuted or merged")
    scale = (var.double() + eps).rsqrt() * (1 if weight is None else weight.double())
    offset = -mean.double() * scale
    if bias is not None:
        offset = offset + bias.double()
    return [add_scale(builder, value, scale, offset)]


def add_scale(builder: GraphBuilder, value: ValueView, scale: Tensor, offset: Tensor) -> ValueView:
    """Return value * scale + offset per channel."""
    constants = {"scale": scale, "offset": offset}
    return builder.add(SCALE, [value], value.shape, {}, constants, value.axes)


def _run(op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
    shape = (1, -1, *(1,) * (inputs[0].ndim - 2))
    return inputs[0] * constants["scale"].view(shape) + constants["offset"].view(shape)


def _fuse(graph: Graph, op: Operation) -> Graph | None:
    """Merge it into a neighbor: the preceding layer or scale, else the following layer.

    Operations in between must commute with it. Shared weights are left alone, since each operation
    would need its own copy.
    """
    constants, changed = dict(graph.constants), {}
    scale, offset = (constants[op.constants[role]] for role in ("scale", "offset"))
    if into := _find_preceding(graph, op, scale):
        roles = ("scale", "offset") if into.operator is SCALE else ("weight", "bias")
        factor, term = (constants[into.constants[role]] for role in roles)
        merged = factor * scale.view(-1, *(1,) * (factor.ndim - 1)), term * scale + offset
        if into.operator is SCALE:  # its constants may be shared
            into = changed[into.name] = replace(
                into, constants={role: f"{into.name}.{role}" for role in roles}
            )
    elif into := _find_following(graph, op, scale):
        roles = ("weight", "bias")
        weight, bias = (constants[into.constants[role]] for role in roles)
        assert isinstance(into.operator, Layer)
        merged = into.operator.scale_inputs(into, weight, bias, scale, offset)
    else:
        return None
    constants.update(zip((into.constants[role] for role in roles), merged, strict=True))
    return remove_operation(replace(graph, constants=constants), op, changed)


def _uses_constants_alone(graph: Graph, op: Operation) -> bool:
    users = graph.constant_users()
    return all(users[name] == 1 for name in op.constants.values())


def _find_preceding(graph: Graph, op: Operation, scale: Tensor) -> Operation | None:
    """Return the preceding layer or scale that can absorb a scale, if any."""
    producers = {each.name: each for each in graph.operations}
    consumers = graph.consumers()
    (name,) = op.inputs
    while name != INPUT and consumers[name] == 1:
        op = producers[name]
        if isinstance(op.operator, Layer):
            return op if _uses_constants_alone(graph, op) else None
        if op.operator is SCALE or not op.operator.commutes_with_scale(op, scale):
            return op if op.operator is SCALE else None
        (name,) = op.inputs
    return None


def _find_following(graph: Graph, op: Operation, scale: Tensor) -> Operation | None:
    """Return the following layer without padding that can absorb a scale, if any.

    Low-bit weights must stay multiples of one quantization step per output channel, so only a
    uniform scale can go into them.
    """
    consumers = graph.consumers()
    while consumers[op.name] == 1 and op.name != graph.output:
        (op,) = (each for each in graph.operations if op.name in each.inputs)
        if isinstance(op.operator, Layer):
            padded = any(op.attributes.get("padding", ()))
            varies = graph.bits < 8 and bool((scale != scale[0]).any())
            return None if padded or varies or not _uses_constants_alone(graph, op) else op
        if not op.operator.commutes_with_scale(op, scale):
            return None
    return None


def _lower_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    read, qparams = builder.qparams[op.inputs[0]], builder.choose(op.name)
    factors = builder.constant(op, "scale") * read.scale / qparams.scale
    offsets = builder.constant(op, "offset") / qparams.scale + qparams.zero_point
    multiplier = quantize_multiplier(
        op.name, factors, offsets, BYTE_RANGE, read.zero_point, bits=builder.graph.bits
    )
    names = builder.store_multiplier(op.name, multiplier)
    builder.add(op, _INT8_KERNEL, multiplier.channel_settings(), **names)


def _write_onnx(writer: OnnxWriter, op: Operation) -> None:
    scale, offset = (writer.channel_constant(op, role) for role in ("scale", "offset"))
    product = writer.node("Mul", f"{op.name}:scaled", *op.inputs, scale)
    writer.node("Add", op.name, product, offset)


_INT8_KERNEL = Kernel(
    "scale",
    "scale{suffix}({values}, {vectors}, {output})",
    lambda step, inputs, constants: inputs[0],
    helpers=("requantize",),
    in_place=True,
    elementwise=True,
)
# Constants scale (C,), offset (C,).
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
