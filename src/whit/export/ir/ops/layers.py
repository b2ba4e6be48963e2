"""Layers with weights: convolutional and fully connected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whit.export.ir.graph import Graph, Operation
from whit.export.ir.ops.operator import Operator
from whit.export.ir.ops.spatial import PAD
from whit.export.ir.ops.values import (
    GraphBuilder,
    Layout,
    UnsupportedOp,
    ValueView,
    as_map,
    is_channel_vector,
    pair,
    window_positions,
)
from whit.export.onnx import OnnxWriter
from whit.export.program import ZEROS, Array, Ints, Kernel, ProgramBuilder, Step
from whit.export.quantization.builder import LOGITS, QuantizedProgramBuilder, QuantizedWeights
from whit.export.quantization.calibration import quantize_weights
from whit.export.quantization.fixed_point import quantize_multiplier
from whit.export.quantization.reference import matmul, window_taps


def _lower_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    """Add one step for a layer, merged with a `scale` that is its only consumer."""
    graph, layer = builder.graph, op.operator
    assert isinstance(layer, Layer)
    name, weight_name, bits = op.name, op.constants["weight"], graph.bits
    if weight_name not in builder.weights:
        weight = builder.constant(op, "weight")
        builder.weights[weight_name] = QuantizedWeights(*quantize_weights(weight, bits))
    weights = builder.weights[weight_name]
    gain, bias = np.ones(op.shape[0]), builder.constant(op, "bias")
    consumer = next((each for each in graph.operations if op.name in each.inputs), None)
    if consumer and consumer.kind == "scale" and builder.consumers[op.name] == 1:
        gain = builder.constant(consumer, "scale")
        bias = bias * gain + builder.constant(consumer, "offset")
        name = consumer.name
        builder.absorbed.add(name)
    read = builder.qparams[op.inputs[0]]
    rows = weights.values.reshape(len(weights.values), -1).astype(np.int64)
    bounds = (255 * np.minimum(rows, 0).sum(1), 255 * np.maximum(rows, 0).sum(1))
    excess = read.zero_point * rows.sum(1)
    factors = read.scale * weights.scales.astype(np.float64) * gain
    logits_kernel = layer.logits_kernel if name == builder.output else None
    qparams = LOGITS if logits_kernel else builder.choose(name)
    factors, offsets = factors / qparams.scale, bias / qparams.scale + qparams.zero_point
    multiplier = quantize_multiplier(
        name, factors, offsets, bounds, excess, rounded=not logits_kernel, bits=bits
    )
    names = builder.store_multiplier(name, multiplier)
    kernel, settings, stored, array = layer.layout(graph, op, weights.values, True)
    settings |= {"zero_point": read.zero_point, **multiplier.channel_settings()}
    names["weight"] = builder.store(stored, array)
    builder.add(op, logits_kernel or kernel, settings, name, **names)


def _lower_float(builder: ProgramBuilder, op: Operation) -> None:
    assert isinstance(op.operator, Layer)
    weight = builder.constant(op, "weight")
    kernel, settings, name, array = op.operator.layout(builder.graph, op, weight, False)
    names = {"weight": builder.store(name, array), "bias": builder.store_constant(op, "bias")}
    builder.add(op, kernel, settings, **names)


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer(Operator):
    """A layer with constants weight (O, ...) and bias (O,).

    scale_inputs: returns weight and bias that absorb a scale and offset of the input.
    layout: returns the kernel of a step, its settings, and the name and memory layout of its
        weights, for int8 or float32.
    logits_kernel: the int8 kernel of the last layer.
    """

    scale_inputs: Callable[[Operation, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    layout: Callable[[Graph, Operation, Array, bool], tuple[Kernel, dict[str, Any], str, Array]]
    logits_kernel: Kernel | None = None
    lower_float: Callable[[ProgramBuilder, Operation], None] = _lower_float
    lower_int8: Callable[[QuantizedProgramBuilder, Operation], None] = _lower_int8


def linear(builder: GraphBuilder, vector: Any, weight: Tensor, bias: Tensor | None) -> ValueView:
    if not isinstance(vector, ValueView) or not isinstance(weight, Tensor):
        raise UnsupportedOp("a matrix product of two activations is not supported")
    if len(vector.axes) != 2 or vector.axes[0]:
        raise UnsupportedOp(
            "a linear layer at each pixel of a map is not supported; use a 1x1 convolution"
        )
    order = vector.axes[1]
    natural = [axis for axis in "CHW" if axis in order]
    if list(order) != natural:  # flattened in another order: permute the columns instead
        sizes = [vector.sizes[axis] for axis in order]
        by_axis = weight.view(len(weight), *sizes)
        weight = by_axis.permute(0, *(1 + order.index(axis) for axis in natural)).flatten(1)
    bias = torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias
    flat = builder.as_vector(vector)
    return builder.add(LINEAR, [flat], (len(weight),), {}, {"weight": weight, "bias": bias})


def _addmm(
    builder: GraphBuilder, bias: Any, vector: Any, weight: Any, *, beta: float, alpha: float
) -> ValueView:
    if (beta, alpha) != (1, 1) or not isinstance(bias, Tensor) or bias.ndim != 1:
        raise UnsupportedOp(
            "addmm is supported with beta and alpha 1 and a constant vector as bias only"
        )
    return linear(builder, vector, weight.t() if isinstance(weight, Tensor) else weight, bias)


def _matmul(builder: GraphBuilder, vector: Any, weight: Any) -> ValueView:
    return linear(builder, vector, weight.t() if isinstance(weight, Tensor) else weight, None)


def _write_linear(writer: OnnxWriter, op: Operation) -> None:
    weight, bias = writer.weight(op), writer.constant(op, "bias")
    writer.node("Gemm", op.name, *op.inputs, weight, bias, transB=1)


def _compute_linear(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    return matmul(inputs[0].reshape(len(inputs[0]), -1), constants["weight"])


_LINEAR_CALL = "({input}, {count}, {weight}, {vectors}, {output}, {outputs})"
_LINEAR_INT8 = Kernel(
    "linear", "linear{suffix}" + _LINEAR_CALL, _compute_linear, helpers=("requantize",)
)
_LINEAR_FLOAT = Kernel("linear", "linear({input}, {count}, {weight}, {bias}, {output}, {outputs})")
# Constants weight (K, N), bias (K,). Input: a vector (N,).
LINEAR: Layer = Layer(
    kind="linear",
    run=lambda op, inputs, constants: F.linear(inputs[0], constants["weight"], constants["bias"]),
    kernel=_LINEAR_FLOAT,
    logits_kernel=Kernel(
        "linear_logits",
        "linear_logits{suffix}" + _LINEAR_CALL,
        _compute_linear,
        helpers=("logit_of",),
    ),
    onnx=_write_linear,
    converters={"linear": linear, "addmm": _addmm, "mm": _matmul, "matmul": _matmul},
    num_macs=lambda op, constants: constants[op.constants["weight"]].numel(),
    scale_inputs=lambda op, weight, bias, scale, offset: (weight * scale, bias + weight @ offset),
    layout=lambda graph, op, weight, int8: (
        *(_LINEAR_INT8 if int8 else _LINEAR_FLOAT, {}, op.constants["weight"]),
        weight if int8 else weight.T,
    ),
)


def pad_map(builder: GraphBuilder, value: ValueView, *pads: int) -> ValueView:
    """Return a map with zero padding left, right, top and bottom; negative numbers crop."""
    if not any(pads):
        return value
    left, right, top, bottom = pads
    channels, height, width = value.shape
    shape = (channels, height + top + bottom, width + left + right)
    return builder.add(PAD, [value], shape, {"pads": pads})


def conv(
    builder: GraphBuilder,
    image: Any,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> ValueView:
    if not isinstance(weight, Tensor):
        raise UnsupportedOp("a convolution with weights that are not constant is not supported")
    kernel, strides, dilations = weight.shape[2:], pair(stride, 1), pair(dilation, 1)
    total = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    if padding == "valid":
        padding = 0
    if is_channel_vector(image):
        half = (total[0] // 2, total[1] // 2)
        pads = half if padding == "same" else pair(padding, 0)
        sizes = zip(kernel, strides, pads, dilations, strict=True)
        if padding != "same" and any(window_positions(1, *each) != 1 for each in sizes):
            raise UnsupportedOp(
                "a convolution of a 1x1 map with padding is supported only if its output is 1x1"
            )
        taps = _center_taps(weight, pads, dilations, groups)
        vector = linear(builder, replace(image, axes=Layout.VECTOR), taps, bias)
        return replace(vector, axes=Layout.BY_CHANNEL)
    value = as_map(image, "a convolution")
    if padding == "same":
        if any(size % 2 for size in total):
            # As in torch, the right and bottom sides get one more.
            left, top = total[1] // 2, total[0] // 2
            value = pad_map(builder, value, left, total[1] - left, top, total[0] - top)
            total = [0, 0]
        padding = [size // 2 for size in total]
    pads = pair(padding, 0)
    each = zip(value.shape[1:], kernel, strides, pads, dilations, strict=True)
    shape = (len(weight), *(window_positions(*sizes) for sizes in each))
    bias = torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias
    attributes = {"stride": strides, "padding": pads, "dilation": dilations, "groups": groups}
    return builder.add(CONV, [value], shape, attributes, {"weight": weight, "bias": bias})


def _center_taps(
    weight: Tensor, pads: tuple[int, int], dilations: tuple[int, int], groups: int
) -> Tensor:
    """Return the taps (O, C) over the only pixel: a convolution of a 1x1 map is a linear layer."""
    (y, y_rest), (x, x_rest) = map(divmod, pads, dilations)
    if y >= weight.shape[2] or x >= weight.shape[3] or y_rest or x_rest:  # no tap lies over it
        taps = torch.zeros_like(weight[:, :, 0, 0])
    else:
        taps = weight[:, :, y, x]
    if groups > 1:
        taps = torch.block_diag(*taps.chunk(groups))  # type: ignore[no-untyped-call]
    return taps


def _scale_conv_inputs(
    op: Operation, weight: Tensor, bias: Tensor, scale: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor]:
    groups = op.attributes["groups"]
    outputs = len(weight) // groups
    # For each output, the input channels of its group.
    by_scale, by_offset = (
        values.view(groups, 1, -1).expand(groups, outputs, -1).reshape(len(weight), -1, 1, 1)
        for values in (scale, offset)
    )
    return weight * by_scale, bias + (weight * by_offset).sum((1, 2, 3))


def _compute_conv(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    """Sum over taps; weights (O, KH, KW, C/groups)."""
    taps = [tap for tap, _ in window_taps(step, inputs[0], step.settings["zero_point"])]
    in_channels = constants["weight"].shape[3]
    parts = []
    for group, weights in enumerate(np.split(constants["weight"], step.settings["groups"])):
        channels = slice(group * in_channels, (group + 1) * in_channels)
        rows = np.concatenate([tap[..., channels] for tap in taps], -1)
        parts.append(matmul(rows, weights.reshape(len(weights), -1)))
    return np.concatenate(parts, -1)


def _compute_depthwise(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    """Sum over taps; weights (KH, KW, C)."""
    taps = [tap for tap, _ in window_taps(step, inputs[0], step.settings["zero_point"])]
    weights = constants["weight"].reshape(len(taps), -1)
    return np.stack([tap * row for tap, row in zip(taps, weights, strict=True)]).sum(0)  # type: ignore[no-any-return]


_CONV = "({input_map}, {window}, {groups}, "
_DEPTHWISE = "({input_map}, {window}, "
_KERNELS = {
    "conv": Kernel("conv", "conv" + _CONV + "{zeros}, {weight}, {bias}, {output_map})"),
    "depthwise": Kernel("depthwise", "depthwise" + _DEPTHWISE + "{weight}, {bias}, {output_map})"),
}
CONV_INT8 = Kernel(
    "conv",
    "conv{suffix}" + _CONV + "0, {zero_point}, {weight}, {vectors}, {output_map})",
    _compute_conv,
    helpers=("dsp", "requantize", "requantize_per_channel", "tile_dsp", "tile", "tile_sums"),
)
_INT8_KERNELS = {
    "conv": CONV_INT8,
    "depthwise": Kernel(
        "depthwise",
        "depthwise{suffix}" + _DEPTHWISE + "{zero_point}, {weight}, {vectors}, {output_map})",
        _compute_depthwise,
        helpers=("dsp", "requantize", "requantize_per_channel"),
    ),
}


def _conv_layout(
    graph: Graph, op: Operation, weight: Array, int8: bool
) -> tuple[Kernel, dict[str, Any], str, Array]:
    """Return the kernel and settings of a convolution, and the name and layout of its weights.

    (O, C/groups, KH, KW) becomes (KH, KW, C) for `depthwise`; for `conv`, (O, KH, KW, C/groups) in
    int8 and (groups, KH, KW, C/groups, O/groups) in float32.
    Operations with shared weights may use different kernels, hence different layouts.
    """
    groups: int = op.attributes["groups"]
    kind = "conv"
    if groups > 1 and groups == graph.value_shape(op.inputs[0])[0] == op.shape[0]:
        kind, array = "depthwise", weight[:, 0].transpose(1, 2, 0)
    elif int8:
        array = weight.transpose(0, 2, 3, 1)
    else:
        by_group = weight.reshape(groups, -1, *weight.shape[1:])
        array = by_group.transpose(0, 3, 4, 2, 1)
    name = op.constants["weight"] + ("" if groups == 1 else f".{kind}{groups}")
    zeros = ZEROS if kind == "conv" and any(op.attributes["padding"]) else "NULL"
    settings = {**op.attributes, "kernel": weight.shape[2:], "zeros": zeros}
    return (_INT8_KERNELS if int8 else _KERNELS)[kind], settings, name, array


def _write_conv(writer: OnnxWriter, op: Operation) -> None:
    writer.node(
        *("Conv", op.name, *op.inputs, writer.weight(op), writer.constant(op, "bias")),
        kernel_shape=list(writer.graph.constants[op.constants["weight"]].shape[2:]),
        strides=list(op.attributes["stride"]),
        pads=[*op.attributes["padding"]] * 2,
        dilations=list(op.attributes["dilation"]),
        group=op.attributes["groups"],
    )


def _run_conv(op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
    settings = [op.attributes[name] for name in ("stride", "padding", "dilation", "groups")]
    return F.conv2d(inputs[0], constants["weight"], constants["bias"], *settings)


# Constants weight (O, C/groups, KH, KW), bias (O,). Attributes stride, padding, dilation, groups.
CONV = Layer(
    kind="conv",
    run=_run_conv,
    kernel=_KERNELS["conv"],
    onnx=_write_conv,
    converters={"conv2d": conv},
    num_macs=lambda op, constants: (
        prod(constants[op.constants["weight"]].shape[1:]) * prod(op.shape)
    ),
    scale_inputs=_scale_conv_inputs,
    layout=_conv_layout,
)
OPERATORS = (CONV, LINEAR)
