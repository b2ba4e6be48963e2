"""Runs a graph operation by operation with PyTorch: the reference for all exports."""

from __future__ import annotations

import torch
from torch import Tensor

from whit.export.ir.graph import INPUT, Graph, with_batch

_BATCH_SIZE = 500


@torch.inference_mode()
def run_graph(graph: Graph, images: Tensor) -> dict[str, Tensor]:
    """Return every value by name for uint8 images (N, C, H, W); the last are the logits.

    Computed in the precision of the graph's constants.
    """
    is_double = any(tensor.dtype == torch.float64 for tensor in graph.constants.values())
    values = {INPUT: images.double() if is_double else images.float()}
    for op in graph.operations:
        constants = {role: graph.constants[name] for role, name in op.constants.items()}
        output = op.operator.run(op, [values[name] for name in op.inputs], constants)
        shape = with_batch(op.shape, len(images))
        # An operation without inputs has the same value for every image.
        values[op.name] = output if op.inputs else output.expand(shape)
        assert values[op.name].shape == shape, f"{op.name} has another shape"
    return values


def run_logits(graph: Graph, images: Tensor) -> Tensor:
    """Return the logits (N, K) of uint8 images (N, C, H, W)."""
    parts = []
    for batch in images.split(_BATCH_SIZE):  # type: ignore[no-untyped-call]
        each = [run_graph(graph, shift_images(batch, *by))[graph.output] for by in graph.shifts]
        parts.append(torch.stack(each).mean(0))
    return torch.cat(parts)


def shift_images(images: Tensor, right: int, down: int) -> Tensor:
    """Return images (N, C, H, W) shifted by pixels, with gaps filled by edge pixels."""
    height, width = images.shape[2:]
    rows = (torch.arange(height) - down).clamp(0, height - 1)
    columns = (torch.arange(width) - right).clamp(0, width - 1)
    return images[:, :, rows][:, :, :, columns]
