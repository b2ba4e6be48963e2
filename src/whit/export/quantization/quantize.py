"""Quantizes a fused graph: uint8 activations, int8 weights and int32 accumulators.

Activations are affine, q representing (q - zero_point) * scale; weights are symmetric, with a scale
per output channel. A `scale` after a layer is merged into its factors; `relu` of a value that is
never negative is omitted; all other activations except `hardswish` are lookup tables of 256 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from whit.errors import ModelError
from whit.export.ir.graph import Graph, Operation
from whit.export.ir.support import require_supported
from whit.export.program import LOGIT_SCALE, OUTPUT, Kernel, Program, Step
from whit.export.quantization.builder import QuantizedProgramBuilder, QuantizedWeights
from whit.export.quantization.calibration import (
    QuantParams,
    calibration_images,
    collect_activations,
)
from whit.export.quantization.fixed_point import scalar_multiplier
from whit.export.quantization.pool_fusion import fuse_max_pools

_LOGITS = Kernel(
    "emit_logits",
    "emit_logits({input}, {count}, {scalars}, {output})",
    lambda step, inputs, constants: inputs[0],
    helpers=("logit_of",),
    elementwise=True,
)


@dataclass(frozen=True)
class QuantizedProgram:
    """The steps, the QuantParams of every rounded value, and the weights, by name."""

    program: Program
    qparams: dict[str, QuantParams]
    weights: dict[str, QuantizedWeights]


def quantize(graph: Graph, images: Tensor) -> QuantizedProgram:
    """Return the int8 program of a graph, calibrated on uint8 training images (N, C, H, W).

    Raises ModelError naming every operation that is not supported in int8, or could overflow.
    """
    require_supported(graph, "int8")
    last = graph.operations[-1]
    problems = [
        f"{graph.name}: cannot be exported in int8: {op.name}: {op.kind} is supported as the last "
        f"operation only.{_site(op)}"
        for op in graph.operations[:-1]
        if op.operator.keeps_argmax
    ]
    if len(graph.shifts) > 1 and last.operator.keeps_argmax:
        # The program omits it, and the mean of logits differs from the mean of its outputs.
        problem = f"test-time augmentation that averages the outputs of {last.kind}"
        problems.append(f"{graph.name}: cannot be exported in int8: {problem} is not supported.")
    if problems:
        raise ModelError(problems)
    builder = QuantizedProgramBuilder(graph, collect_activations(graph, calibration_images(images)))
    for op in graph.operations:
        if op.name not in builder.absorbed and not op.operator.keeps_argmax:
            try:
                op.operator.lower_int8(builder, op)
            except ModelError as error:
                problems = [f"{each}{_site(op)}" for each in error.problems]
                raise ModelError(problems) from None
    if builder.output in builder.qparams:
        _emit_logits(builder)
    program = fuse_max_pools(builder.program(int8=True))
    return QuantizedProgram(program, builder.rounded, builder.weights)


def _site(op: Operation) -> str:
    return f" It is {op.site}." if op.site else ""


def _emit_logits(builder: QuantizedProgramBuilder) -> None:
    """Add a step that converts uint8 outputs to logits."""
    name = builder.output
    qparams = builder.qparams[name]
    factor, zero = qparams.scale * LOGIT_SCALE, qparams.zero_point
    settings = scalar_multiplier(name, factor, 0.0, 0, 255, zero, rounded=False)
    inputs, shape = (builder.aliases.get(name, name),), builder.graph.operations[-1].shape
    builder.steps.append(Step(OUTPUT, _LOGITS, inputs, shape, settings))
