"""Means and sums of a map, softmax over the classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whit.export.c.kernel import Ints, Kernel, KernelCall, Step
from whit.export.ir.graph import Operation
from whit.export.ir.ops.operator import Converter, Operator
from whit.export.ir.ops.scale import scaled
from whit.export.ir.ops.values import GraphBuilder, UnsupportedOp, ValueView
from whit.export.program import LOGIT_SCALE
from whit.export.quantization.fixed_point import quantize_multiplier
from whit.export.quantization.reference import by_factor, logit_of, requantize

if TYPE_CHECKING:
    from whit.export.onnx import OnnxWriter
    from whit.export.quantization.builder import QuantizedProgramBuilder


def _mean(
    builder: GraphBuilder, value: Any, dims: Any = None, keepdim: bool = False, dtype: Any = None
) -> ValueView:
    if not isinstance(value, ValueView):
        raise UnsupportedOp("it uses a mean of something that does not depend on the image")
    rank = len(value.axes)
    reduced = {dim % rank for dim in ([dims] if isinstance(dims, int) else dims or range(rank))}
    axes = {axis for dim in reduced for axis in value.axes[dim]}
    if 0 in reduced:
        raise UnsupportedOp("it uses a mean over the images of a batch")
    rest = {axis for axis in ("H", "W") if value.sizes[axis] > 1 and len(value.shape) == 3} - axes
    if "C" in axes or rest:
        raise UnsupportedOp("it uses a mean over something else than the whole map")
    kept = tuple(
        () if dim in reduced else tuple(axis for axis in group if axis == "C")
        for dim, group in enumerate(value.axes)
        if keepdim or dim not in reduced
    )
    if len(value.shape) == 1:  # each channel's map is one number already
        return ValueView(value.name, value.shape, kept)
    return builder.add(MEAN, [value], value.shape[:1], axes=kept)


def _sum(
    builder: GraphBuilder, value: Any, dims: Any = None, keepdim: bool = False, dtype: Any = None
) -> ValueView:
    """A sum over the whole map: its mean times the number of pixels."""
    mean = _mean(builder, value, dims, keepdim, dtype)
    one = torch.ones(mean.shape[0])
    return scaled(builder, mean, one * prod(value.shape[1:]), torch.zeros_like(one))


def _call_mean(call: KernelCall) -> list[str]:
    return [f"{call.step.kind}({call.values}, {call.scalars}{call.output})"]


def _sums(step: Step, inputs: list[Ints]) -> Ints:
    return by_factor(inputs[0].sum((1, 2)), step.settings)


class Mean(Operator):
    """Of each channel over its whole map: (C, H, W) to (C,)."""

    kind = "mean"
    converters: Mapping[str, Converter] = {"mean": _mean, "sum": _sum}
    kernel = Kernel(
        "mean",
        _call_mean,
        lambda step, inputs, _: requantize(_sums(step, inputs), step.settings["shift"]),
        int8_helpers=("settle",),
        in_place=True,
    )
    logits_kernel = Kernel(
        "mean_scores",
        _call_mean,
        lambda step, inputs, _: logit_of(_sums(step, inputs), step.settings["shift"]),
        int8_helpers=("score_of",),
    )

    def stem(self, attributes: Mapping[str, Any]) -> str:
        return "gap"

    def run(self, op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
        return inputs[0].mean((2, 3))

    def commutes_with_scale(self, op: Operation, scale: Tensor) -> bool:
        return True

    def lower_int8(self, builder: QuantizedProgramBuilder, op: Operation) -> None:
        read = builder.qparams[op.inputs[0]]
        pixels = prod(builder.graph.shape_of(op.inputs[0])[1:])
        bounds = (np.zeros(1, np.int64), np.full(1, 255 * pixels, np.int64))
        gives_logits = op.name == builder.output
        if gives_logits:
            kernel, scale, zero = self.logits_kernel, 1 / LOGIT_SCALE, 0
        else:
            made = builder.choose(op.name)
            kernel, scale, zero = self.kernel, made.scale, made.zero_point
        numbers = quantize_multiplier(
            op.name,
            np.array([read.scale / pixels]) / scale,
            np.full(1, float(zero)),
            bounds,
            read.zero_point * pixels,
            rounded=not gives_logits,
        )
        builder.add(op, kernel, numbers.scalar_settings())

    def write_onnx(self, writer: OnnxWriter, op: Operation) -> None:
        axes = writer.array("axes:HW", [2, 3], np.int64)
        writer.node("ReduceMean", op.name, *op.inputs, axes, keepdims=0)


class Softmax(Operator):
    """Over the classes. An int8 program ends before it."""

    keeps_argmax = True

    def __init__(self, kind: str, function: Callable[[Tensor, int], Tensor], onnx: str):
        self.kind, self.function, self.onnx = kind, function, onnx
        self.kernel = Kernel(
            kind, lambda call: [f"{kind}({call.inputs[0]}, {call.count}, {call.output})"]
        )
        self.converters = {kind: self.convert, f"_{kind}": self.convert}

    def convert(self, builder: GraphBuilder, value: Any, dim: int, *settings: Any) -> ValueView:
        if not isinstance(value, ValueView) or value.axes[dim % len(value.axes)] != ("C",):
            raise UnsupportedOp(f"it uses {self.kind} over something else than the classes")
        if prod(value.shape) != value.shape[0]:
            raise UnsupportedOp(f"it uses {self.kind} at each place of a map")
        vector = builder.as_vector(value)
        return builder.add(self, [vector], vector.shape, axes=value.axes)

    def run(self, op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
        return self.function(inputs[0], 1)

    def write_onnx(self, writer: OnnxWriter, op: Operation) -> None:
        writer.node(self.onnx, op.name, *op.inputs, axis=1)


MEAN = Mean()
SOFTMAX = Softmax("softmax", F.softmax, "Softmax")
LOG_SOFTMAX = Softmax("log_softmax", F.log_softmax, "LogSoftmax")
OPERATORS = (MEAN, SOFTMAX, LOG_SOFTMAX)
