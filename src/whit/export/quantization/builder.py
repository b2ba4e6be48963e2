"""Builds an int8 program from a graph: steps, constants, and QuantParams of values."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from whit.export.ir.graph import INPUT, Graph, Operation
from whit.export.program import LOGIT_SCALE, ProgramBuilder
from whit.export.quantization.calibration import QuantParams, choose_qparams
from whit.export.quantization.fixed_point import FixedPointMultiplier

_ONES = "ones"  # offsets that all equal offset_scale: one array, as long as the widest layer
_PIXELS = QuantParams(1.0, 0)
LOGITS = QuantParams(1 / LOGIT_SCALE, 0)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class QuantizedWeights:
    """Integer weights in the layout of the graph, with a scale per output channel."""

    values: NDArray[np.int8]
    scales: NDArray[np.float32]


class QuantizedProgramBuilder(ProgramBuilder):
    """Lowers a graph to integers.

    qparams: of every value; rounded: of the values that a step rounds; absorbed: names of
    operations merged into an earlier step.
    """

    def __init__(self, graph: Graph, samples: dict[str, Floats]):
        super().__init__(graph)
        self.samples = samples
        self.consumers = graph.consumers()
        last = graph.operations[-1]
        self.output = last.inputs[0] if last.operator.keeps_argmax else graph.output
        self.needed_ranges = self._needed_ranges()
        self.qparams: dict[str, QuantParams] = {INPUT: _PIXELS}
        self.rounded: dict[str, QuantParams] = {}
        self.absorbed: set[str] = set()
        self.weights: dict[str, QuantizedWeights] = {}

    def _needed_ranges(self) -> dict[str, tuple[float, float]]:
        """The interval of each value outside which its consumers saturate."""
        needed: dict[str, tuple[float, float]] = {self.output: (-inf, inf)}
        for op in reversed(self.graph.operations):
            low, high = needed.get(op.name, (inf, -inf))
            if op.operator.needed_range:
                low, high = op.operator.needed_range(op, low, high)
            elif not op.operator.keeps_range:
                low, high = -inf, inf
            for name in op.inputs:
                before = needed.get(name, (inf, -inf))
                needed[name] = (min(low, before[0]), max(high, before[1]))
        return needed

    def choose(self, name: str) -> QuantParams:
        """Choose the QuantParams of a computed value."""
        qparams = choose_qparams(self.samples[name], *self.needed_ranges[name])
        self.qparams[name] = self.rounded[name] = qparams
        return qparams

    def keep(self, op: Operation, *, rounded: bool = False) -> QuantParams:
        """Give a value the QuantParams of its input."""
        qparams = self.qparams[op.name] = self.qparams[op.inputs[0]]
        if rounded:
            self.rounded[op.name] = qparams
        return qparams

    def constant(self, op: Operation, role: str) -> Floats:
        return self.graph.constants[op.constants[role]].double().numpy()

    def store_multiplier(self, name: str, multiplier: FixedPointMultiplier) -> dict[str, str]:
        """Store the factors and offsets of a step; return their names by role."""
        factor = self.store(f"{name}.factor", multiplier.factors)
        if multiplier.offsets.dtype == np.int8 and (multiplier.offsets == 1).all():
            count = max(len(multiplier.offsets), len(self.constants.get(_ONES, ())))
            return {"factor": factor, "offset": self.store(_ONES, np.ones(count, np.int8))}
        return {"factor": factor, "offset": self.store(f"{name}.offset", multiplier.offsets)}
