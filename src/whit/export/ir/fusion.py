"""Fusion: merges operations into a neighbor.

BatchNorm in evaluation mode is a `scale`, x * scale + offset per channel; it is folded into the
weights of a neighbor where that is exact. Consecutive paddings are merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from whit.export.ir.graph import Graph, Operation


def fuse(graph: Graph) -> Graph:
    """Return the graph with all possible fusions applied, its constants copied to float32.

    Computed in float64, so that the error of fusion stays within float32 rounding.
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
    """Fuse the first operation that can be fused; None if there is none."""
    every = (op.operator.fuse(graph, op) for op in graph.operations)
    return next((fused for fused in every if fused is not None), None)


def remove_operation(graph: Graph, removed: Operation, changed: Mapping[str, Operation]) -> Graph:
    """Return the graph without an operation; its consumers read its input instead.

    `changed` maps names to operations that replace those in the graph.
    """
    (source,) = removed.inputs
    operations = tuple(
        replace(op, inputs=tuple(source if name == removed.name else name for name in op.inputs))
        for op in (changed.get(op.name, op) for op in graph.operations if op is not removed)
    )
    is_last = removed.name == graph.output
    assert not is_last or operations[-1].name == source, (
        "the last operation must compute the logits"
    )
    return replace(graph, operations=operations)
