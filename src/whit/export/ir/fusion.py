"""Fusion: operations that a neighbor can take over are merged into it.

BatchNorm in evaluation mode is a `scale`, x * scale + offset by channel: it goes into the weights
of a neighbor where that is exact. Two paddings in a row are one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from whit.export.ir.graph import Graph, Operation


def fuse(graph: Graph) -> Graph:
    """Return the graph with as few operations as there can be; float32, in its own memory.

    The sums are made in float64, so that fusion differs from the network by no more than float32
    does.
    """
    while (fused := _fuse_first(graph)) is not None:
        graph = fused
    used = graph.constant_users()
    constants = {
        name: tensor.float().contiguous().clone()
        for name, tensor in graph.constants.items()
        if name in used
    }
    return replace(graph, constants=constants)


def _fuse_first(graph: Graph) -> Graph | None:
    """Fuse the first operation that can be; None when there is none."""
    every = (op.operator.fuse(graph, op) for op in graph.operations)
    return next((fused for fused in every if fused is not None), None)


def remove_operation(graph: Graph, removed: Operation, changed: Mapping[str, Operation]) -> Graph:
    """Return the graph without an operation, whose consumers read its input.

    `changed` takes the place of operations by their names.
    """
    (source,) = removed.inputs
    operations = tuple(
        replace(op, inputs=tuple(source if name == removed.name else name for name in op.inputs))
        for op in (changed.get(op.name, op) for op in graph.operations if op is not removed)
    )
    is_last = removed.name == graph.output
    assert not is_last or operations[-1].name == source, "the logits must come last"
    return replace(graph, operations=operations)
