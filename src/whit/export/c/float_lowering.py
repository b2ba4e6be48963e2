"""A folded graph as steps in float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from whit.export.ir.graph import INPUT, Graph, Operation
from whit.export.program import (
    OUTPUT,
    Array,
    Program,
    Step,
    as_kernel,
    lies_flat,
    places_and_channels,
)

_NUMBERS = "floats"  # the pixels as floating-point numbers


def float_program(graph: Graph) -> Program:
    """Return the steps of a graph; the image is made floating-point first."""
    constants: dict[str, Array] = {}
    same: dict[str, str] = {INPUT: _NUMBERS}  # values that lie in memory as others do already
    steps = [Step(_NUMBERS, "numbers", (INPUT,), graph.image_shape)]
    for op in graph.operations:
        inputs = tuple(same.get(name, name) for name in op.inputs)
        if op.kind == "flatten" and lies_flat(graph.shape_of(op.inputs[0])):
            same[op.name] = inputs[0]
            continue
        steps.append(_step(graph, op, inputs, constants))
    last = steps[-1]
    assert last.name == same.get(graph.output, graph.output), "the logits come last"
    steps[-1] = replace(last, name=OUTPUT)
    return Program.of(graph, tuple(steps), constants, int8=False)


def _step(
    graph: Graph, op: Operation, inputs: tuple[str, ...], constants: dict[str, Array]
) -> Step:
    kind: str = op.kind
    settings: dict[str, Any] = dict(op.attributes)
    named = dict(op.constants)

    def stored(role: str, array: Array, layout: str = "") -> None:
        named[role] = f"{op.constants[role]}{layout}"
        constants[named[role]] = np.ascontiguousarray(array, np.float32)

    for role in op.constants:
        array = graph.constants[op.constants[role]].numpy()
        if role != "weight":
            stored(role, array)
        elif kind == "linear":
            stored(role, array.T)
        else:
            settings["kernel"] = array.shape[2:]
            kind, layout, laid = as_kernel(op, graph.shape_of(op.inputs[0]), array, int8=False)
            stored(role, laid, layout)
    if kind in ("add", "subtract", "multiply"):
        settings["by_channel"] = graph.shape_of(op.inputs[1]) != op.shape
    if kind == "slice":
        settings["pitch"] = places_and_channels(graph.shape_of(op.inputs[0]))[1]
    return Step(op.name, kind, inputs, op.shape, settings, named)
