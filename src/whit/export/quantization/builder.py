"""What grows while a graph is put in whole numbers: steps, constants, and the levels of values."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.export.ir.graph import INPUT, Graph, Operation
from whit.export.program import Array, Step
from whit.export.quantization.calibration import Levels, best_levels
from whit.export.quantization.fixed_point import Fixed

# These give numbers that they were given, or some between them.
KEPT = ("maxpool", "slice", "pad", "flatten", "deskew")
ONES = "ones"  # offsets that are all one step: stored once, as many as any layer reads
_PIXELS = Levels(1.0, 0)
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Whole:
    """Weights as whole numbers, in the graph's own layout, with a scale an output channel."""

    numbers: NDArray[np.int8]
    scales: NDArray[np.float32]


class Quantiser:
    """What one pass through a graph gathers; `levels` are of every value, by the graph's name."""

    def __init__(self, graph: Graph, samples: dict[str, Numbers]):
        self.graph = graph
        self.samples = samples
        self.readers = graph.readers()
        last = graph.operations[-1]
        # The largest class is the same before a softmax.
        softened = last.kind in ("softmax", "log_softmax")
        self.output = last.inputs[0] if softened else graph.output
        self.wanted = self._wanted()
        self.levels: dict[str, Levels] = {INPUT: _PIXELS}
        self.rounded: dict[str, Levels] = {}
        self.same: dict[str, str] = {}
        self.absorbed: set[str] = set()
        self.steps: list[Step] = []
        self.constants: dict[str, Array] = {}
        self.weights: dict[str, Whole] = {}

    def _wanted(self) -> dict[str, tuple[float, float]]:
        """The interval of each value beyond which its readers tell no difference."""
        wanted: dict[str, tuple[float, float]] = {self.output: (-inf, inf)}
        for op in reversed(self.graph.operations):
            low, high = wanted.get(op.name, (inf, -inf))
            function = op.attributes.get("function")
            if function in ("relu", "relu6"):
                low, high = max(low, 0.0), min(high, 6.0 if function == "relu6" else inf)
            elif op.kind not in KEPT:
                low, high = -inf, inf
            for name in op.inputs:
                before = wanted.get(name, (inf, -inf))
                wanted[name] = (min(low, before[0]), max(high, before[1]))
        return wanted

    def inside(self, op: Operation) -> tuple[str, ...]:
        return tuple(self.same.get(name, name) for name in op.inputs)

    def choose(self, name: str) -> Levels:
        """Choose the levels of a value that is computed."""
        levels = best_levels(self.samples[name], *self.wanted[name])
        self.levels[name] = self.rounded[name] = levels
        return levels

    def keep(self, op: Operation) -> Levels:
        """Give a value the levels of what it is made of."""
        self.levels[op.name] = self.levels[op.inputs[0]]
        return self.levels[op.name]

    def add(self, op: Operation, kind: str, settings: Any, name: str = "", **held: str) -> None:
        made = name or op.name
        self.steps.append(Step(made, kind, self.inside(op), op.shape, settings, held))

    def store(self, name: str, array: Array) -> str:
        self.constants[name] = np.ascontiguousarray(array)
        return name

    def constant(self, op: Operation, role: str) -> Numbers:
        return self.graph.constants[op.constants[role]].double().numpy()

    def store_fixed(self, name: str, numbers: Fixed) -> dict[str, str]:
        factor = self.store(f"{name}.factor", numbers.factors)
        if numbers.offsets.dtype == np.int8 and (numbers.offsets == 1).all():
            most = max(len(numbers.offsets), len(self.constants.get(ONES, ())))
            return {"factor": factor, "offset": self.store(ONES, np.ones(most, np.int8))}
        return {"factor": factor, "offset": self.store(f"{name}.offset", numbers.offsets)}
