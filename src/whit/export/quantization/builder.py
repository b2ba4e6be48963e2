"""An int8 program while its graph is lowered: steps, constants, and the QuantParams of values."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from whit.export.ir.graph import INPUT, Graph, Operation
from whit.export.program import LOGIT_SCALE, ProgramBuilder
from whit.export.quantization.calibration import QuantParams, choose_qparams
from whit.export.quantization.fixed_point import FixedPointMultiplier

_ONES = "ones"  # offsets that are all one step: stored once, as many as any layer reads
_PIXELS = QuantParams(1.0, 0)
LOGITS = QuantParams(1 / LOGIT_SCALE, 0)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class QuantizedWeights:
    """Weights as integers, in the graph's own layout, with a scale an output channel."""

    numbers: NDArray[np.int8]
    scales: NDArray[np.float32]


class QuantizedProgramBuilder(ProgramBuilder):
    """What one pass through a graph gathers.

    qparams: of every value; rounded: of those that a step rounds. absorbed: operations that an
    earlier one took over.
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
        """The interval of each value beyond which its consumers tell no difference."""
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
        """Choose the QuantParams of a value that is computed."""
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

    def store_multiplier(self, name: str, numbers: FixedPointMultiplier) -> dict[str, str]:
        """Store the factors and offsets of a step; return the names of both by their roles."""
        factor = self.store(f"{name}.factor", numbers.factors)
        if numbers.offsets.dtype == np.int8 and (numbers.offsets == 1).all():
            count = max(len(numbers.offsets), len(self.constants.get(_ONES, ())))
            return {"factor": factor, "offset": self.store(_ONES, np.ones(count, np.int8))}
        return {"factor": factor, "offset": self.store(f"{name}.offset", numbers.offsets)}
