"""Convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from whit.export.c.kernel import OUTSIDE, Array, Ints, Kernel, KernelCall, Step
from whit.export.ir.graph import Graph, Operation
from whit.export.ir.ops.operator import Converter
from whit.export.ir.ops.spatial import PAD
from whit.export.ir.ops.values import (
    BY_CHANNEL,
    VECTOR,
    GraphBuilder,
    UnsupportedOp,
    ValueView,
    as_map,
    is_channel_vector,
    pair,
    window_positions,
)
from whit.export.ir.ops.weighted import WeightedOperator, linear
from whit.export.quantization.reference import matmul, requantize, window_taps

if TYPE_CHECKING:
    from whit.export.onnx import OnnxWriter
    from whit.export.program import ProgramBuilder
    from whit.export.quantization.builder import QuantizedProgramBuilder


def pad_map(builder: GraphBuilder, value: ValueView, *around: int) -> ValueView:
    """Return a map padded by zeros left, right, above and below; negative numbers crop."""
    if not any(around):
        return value
    left, right, top, bottom = around
    channels, height, width = value.shape
    shape = (channels, height + top + bottom, width + left + right)
    return builder.add(PAD, [value], shape, {"around": around})


def conv(
    builder: GraphBuilder,
    image: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> ValueView:
    if not isinstance(weight, Tensor):
        raise UnsupportedOp("it uses a convolution whose weights depend on the image")
    kernel, strides, dilations = weight.shape[2:], pair(stride, 1), pair(dilation, 1)
    around = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    if padding == "valid":
        padding = 0
    if is_channel_vector(image):
        half = (around[0] // 2, around[1] // 2)
        pads = half if padding == "same" else pair(padding, 0)
        each = zip(kernel, strides, pads, dilations, strict=True)
        if padding != "same" and any(window_positions(1, *sizes) != 1 for sizes in each):
            raise UnsupportedOp("it uses a convolution with padding of a map of 1x1")
        return _conv_of_vector(builder, image, weight, bias, pads, dilations, groups)
    value = as_map(image, "a convolution")
    if padding == "same":
        if any(total % 2 for total in around):
            # As torch does it: the odd zero stands behind.
            left, top = around[1] // 2, around[0] // 2
            value = pad_map(builder, value, left, around[1] - left, top, around[0] - top)
            around = [0, 0]
        padding = [total // 2 for total in around]
    pads = pair(padding, 0)
    each = zip(value.shape[1:], kernel, strides, pads, dilations, strict=True)
    shape = (len(weight), *(window_positions(*sizes) for sizes in each))
    bias = torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias
    attributes = {"stride": strides, "padding": pads, "dilation": dilations, "groups": groups}
    return builder.add(CONV, [value], shape, attributes, {"weight": weight, "bias": bias})


def _conv_of_vector(
    builder: GraphBuilder,
    vector: ValueView,
    weight: Tensor,
    bias: Tensor | None,
    pads: tuple[int, int],
    dilations: tuple[int, int],
    groups: int,
) -> ValueView:
    """A convolution from 1x1 to 1x1: a linear layer by the tap that meets the only number."""
    (y, y_rest), (x, x_rest) = map(divmod, pads, dilations)
    if y >= weight.shape[2] or x >= weight.shape[3] or y_rest or x_rest:  # no tap meets it
        taps = torch.zeros_like(weight[:, :, 0, 0])
    else:
        taps = weight[:, :, y, x]
    if groups > 1:
        taps = torch.block_diag(*taps.chunk(groups))  # type: ignore[no-untyped-call]
    made = linear(builder, ValueView(vector.name, vector.shape, VECTOR), taps, bias)
    return ValueView(made.name, made.shape, BY_CHANNEL)


def _call_conv(call: KernelCall) -> list[str]:
    outside = OUTSIDE if any(call.settings["padding"]) else "NULL"
    outside = str(call.settings["zero"]) if call.int8 else outside
    return [
        f"conv{call.suffix}({call.input_map}, {call.window}, {call.settings['groups']}, "
        f"{outside}, {call.constants['weight']}, {call.outputs_of_sums}, {call.output_map})"
    ]


def _call_depthwise(call: KernelCall) -> list[str]:
    return [
        f"depthwise{call.suffix}({call.input_map}, {call.window}, {call.zero}"
        f"{call.constants['weight']}, {call.outputs_of_sums}, {call.output_map})"
    ]


def _requantized(step: Step, sums: Ints, constants: Mapping[str, Ints]) -> Ints:
    return requantize(sums * constants["factor"] + constants["offset"], step.settings["shift"])


def _compute_conv(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    """Tap by tap; weights as (O, KH, KW, C/G)."""
    taps = [tap for tap, _ in window_taps(step, inputs[0], step.settings["zero"])]
    reads = constants["weight"].shape[3]
    parts = []
    for group, weights in enumerate(np.split(constants["weight"], step.settings["groups"])):
        channels = slice(group * reads, (group + 1) * reads)
        rows = np.concatenate([tap[..., channels] for tap in taps], -1)
        parts.append(matmul(rows, weights.reshape(len(weights), -1)))
    return _requantized(step, np.concatenate(parts, -1), constants)


def _compute_depthwise(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    """Tap by tap; weights as (KH, KW, C)."""
    taps = [tap for tap, _ in window_taps(step, inputs[0], step.settings["zero"])]
    weights = constants["weight"].reshape(len(taps), -1)
    products = [tap * row for tap, row in zip(taps, weights, strict=True)]
    return _requantized(step, np.stack(products).sum(0), constants)


_DEPTHWISE = Kernel(
    "depthwise", _call_depthwise, _compute_depthwise, int8_helpers=("settle", "settle_each")
)


class Conv(WeightedOperator):
    """Constants weight (O, C/groups, KH, KW), bias (O,); stride, padding, dilation, groups."""

    kind = "conv"
    converters: Mapping[str, Converter] = {"conv2d": conv}
    kernel = Kernel(
        "conv", _call_conv, _compute_conv, int8_helpers=("settle", "settle_each", "tile")
    )

    def num_macs(self, op: Operation, constants: Mapping[str, Tensor]) -> int:
        return prod(constants[op.constants["weight"]].shape[1:]) * prod(op.shape)

    def run(self, op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
        settings = [op.attributes[name] for name in ("stride", "padding", "dilation", "groups")]
        return F.conv2d(inputs[0], constants["weight"], constants["bias"], *settings)

    def scale_inputs(
        self, op: Operation, weight: Tensor, bias: Tensor, scale: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        groups = op.attributes["groups"]
        outputs = len(weight) // groups
        # Of each output's group, the channels that it reads.
        by_scale, by_offset = (
            values.view(groups, 1, -1).expand(groups, outputs, -1).reshape(len(weight), -1, 1, 1)
            for values in (scale, offset)
        )
        return weight * by_scale, bias + (weight * by_offset).sum((1, 2, 3))

    def lower_float(self, builder: ProgramBuilder, op: Operation) -> None:
        weight = builder.constant(op, "weight")
        kernel, name, array = self._kernel_layout(builder.graph, op, weight, int8=False)
        stored = builder.store(name, array)
        settings = {**op.attributes, "kernel": weight.shape[2:]}
        builder.add(op, kernel, settings, weight=stored, bias=builder.store_constant(op, "bias"))

    def int8_step(
        self, builder: QuantizedProgramBuilder, op: Operation, weights: NDArray[np.int8]
    ) -> tuple[Kernel, dict[str, Any], str]:
        kernel, name, array = self._kernel_layout(builder.graph, op, weights, int8=True)
        settings = {**op.attributes, "kernel": weights.shape[2:]}
        return kernel, settings, builder.store(name, array)

    def _kernel_layout(
        self, graph: Graph, op: Operation, weight: Array, *, int8: bool
    ) -> tuple[Kernel, str, Array]:
        """Return a convolution's kernel, and its weights' name and layout as the kernel reads.

        (O, C/groups, KH, KW) becomes (KH, KW, C) for `depthwise`; for `conv`, (O, KH, KW, C/groups)
        in int8 and (groups, KH, KW, C/groups, O/groups) in float32.
        Operations that share weights may read them by different kernels.
        """
        groups: int = op.attributes["groups"]
        kernel = self.kernel
        if groups > 1 and groups == graph.shape_of(op.inputs[0])[0] == op.shape[0]:
            kernel, array = _DEPTHWISE, weight[:, 0].transpose(1, 2, 0)
        elif int8:
            array = weight.transpose(0, 2, 3, 1)
        else:
            by_group = weight.reshape(groups, -1, *weight.shape[1:])
            array = by_group.transpose(0, 3, 4, 2, 1)
        suffix = "" if groups == 1 else f".{kernel.name}{groups}"
        return kernel, f"{op.constants['weight']}{suffix}", array

    def write_onnx(self, writer: OnnxWriter, op: Operation) -> None:
        settings = op.attributes
        writer.node(
            "Conv",
            op.name,
            *op.inputs,
            writer.weight(op),
            writer.constant(op, "bias"),
            kernel_shape=list(writer.graph.constants[op.constants["weight"]].shape[2:]),
            strides=list(settings["stride"]),
            pads=[*settings["padding"], *settings["padding"]],
            dilations=list(settings["dilation"]),
            group=settings["groups"],
        )


CONV = Conv()
OPERATORS = (CONV,)
