"""A folded graph's operations as steps in whole numbers, a function each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch

from whit.errors import ModelError
from whit.export.ir.graph import INPUT, Graph, Operation
from whit.export.ir.interpreter import execute
from whit.export.program import OUTPUT, SCORE_UNITS, Step, as_kernel, lies_flat
from whit.export.quantization.builder import KEPT, Quantiser, Whole
from whit.export.quantization.calibration import whole_weights
from whit.export.quantization.fixed_point import Fixed, fixed

_PARTS = 16  # of a level, in which hardswish reckons
_LEAST_THREE = 48  # fewer would make 3 another number; more than the most could leave 32 bits
_MOST_THREE = 1 << 20
_BYTES = (np.zeros(1, np.int64), np.full(1, 255, np.int64))


def _one_factor(numbers: Fixed) -> dict[str, int]:
    return {
        "factor": int(numbers.factors[0]),
        "offset": int(numbers.offsets[0]),
        "shift": numbers.shift,
    }


def _settling(numbers: Fixed) -> dict[str, Any]:
    types = (str(numbers.factors.dtype), str(numbers.offsets.dtype))
    return {"shift": numbers.shift, "step": numbers.step, "types": types}


def _layer(into: Quantiser, op: Operation) -> None:
    """A convolution or linear layer, with the scale that alone reads it."""
    graph = into.graph
    weight_name = op.constants["weight"]
    if weight_name not in into.weights:
        into.weights[weight_name] = Whole(*whole_weights(into.constant(op, "weight"), graph.bits))
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
        numbers = fixed(
            name, real * units, shifted * units, bounds, moved, rounded=False, bits=graph.bits
        )
    else:
        levels = into.choose(name)
        offsets = shifted / levels.scale + levels.zero
        numbers = fixed(name, real / levels.scale, offsets, bounds, moved, bits=graph.bits)
    held = into.store_fixed(name, numbers)
    settings: dict[str, Any] = {**op.attributes, "zero": read.zero}
    settings |= _settling(numbers)
    if op.kind == "linear":
        kind = "linear_scores" if last else "linear"
        weight = into.store(weight_name, whole.numbers)
    else:
        settings["kernel"] = whole.numbers.shape[2:]
        kind, layout, laid = as_kernel(op, graph.shape_of(op.inputs[0]), whole.numbers, int8=True)
        weight = into.store(f"{weight_name}{layout}", laid)
    into.add(op, kind, settings, name, weight=weight, **held)


def _scale(into: Quantiser, op: Operation) -> None:
    read, levels = into.levels[op.inputs[0]], into.choose(op.name)
    numbers = fixed(
        op.name,
        into.constant(op, "scale") * read.scale / levels.scale,
        into.constant(op, "offset") / levels.scale + levels.zero,
        _BYTES,
        read.zero,
        bits=into.graph.bits,
    )
    into.add(op, "scale", _settling(numbers), **into.store_fixed(op.name, numbers))


def _activation(into: Quantiser, op: Operation) -> None:
    read = into.levels[op.inputs[0]]
    function = op.attributes["function"]
    # Half a level: a range that ends at 6 may end a little beyond when its scale is rounded.
    within = function == "relu" or read.highest <= 6 + read.scale / 2
    if function in ("relu", "relu6") and read.zero == 0 and within:
        into.levels[op.name] = read
        into.same[op.name] = into.inside(op)[0]
        return
    levels = into.choose(op.name)
    three = round(3 * _PARTS / read.scale)
    if function == "hardswish" and _LEAST_THREE <= three <= _MOST_THREE:
        _hardswish(into, op, three)
        return
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


def _hardswish(into: Quantiser, op: Operation, three: int) -> None:
    """Without a table: `three` is the 3 of its definition, in parts of a level that is read."""
    read, levels = into.levels[op.inputs[0]], into.levels[op.name]
    most = np.full(1, 255 * 2 * three, np.int64)
    real = np.array([read.scale**2 / (6 * _PARTS * levels.scale)])
    numbers = fixed(op.name, real, np.full(1, levels.zero), (-most, most))
    into.add(op, "hardswish", {**_one_factor(numbers), "zero": read.zero, "three": three})


def _kept(into: Quantiser, op: Operation) -> None:
    levels = into.keep(op)
    if op.kind == "flatten" and lies_flat(into.graph.shape_of(op.inputs[0])):
        into.same[op.name] = into.inside(op)[0]
        return
    settings: dict[str, Any] = {**op.attributes, "zero": levels.zero}
    if op.kind == "slice":
        settings["pitch"] = into.graph.shape_of(op.inputs[0])[0]
    into.add(op, op.kind, settings)


def _deskew(into: Quantiser, op: Operation) -> None:
    into.rounded[op.name] = into.keep(op)
    places, reach = prod(op.shape[1:]), max(op.shape)
    if (255 * op.shape[0] * places) ** 2 * reach**2 >= 2**63:
        raise ModelError(
            f"{op.name}: cannot be exported in int8: a product of its moments could leave 64 bits."
        )
    into.add(op, "deskew", {})


def _avgpool(into: Quantiser, op: Operation) -> None:
    into.rounded[op.name] = into.keep(op)
    if 255 * prod(op.attributes["kernel"]) >= 2**31:
        raise ModelError(
            f"{op.name}: cannot be exported in int8: a sum of its window could leave 32 bits."
        )
    into.add(op, "avgpool", {**op.attributes, "zero": into.levels[op.name].zero})


def _mean(into: Quantiser, op: Operation) -> None:
    read = into.levels[op.inputs[0]]
    places = prod(into.graph.shape_of(op.inputs[0])[1:])
    bounds = (np.zeros(1, np.int64), np.full(1, 255 * places, np.int64))
    moved, real = read.zero * places, np.array([read.scale / places])
    if op.name == into.output:
        numbers = fixed(op.name, real * SCORE_UNITS, np.zeros(1), bounds, moved, rounded=False)
        into.add(op, "mean_scores", _one_factor(numbers))
        return
    levels = into.choose(op.name)
    numbers = fixed(op.name, real / levels.scale, np.full(1, levels.zero), bounds, moved)
    into.add(op, "mean", _one_factor(numbers))


def _sum(into: Quantiser, op: Operation) -> None:
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


def _multiply(into: Quantiser, op: Operation) -> None:
    a, b = (into.levels[name] for name in op.inputs)
    levels = into.choose(op.name)
    most = np.full(1, 255 * 255, np.int64)
    real = np.array([a.scale * b.scale / levels.scale])
    numbers = fixed(op.name, real, np.full(1, levels.zero), (-most, most))
    by_channel = into.graph.shape_of(op.inputs[1]) != op.shape
    settings = {
        **_one_factor(numbers),
        "zero_a": a.zero,
        "zero_b": b.zero,
        "by_channel": by_channel,
    }
    into.add(op, "multiply", settings)


def _concat(into: Quantiser, op: Operation) -> None:
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


def _left_out(into: Quantiser, op: Operation) -> None:
    """A softmax at the end: its largest class is that of what it reads."""
    assert op.name == into.graph.output


def give_scores(into: Quantiser) -> None:
    """The scores of a network whose last value is in bytes."""
    name = into.output
    levels = into.levels[name]
    units = np.array([levels.scale * SCORE_UNITS])
    numbers = fixed(name, units, np.zeros(1), _BYTES, levels.zero, rounded=False)
    last = into.graph.operations[-1]
    inside = (into.same.get(name, name),)
    into.steps.append(Step(OUTPUT, "scores", inside, last.shape, _one_factor(numbers)))


RULES: dict[str, Callable[[Quantiser, Operation], None]] = {
    "conv": _layer,
    "linear": _layer,
    "scale": _scale,
    "activation": _activation,
    **dict.fromkeys(KEPT, _kept),
    "deskew": _deskew,
    "avgpool": _avgpool,
    "mean": _mean,
    "add": _sum,
    "subtract": _sum,
    "multiply": _multiply,
    "concat": _concat,
    "softmax": _left_out,
    "log_softmax": _left_out,
}
