"""Normalization by the statistics of one image: group, layer, instance and RMS norm."""

from __future__ import annotations

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
from whit.export.ir.ops.tensors.tensor_operator import TensorOperator, integers, number
from whit.export.ir.ops.values import TensorValue, UnsupportedOp
from whit.export.onnx import OnnxWriter


def _run_group(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    weight, bias = constants.get("weight"), constants.get("bias")
    return F.group_norm(inputs[0], op.attributes["groups"], weight, bias, op.attributes["eps"])


def _write_group(writer: OnnxWriter, op: Operation) -> None:
    """Normalize each group as one channel: GroupNormalization 18 has no scale per channel."""
    groups, sizes = op.attributes["groups"], all_sizes(op)
    grouped = writer.node(
        "Reshape", f"{op.name}:groups", *op.inputs, integers(writer, [0, groups, -1])
    )
    ones, zeros = (
        writer.array(f"{name}:{groups}", np.full(groups, value), np.float32)
        for name, value in (("ones", 1), ("zeros", 0))
    )
    name = f"{op.name}:normalized"
    eps = op.attributes["eps"]
    writer.node("InstanceNormalization", name, grouped, ones, zeros, epsilon=eps)
    last = next((role for role in ("bias", "weight") if role in op.constants), None)
    shape = integers(writer, [max(size, -1) for size in sizes])
    name = writer.node("Reshape", f"{op.name}:map" if last else op.name, name, shape)
    for role, kind in (("weight", "Mul"), ("bias", "Add")):
        if role in op.constants:
            stored = op.constants[role]
            values = writer.graph.constants[stored].reshape(-1, *(1,) * (len(sizes) - 2)).numpy()
            factor = writer.array(f"{stored}:over{len(sizes)}", values, np.float32)
            name = writer.node(kind, op.name if role == last else f"{op.name}:{role}", name, factor)


# Attributes groups, eps; constants weight (C,) and bias (C,), if any.
GROUP_NORM = TensorOperator(kind="group_norm", run=_run_group, onnx=_write_group)


def _run_layer(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    shape, eps = list(op.attributes["shape"]), op.attributes["eps"]
    return F.layer_norm(inputs[0], shape, constants.get("weight"), constants.get("bias"), eps)


def _write_layer(writer: OnnxWriter, op: Operation) -> None:
    shape = op.attributes["shape"]
    if "weight" in op.constants:
        weight = writer.constant(op, "weight")
    else:
        weight = writer.array(f"ones:{shape}", np.ones(shape), np.float32)
    bias = [writer.constant(op, "bias")] if "bias" in op.constants else []
    writer.node(
        *("LayerNormalization", op.name, *op.inputs, weight, *bias),
        axis=-len(shape),
        epsilon=op.attributes["eps"],
    )


# Over the last dimensions. Attributes shape, eps; constants weight and bias of that shape, if any.
LAYER_NORM = TensorOperator(kind="layer_norm", run=_run_layer, onnx=_write_layer)


def _run_rms(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    shape, eps = list(op.attributes["shape"]), op.attributes["eps"]
    return F.rms_norm(inputs[0], shape, constants.get("weight"), eps)


def _write_rms(writer: OnnxWriter, op: Operation) -> None:
    axes = integers(writer, range(-len(op.attributes["shape"]), 0))
    (value,) = op.inputs
    squared = writer.node("Mul", f"{op.name}:squared", value, value)
    mean = writer.node("ReduceMean", f"{op.name}:mean", squared, axes, keepdims=1)
    shifted = writer.node("Add", f"{op.name}:shifted", mean, number(writer, op.attributes["eps"]))
    root = writer.node("Sqrt", f"{op.name}:root", shifted)
    if "weight" not in op.constants:
        writer.node("Div", op.name, value, root)
        return
    name = writer.node("Div", f"{op.name}:normalized", value, root)
    writer.node("Mul", op.name, name, writer.constant(op, "weight"))


# Over the last dimensions. Attributes shape, eps; constant weight of that shape, if any.
RMS_NORM = TensorOperator(kind="rms_norm", run=_run_rms, onnx=_write_rms)


def _normalize(call: Call, value: TensorValue, groups: int, weight: Any, bias: Any) -> TensorValue:
    if value.sizes[0] > 0 or min(value.sizes[1:]) < 0:
        raise UnsupportedOp(f"{call.name} over the images of a batch is not supported")
    settings = {"groups": groups, "eps": float(call["eps"])}
    return call.add(GROUP_NORM, [value], None, settings, {"weight": weight, "bias": bias})


def _group_norm(call: Call) -> TensorValue:
    constants = (call.constant(role) for role in ("weight", "bias"))
    return _normalize(call, call.tensor("input"), call["num_groups"], *constants)


def _instance_norm(call: Call) -> TensorValue:
    value = call.tensor("input")
    if not call["use_input_stats"]:
        return _batch_norm(call)
    constants = (call.constant(role) for role in ("weight", "bias"))
    return _normalize(call, value, value.sizes[1], *constants)


def _batch_norm(call: Call) -> TensorValue:
    """x * scale + offset per channel, from running statistics."""
    value, weight, bias = call.tensor("input"), call.constant("weight"), call.constant("bias")
    mean, var = call.constant("running_mean"), call.constant("running_var")
    assert mean is not None
    assert var is not None
    scale = (var.double() + call["eps"]).rsqrt()
    scale = scale if weight is None else scale * weight.double()
    offset = -mean.double() * scale
    offset = offset if bias is None else offset + bias.double()
    scale, offset = (each.view(-1, *(1,) * (len(value.sizes) - 2)) for each in (scale, offset))
    scaled = binary(call, "mul", value, scale, value.sizes)
    return binary(call, "add", scaled, offset, value.sizes)


def _layer_norm(call: Call) -> TensorValue:
    value, shape = call.tensor("input"), tuple(call["normalized_shape"])
    call.dims(list(range(-len(shape), 0)), value)
    constants = {role: call.constant(role) for role in ("weight", "bias")}
    settings = {"shape": shape, "eps": float(call["eps"])}
    return call.add(LAYER_NORM, [value], None, settings, constants)


def _rms_norm(call: Call) -> TensorValue:
    value, shape = call.tensor("input"), tuple(call["normalized_shape"])
    call.dims(list(range(-len(shape), 0)), value)
    eps = torch.finfo(torch.float32).eps if call["eps"] is None else call["eps"]
    settings, weight = {"shape": shape, "eps": float(eps)}, call.constant("weight")
    return call.add(RMS_NORM, [value], None, settings, {"weight": weight})


CONVERTERS: dict[str, Converter] = {
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "_native_batch_norm_legit_no_training": lambda call: [_batch_norm(call)],
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
}
OPERATORS = (GROUP_NORM, LAYER_NORM, RMS_NORM)
