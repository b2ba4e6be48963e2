"""Layers with weights, and the linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from whit.export.c.kernel import Ints, Kernel, KernelCall, Step
from whit.export.ir.graph import Operation
from whit.export.ir.ops.operator import Converter, Operator
from whit.export.ir.ops.values import GraphBuilder, UnsupportedOp, ValueView
from whit.export.program import LOGIT_SCALE
from whit.export.quantization.builder import QuantizedWeights
from whit.export.quantization.calibration import quantize_weights
from whit.export.quantization.fixed_point import quantize_multiplier
from whit.export.quantization.reference import logit_of, matmul, requantize

if TYPE_CHECKING:
    from whit.export.onnx import OnnxWriter
    from whit.export.program import ProgramBuilder
    from whit.export.quantization.builder import QuantizedProgramBuilder


class WeightedOperator(Operator):
    """A sum of products by constant weight (O, ...), plus constant bias (O,)."""

    logits_kernel: Kernel | None = None  # of the last layer in int8

    def scale_outputs(
        self, weight: Tensor, bias: Tensor, scale: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the weight and bias that give x * scale + offset of each output x."""
        shape = (-1,) + (1,) * (weight.ndim - 1)
        return weight * scale.view(shape), bias * scale + offset

    def scale_inputs(
        self, op: Operation, weight: Tensor, bias: Tensor, scale: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the weight and bias that read x where others read x * scale + offset."""
        raise NotImplementedError

    def int8_step(
        self, builder: QuantizedProgramBuilder, op: Operation, weights: NDArray[np.int8]
    ) -> tuple[Kernel, dict[str, Any], str]:
        """Return the kernel of a step, its settings, and the name of its stored weights."""
        raise NotImplementedError

    def lower_int8(self, builder: QuantizedProgramBuilder, op: Operation) -> None:
        """Add one step for the layer and a `scale` that alone reads it."""
        graph = builder.graph
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
        rows = weights.numbers.reshape(len(weights.numbers), -1).astype(np.int64)
        bounds = (255 * np.minimum(rows, 0).sum(1), 255 * np.maximum(rows, 0).sum(1))
        excess = read.zero_point * rows.sum(1)
        factors = read.scale * weights.scales.astype(np.float64) * gain
        gives_logits = self.logits_kernel is not None and name == builder.output
        if gives_logits:
            factors, offsets = factors * LOGIT_SCALE, bias * LOGIT_SCALE
        else:
            made = builder.choose(name)
            factors, offsets = factors / made.scale, bias / made.scale + made.zero_point
        numbers = quantize_multiplier(
            name, factors, offsets, bounds, excess, rounded=not gives_logits, bits=bits
        )
        held = builder.store_multiplier(name, numbers)
        kernel, settings, stored = self.int8_step(builder, op, weights.numbers)
        if gives_logits and self.logits_kernel:
            kernel = self.logits_kernel
        settings |= {"zero": read.zero_point, **numbers.channel_settings()}
        builder.add(op, kernel, settings, name, weight=stored, **held)


def _call_linear(call: KernelCall) -> list[str]:
    name = f"{call.step.kind}{call.suffix}"
    return [
        f"{name}({call.inputs[0]}, {call.count}, {call.constants['weight']}, "
        f"{call.outputs_of_sums}, {call.output}, {call.step.shape[0]})"
    ]


def _sums(inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    (x,) = inputs
    products = matmul(x.reshape(len(x), -1), constants["weight"])
    return products * constants["factor"] + constants["offset"]


def _compute_linear(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    return requantize(_sums(inputs, constants), step.settings["shift"])


def _compute_logits(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    return logit_of(_sums(inputs, constants), step.settings["shift"])


def linear(
    builder: GraphBuilder, vector: Any, weight: Tensor, bias: Tensor | None = None
) -> ValueView:
    if not isinstance(vector, ValueView) or not isinstance(weight, Tensor):
        raise UnsupportedOp("it uses a product of two values that depend on the image")
    if len(vector.axes) != 2 or vector.axes[0]:
        raise UnsupportedOp("it uses a linear layer at each place of a map")
    order = vector.axes[1]
    natural = [axis for axis in "CHW" if axis in order]
    if list(order) != natural:  # flattened in another order: the columns move instead
        sizes = [vector.sizes[axis] for axis in order]
        by_axis = weight.view(len(weight), *sizes)
        weight = by_axis.permute(0, *(1 + order.index(axis) for axis in natural)).flatten(1)
    bias = torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias
    flat = builder.as_vector(vector)
    return builder.add(LINEAR, [flat], (len(weight),), {}, {"weight": weight, "bias": bias})


def _addmm(builder: GraphBuilder, bias: Any, vector: Any, weight: Any) -> ValueView:
    return linear(builder, vector, weight.t() if isinstance(weight, Tensor) else weight, bias)


def _matmul(builder: GraphBuilder, vector: Any, weight: Any) -> ValueView:
    return linear(builder, vector, weight.t() if isinstance(weight, Tensor) else weight)


class Linear(WeightedOperator):
    """Constants weight (K, N) and bias (K,); reads a vector."""

    kind = "linear"
    converters: Mapping[str, Converter] = {
        "linear": linear,
        "addmm": _addmm,
        "mm": _matmul,
        "matmul": _matmul,
    }
    kernel = Kernel("linear", _call_linear, _compute_linear, int8_helpers=("settle",))
    logits_kernel = Kernel(
        "linear_scores", _call_linear, _compute_logits, int8_helpers=("score_of",)
    )

    def num_macs(self, op: Operation, constants: Mapping[str, Tensor]) -> int:
        return constants[op.constants["weight"]].numel()

    def run(self, op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
        return F.linear(inputs[0], constants["weight"], constants["bias"])

    def scale_inputs(
        self, op: Operation, weight: Tensor, bias: Tensor, scale: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        return weight * scale, bias + weight @ offset

    def lower_float(self, builder: ProgramBuilder, op: Operation) -> None:
        weight = builder.store(op.constants["weight"], builder.constant(op, "weight").T)
        bias = builder.store_constant(op, "bias")
        builder.add(op, self.kernel, {}, weight=weight, bias=bias)

    def int8_step(
        self, builder: QuantizedProgramBuilder, op: Operation, weights: NDArray[np.int8]
    ) -> tuple[Kernel, dict[str, Any], str]:
        return self.kernel, {}, builder.store(op.constants["weight"], weights)

    def write_onnx(self, writer: OnnxWriter, op: Operation) -> None:
        weight, bias = writer.weight(op), writer.constant(op, "bias")
        writer.node("Gemm", op.name, *op.inputs, weight, bias, transB=1)


LINEAR = Linear()
OPERATORS = (LINEAR,)
