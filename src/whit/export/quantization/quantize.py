"""A fused graph as an int8 program: uint8 values, int8 weights and int32 sums.

Pixels are bytes already. Every other value is kept as bytes q that stand for (q - zero) * scale;
weights are symmetric, with a scale an output channel. A `scale` behind a layer becomes part of
the layer's factors; `relu` behind a value that is never negative is that value; any other
activation but `hardswish` is a table of 256 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from whit.errors import ModelError
from whit.export.ir.graph import Graph
from whit.export.program import LOGIT_SCALE, OUTPUT, Kernel, Program, Step
from whit.export.quantization.builder import QuantizedProgramBuilder, QuantizedWeights
from whit.export.quantization.calibration import (
    QuantParams,
    calibration_images,
    collect_activations,
)
from whit.export.quantization.fixed_point import scalar_multiplier

_LOGITS = Kernel(
    "scores",
    "give_scores({input}, {count}, {scalars}, {output})",
    lambda step, inputs, constants: inputs[0],
    helpers=("score_of",),
    elementwise=True,
)


@dataclass(frozen=True)
class QuantizedProgram:
    """The steps, the QuantParams of every value that is rounded, and the weights by their names."""

    program: Program
    qparams: dict[str, QuantParams]
    weights: dict[str, QuantizedWeights]


def quantize(graph: Graph, images: Tensor) -> QuantizedProgram:
    """Return a graph in integers, its ranges taken from uint8 training images (N, C, H, W).

    Raises ModelError naming every operation that has no integer form, or that could overflow.
    """
    last = graph.operations[-1]
    problems = [
        f"{graph.name}: cannot be exported in int8: {op.name} is a {op.kind} before the end."
        for op in graph.operations[:-1]
        if op.operator.keeps_argmax
    ]
    if len(graph.shifts) > 1 and last.operator.keeps_argmax:
        # The program ends before it, and a mean of what it gives is another one.
        problem = f"a mean of views of a {last.kind}"
        problems.append(f"{graph.name}: cannot be exported in int8: {problem}.")
    if problems:
        raise ModelError(problems)
    builder = QuantizedProgramBuilder(graph, collect_activations(graph, calibration_images(images)))
    for op in graph.operations:
        if op.name not in builder.absorbed and not op.operator.keeps_argmax:
            op.operator.lower_int8(builder, op)
    if builder.output in builder.qparams:
        _emit_logits(builder)
    return QuantizedProgram(builder.program(int8=True), builder.rounded, builder.weights)


def _emit_logits(builder: QuantizedProgramBuilder) -> None:
    """Add the step from bytes to logits, where the last operation gives bytes."""
    name = builder.output
    qparams = builder.qparams[name]
    factor, zero = qparams.scale * LOGIT_SCALE, qparams.zero_point
    settings = scalar_multiplier(name, factor, 0.0, 0, 255, zero, rounded=False)
    inputs, shape = (builder.aliases.get(name, name),), builder.graph.operations[-1].shape
    builder.steps.append(Step(OUTPUT, _LOGITS, inputs, shape, settings))
