"""A folded graph as steps in whole numbers: bytes, int8 weights and int32 sums.

Pixels are bytes already. Every other value is kept as bytes q that stand for (q - zero) * scale;
weights are symmetric, with a scale an output channel. A `scale` behind a layer becomes part of
the layer's factors; `relu` behind a value that is never negative is that value; any other
activation but `hardswish` is a table of 256 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from whit.errors import ModelError
from whit.export.ir.graph import Graph
from whit.export.program import OUTPUT, Program
from whit.export.quantization.builder import Quantiser, Whole
from whit.export.quantization.calibration import Levels, calibration_images, samples_of
from whit.export.quantization.lowering import RULES, give_scores


@dataclass(frozen=True)
class Quantised:
    """The steps, the levels of every value that is rounded, and the weights by their names."""

    program: Program
    levels: dict[str, Levels]
    weights: dict[str, Whole]


def quantised(graph: Graph, images: Tensor) -> Quantised:
    """Return a graph in whole numbers, its ranges taken from uint8 training images (N, C, H, W).

    Raises ModelError naming every operation that has no form in whole numbers, or that could
    overflow.
    """
    problems = [
        f"{graph.name}: cannot be exported in int8: {op.name} is a {op.kind} before the end."
        for op in graph.operations
        if op.kind in ("softmax", "log_softmax") and op.name != graph.output
    ]
    last = graph.operations[-1].kind
    if len(graph.shifts) > 1 and last in ("softmax", "log_softmax"):
        # Whole numbers end before it, and a mean of what it gives is another one.
        problems.append(f"{graph.name}: cannot be exported in int8: a mean of views of a {last}.")
    if problems:
        raise ModelError(problems)
    into = Quantiser(graph, samples_of(graph, calibration_images(images)))
    for op in graph.operations:
        if op.name not in into.absorbed:
            RULES[op.kind](into, op)
    if not into.steps or into.steps[-1].kind not in ("linear_scores", "mean_scores"):
        give_scores(into)
    steps = (*into.steps[:-1], replace(into.steps[-1], name=OUTPUT))
    program = Program.of(graph, steps, into.constants, int8=True)
    return Quantised(program, into.rounded, into.weights)
