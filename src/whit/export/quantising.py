"""A folded graph as steps in whole numbers: bytes, int8 weights and int32 sums.

Pixels are bytes already. Every other value is kept as bytes q that stand for (q - zero) * scale;
weights are symmetric, with a scale an output channel. A `scale` behind a layer becomes part of
the layer's factors; `relu` behind a value that is never negative is that value; any other
activation is a table of 256 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whit.errors import ModelError
from whit.export.calibration import (
    Levels,
    best_levels,
    calibration_images,
    samples_of,
    whole_weights,
)
from whit.export.executing import execute
from whit.export.fixed_point import Fixed, fixed
from whit.export.graph import INPUT, Graph, Operation
from whit.export.program import (
    OUTPUT,
    SCORE_UNITS,
    Array,
    Program,
    Step,
    as_kernel,
    lies_flat,
)

_PIXELS = Levels(1.0, 0)
_KEPT = ("maxpool", "slice", "pad", "flatten")  # these give numbers that they were given
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Whole:
    """Weights as whole numbers, in the graph's own layout, with a scale an output channel."""

    numbers: NDArray[np.int8]
    scales: NDArray[np.float32]


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
    if problems:
        raise ModelError(problems)
    return _Quantiser(graph, samples_of(graph, calibration_images(images))).quantised()


class _Quantiser:
    """Goes through a graph once; `levels` are those of every value, by the graph's names."""

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

    def quantised(self) -> Quantised:
        for op in self.graph.operations:
            if op.name not in self.absorbed:
                _RULES[op.kind](self, op)
        graph, last = self.graph, self.steps[-1] if self.steps else None
        if last is None or last.kind not in ("linear_scores", "mean_scores"):
            self._give_scores()
        steps = (*self.steps[:-1], replace(self.steps[-1], name=OUTPUT))
        macs = sum(graph.macs_of(op) for op in graph.operations)
        program = Program(
            graph.name, True, graph.image_shape, graph.classes, steps, self.constants, macs
        )
        return Quantised(program, self.rounded, self.weights)

    def _wanted(self) -> dict[str, tuple[float, float]]:
        """The interval of each value beyond which its readers tell no difference."""
        wanted: dict[str, tuple[float, float]] = {self.output: (-inf, inf)}
        for op in reversed(self.graph.operations):
            low, high = wanted.get(op.name, (inf, -inf))
            function = op.attributes.get("function")
            if function in ("relu", "relu6"):
                low, high = max(low, 0.0), min(high, 6.0 if function == "relu6" else inf)
            elif op.kind not in _KEPT:
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
        return {
            "factor": self.store(f"{name}.factor", numbers.factors),
            "offset": self.store(f"{name}.offset", numbers.offsets),
        }

    def _give_scores(self) -> None:
        name = self.output
        levels = self.levels[name]
        numbers = fixed(
            name,
            np.array([levels.scale * SCORE_UNITS]),
            np.zeros(1),
            _BYTES,
            levels.zero,
            rounded=False,
        )
        last = self.graph.operations[-1]
        inside = (self.same.get(name, name),)
        self.steps.append(Step(OUTPUT, "scores", inside, last.shape, _settings(numbers)))


_BYTES = (np.zeros(1, np.int64), np.full(1, 255, np.int64))


def _settings(numbers: Fixed) -> dict[str, int]:
    return {
        "factor": int(numbers.factors[0]),
        "offset": int(numbers.offsets[0]),
        "shift": numbers.shift,
    }


def _layer(into: _Quantiser, op: Operation) -> None:
    """A convolution or linear layer, with the scale that alone reads it."""
    graph = into.graph
    weight_name = op.constants["weight"]
    if weight_name not in into.weights:
        into.weights[weight_name] = Whole(*whole_weights(into.constant(op, "weight")))
    whole = into.weights[weight_name]
    gain, shifted, name = np.ones(op.shape[0]), into.constant(op, "bias"), op.name
    reader = next((each for each in graph.operations if op.name in each.inputs), None)
    if reader is not None and reader.kind == "scale" and into.readers[op.name] == 1:
        gain = into.constant(reader, "scale")
        shifted = shifted * gain + into.constant(reader, "offset")
        name = reader.name
        into.absorbed.add(name)
    read = into.levels[op.inputs[0]]
    rows = whole.numbers.reshape(len(whole.numbers), -1).astype(np.int64)
    bounds = (255 * np.minimum(rows, 0).sum(1), 255 * np.maximum(rows, 0).sum(1))
    moved = read.zero * rows.sum(1)
    real = read.scale * whole.scales.astype(np.float64) * gain
    last = op.kind == "linear" and name == into.output
    if last:
        units = SCORE_UNITS
        numbers = fixed(name, real * units, shifted * units, bounds, moved, rounded=False)
    else:
        levels = into.choose(name)
        offsets = shifted / levels.scale + levels.zero
        numbers = fixed(name, real / levels.scale, offsets, bounds, moved)
    held = into.store_fixed(name, numbers)
    settings: dict[str, Any] = {**op.attributes, "zero": read.zero, "shift": numbers.shift}
    if op.kind == "linear":
        kind = "linear_scores" if last else "linear"
        weight = into.store(weight_name, whole.numbers.T)
    else:
        settings["kernel"] = whole.numbers.shape[2:]
        kind, layout, laid = as_kernel(op, graph.shape_of(op.inputs[0]), whole.numbers)
        weight = into.store(f"{weight_name}{layout}", laid)
    into.add(op, kind, settings, name, weight=weight, **held)


def _scale(into: _Quantiser, op: Operation) -> None:
    read, levels = into.levels[op.inputs[0]], into.choose(op.name)
    numbers = fixed(
        op.name,
        into.constant(op, "scale") * read.scale / levels.scale,
        into.constant(op, "offset") / levels.scale + levels.zero,
        _BYTES,
        read.zero,
    )
    into.add(op, "scale", {"shift": numbers.shift}, **into.store_fixed(op.name, numbers))


def _activation(into: _Quantiser, op: Operation) -> None:
    read = into.levels[op.inputs[0]]
    function = op.attributes["function"]
    # Half a level: a range that ends at 6 may end a little beyond when its scale is rounded.
    within = function == "relu" or read.highest <= 6 + read.scale / 2
    if function in ("relu", "relu6") and read.zero == 0 and within:
        into.levels[op.name] = read
        into.same[op.name] = into.inside(op)[0]
        return
    levels = into.choose(op.name)
    by_channel = function == "prelu"
    channels = op.shape[0] if by_channel else 1
    # The activation alone, of as many images as there are bytes, (256, C).
    alone = Graph(
        op.name,
        (channels, 1, 1),
        (),
        (replace(op, inputs=(INPUT,), shape=(channels,)),),
        {name: into.graph.constants[name].double() for name in op.constants.values()},
    )
    x = torch.from_numpy(np.tile(read.values()[:, None], (1, channels)))
    table = levels.bytes_of(execute(alone, x)[op.name].double().numpy()).T.astype(np.uint8)
    name = into.store(f"{op.name}.table", table)
    into.add(op, "table", {"by_channel": by_channel}, table=name)


def _kept(into: _Quantiser, op: Operation) -> None:
    levels = into.keep(op)
    if op.kind == "flatten" and lies_flat(into.graph.shape_of(op.inputs[0])):
        into.same[op.name] = into.inside(op)[0]
        return
    settings: dict[str, Any] = {**op.attributes, "zero": levels.zero}
    if op.kind == "slice":
        settings["pitch"] = into.graph.shape_of(op.inputs[0])[0]
    into.add(op, op.kind, settings)


def _avgpool(into: _Quantiser, op: Operation) -> None:
    into.rounded[op.name] = into.keep(op)
    if 255 * prod(op.attributes["kernel"]) >= 2**31:
        raise ModelError(
            f"{op.name}: cannot be exported in int8: a sum of its window could leave 32 bits."
        )
    into.add(op, "avgpool", {**op.attributes, "zero": into.levels[op.name].zero})


def _mean(into: _Quantiser, op: Operation) -> None:
    read = into.levels[op.inputs[0]]
    places = prod(into.graph.shape_of(op.inputs[0])[1:])
    bounds = (np.zeros(1, np.int64), np.full(1, 255 * places, np.int64))
    moved, real = read.zero * places, np.array([read.scale / places])
    if op.name == into.output:
        numbers = fixed(op.name, real * SCORE_UNITS, np.zeros(1), bounds, moved, rounded=False)
        into.add(op, "mean_scores", _settings(numbers))
        return
    levels = into.choose(op.name)
    numbers = fixed(op.name, real / levels.scale, np.full(1, levels.zero), bounds, moved)
    into.add(op, "mean", _settings(numbers))


def _sum(into: _Quantiser, op: Operation) -> None:
    a, b = (into.levels[name] for name in op.inputs)
    levels = into.choose(op.name)
    sign = 1 if op.kind == "add" else -1
    real = np.array([a.scale, sign * b.scale]) / levels.scale
    # Two products in one sum: both bounds are met by twice a byte's.
    numbers = fixed(op.name, real, np.zeros(2), (_BYTES[0], 2 * _BYTES[1]))
    factors = [int(factor) for factor in numbers.factors]
    half = 1 << (numbers.shift - 1)
    offset = (levels.zero << numbers.shift) + half - factors[0] * a.zero - factors[1] * b.zero
    settings = {
        "factor_a": factors[0],
        "factor_b": factors[1],
        "offset": offset,
        "shift": numbers.shift,
        "by_channel": into.graph.shape_of(op.inputs[1]) != op.shape,
    }
    into.add(op, "add", settings)


def _multiply(into: _Quantiser, op: Operation) -> None:
    a, b = (into.levels[name] for name in op.inputs)
    levels = into.choose(op.name)
    most = np.full(1, 255 * 255, np.int64)
    real = np.array([a.scale * b.scale / levels.scale])
    numbers = fixed(op.name, real, np.full(1, levels.zero), (-most, most))
    by_channel = into.graph.shape_of(op.inputs[1]) != op.shape
    settings = {**_settings(numbers), "zero_a": a.zero, "zero_b": b.zero, "by_channel": by_channel}
    into.add(op, "multiply", settings)


def _concat(into: _Quantiser, op: Operation) -> None:
    levels = into.choose(op.name)
    parts = [into.levels[name] for name in op.inputs]
    numbers = fixed(
        op.name,
        np.array([part.scale / levels.scale for part in parts]),
        np.full(len(parts), float(levels.zero)),
        _BYTES,
        np.array([part.zero for part in parts], np.int64),
    )
    settings = {
        "factors": tuple(int(factor) for factor in numbers.factors),
        "offsets": tuple(int(offset) for offset in numbers.offsets),
        "shift": numbers.shift,
    }
    into.add(op, "concat", settings)


def _left_out(into: _Quantiser, op: Operation) -> None:
    """A softmax at the end: its largest class is that of what it reads."""
    assert op.name == into.graph.output


_RULES: dict[str, Callable[[_Quantiser, Operation], None]] = {
    "conv": _layer,
    "linear": _layer,
    "scale": _scale,
    "activation": _activation,
    **dict.fromkeys(_KEPT, _kept),
    "avgpool": _avgpool,
    "mean": _mean,
    "add": _sum,
    "subtract": _sum,
    "multiply": _multiply,
    "concat": _concat,
    "softmax": _left_out,
    "log_softmax": _left_out,
}
