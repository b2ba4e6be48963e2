"""Folding: every `scale` that a neighbour can take up goes into that neighbour's weights.

BatchNorm in evaluation mode is x * scale + offset by channel. Behind a convolution it is that
convolution with other weights; in front of one without padding, too. Between them may stand
operations that such a scale passes unchanged. Weights that several operations share are left
alone: each of them would need its own copy. So are weights of few bits that would no longer be
whole multiples of one step an output. Two paddings in a row are one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from whit.export.ir.graph import INPUT, Graph, Operation

_WEIGHTED = ("conv", "linear")


def folded(graph: Graph) -> Graph:
    """Return the graph with as few `scale` operations as there can be; float32, in its own memory.

    The sums are made in float64, so that what is folded differs from the network by no more than
    float32 does.
    """
    while (better := _fold_one(graph)) is not None:
        graph = better
    held = graph.holders()
    return replace(
        graph,
        constants={
            name: tensor.float().contiguous().clone()
            for name, tensor in graph.constants.items()
            if name in held
        },
    )


def _fold_one(graph: Graph) -> Graph | None:
    """Fold the first `scale` or `pad` that can be folded; None when there is none."""
    for op in graph.operations:
        if op.kind == "pad" and (first := _pad_before(graph, op)):
            return _into_pad(graph, op, first)
        if op.kind == "scale":
            scale, offset = (graph.constants[op.constants[role]] for role in ("scale", "offset"))
            into = _before(graph, op, scale)
            if into is not None:
                return _into_before(graph, op, into, scale, offset)
            into = _behind(graph, op, scale)
            if into is not None:
                return _into_behind(graph, op, into, scale, offset)
    return None


def _pad_before(graph: Graph, op: Operation) -> Operation | None:
    """The padding just in front of another, where both add or both take away on each side."""
    (name,) = op.inputs
    first = next((each for each in graph.operations if each.name == name), None)
    if first is None or first.kind != "pad" or graph.readers()[name] != 1:
        return None
    sides = zip(first.attributes["around"], op.attributes["around"], strict=True)
    return first if all(a * b >= 0 for a, b in sides) else None


def _into_pad(graph: Graph, op: Operation, first: Operation) -> Graph:
    sides = zip(first.attributes["around"], op.attributes["around"], strict=True)
    around = tuple(a + b for a, b in sides)
    both = replace(first, shape=op.shape, attributes={"around": around})
    return _without(graph, op, {first.name: both})


def _passes(op: Operation, scale: Tensor) -> bool:
    """Whether op(x * scale + offset) = op(x) * scale + offset, channel by channel."""
    if op.kind == "mean":
        return True
    if op.kind == "maxpool":
        return bool((scale > 0).all())
    if op.kind == "deskew":  # what lies above the smallest number grows in every channel alike
        return bool((scale == scale[0]).all() and scale[0] > 0)
    if op.kind == "avgpool":
        # A zero of the padding would have to become the offset.
        return op.attributes["padding"] == (0, 0) or not op.attributes["counts_padding"]
    # A map of 1x1 has one number a channel; else the channels would have to be counted out.
    return False


def _alone(graph: Graph, op: Operation) -> bool:
    """Whether no other operation holds any of an operation's constants."""
    held = graph.holders()
    return all(held[name] == 1 for name in op.constants.values())


def _before(graph: Graph, op: Operation, scale: Tensor) -> Operation | None:
    """The convolution or linear layer in front of a scale that can take it up."""
    made = {each.name: each for each in graph.operations}
    readers = graph.readers()
    (name,) = op.inputs
    while name != INPUT and readers[name] == 1:
        found = made[name]
        if found.kind in _WEIGHTED:
            return found if _alone(graph, found) else None
        if found.kind == "scale":
            return found
        if not _passes(found, scale):
            return None
        (name,) = found.inputs
    return None


def _into_before(
    graph: Graph, op: Operation, into: Operation, scale: Tensor, offset: Tensor
) -> Graph:
    constants = dict(graph.constants)
    if into.kind == "scale":
        named = {role: f"{into.name}.{role}" for role in ("scale", "offset")}
        first, second = (constants[into.constants[role]] for role in ("scale", "offset"))
        constants[named["scale"]] = first * scale
        constants[named["offset"]] = second * scale + offset
        into_now = replace(into, constants=named)
        return _without(replace(graph, constants=constants), op, {into.name: into_now})
    weight, bias = (into.constants[role] for role in ("weight", "bias"))
    shape = (-1,) + (1,) * (constants[weight].ndim - 1)
    constants[weight] = constants[weight] * scale.view(shape)
    constants[bias] = constants[bias] * scale + offset
    return _without(replace(graph, constants=constants), op, {})


def _behind(graph: Graph, op: Operation, scale: Tensor) -> Operation | None:
    """The convolution without padding or linear layer behind a scale that can take it up."""
    readers = graph.readers()
    name = op.name
    while readers[name] == 1 and name != graph.output:
        (found,) = (each for each in graph.operations if name in each.inputs)
        if found.kind in _WEIGHTED:
            padded = found.kind == "conv" and found.attributes["padding"] != (0, 0)
            uneven = graph.bits < 8 and bool((scale != scale[0]).any())
            return None if padded or uneven or not _alone(graph, found) else found
        if not _passes(found, scale):
            return None
        name = found.name
    return None


def _into_behind(
    graph: Graph, op: Operation, into: Operation, scale: Tensor, offset: Tensor
) -> Graph:
    constants = dict(graph.constants)
    weight = constants[into.constants["weight"]]
    if into.kind == "linear":
        by_input, moved = weight * scale, weight @ offset
    else:
        groups = into.attributes["groups"]
        outputs = len(weight) // groups
        # Of each output's group, the channels that it reads.
        read = [
            values.view(groups, 1, -1).expand(groups, outputs, -1).reshape(len(weight), -1, 1, 1)
            for values in (scale, offset)
        ]
        by_input, moved = weight * read[0], (weight * read[1]).sum((1, 2, 3))
    constants[into.constants["weight"]] = by_input
    constants[into.constants["bias"]] = constants[into.constants["bias"]] + moved
    return _without(replace(graph, constants=constants), op, {})


def _without(graph: Graph, gone: Operation, changed: dict[str, Operation]) -> Graph:
    """Take an operation out; who read its value reads what it read."""
    (inside,) = gone.inputs
    last = graph.output

    def kept() -> Iterator[Operation]:
        for op in graph.operations:
            if op is gone:
                continue
            op = changed.get(op.name, op)
            yield replace(op, inputs=tuple(inside if n == gone.name else n for n in op.inputs))

    operations = tuple(kept())
    assert gone.name != last or operations[-1].name == inside, "the logits must come last"
    return replace(graph, operations=operations)
