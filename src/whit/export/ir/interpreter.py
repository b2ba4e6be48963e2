"""A graph at work, operation by operation with PyTorch's functions: what an export must equal."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from whit.export.ir.graph import INPUT, Graph, Operation
from whit.models.layers import Deskew

_BATCH = 500


@torch.inference_mode()
def execute(graph: Graph, images: Tensor) -> dict[str, Tensor]:
    """Return every value for uint8 images (N, C, H, W), by its name; the last are the logits.

    In the precision of the graph's constants.
    """
    wide = any(tensor.dtype == torch.float64 for tensor in graph.constants.values())
    values = {INPUT: images.double() if wide else images.float()}
    for op in graph.operations:
        held = {role: graph.constants[name] for role, name in op.constants.items()}
        values[op.name] = _value(op, [values[name] for name in op.inputs], held)
        assert values[op.name].shape[1:] == op.shape, f"{op.name} gives another shape"
    return values


def logits_of(graph: Graph, images: Tensor) -> Tensor:
    """Return the logits (N, K) of uint8 images (N, C, H, W)."""
    parts = []
    for first in range(0, len(images), _BATCH):
        batch = images[first : first + _BATCH]
        looks = [execute(graph, moved(batch, *shift))[graph.output] for shift in graph.shifts]
        parts.append(torch.stack(looks).mean(0))
    return torch.cat(parts)


def moved(images: Tensor, right: int, down: int) -> Tensor:
    """Return images (N, C, H, W) moved so, filled with the pixels of the edge."""
    height, width = images.shape[2:]
    rows = (torch.arange(height) - down).clamp(0, height - 1)
    columns = (torch.arange(width) - right).clamp(0, width - 1)
    return images[:, :, rows][:, :, :, columns]


def _value(op: Operation, given: list[Tensor], held: Mapping[str, Tensor]) -> Tensor:
    x, settings = given[0], op.attributes
    if op.kind == "conv":
        return F.conv2d(
            x,
            held["weight"],
            held["bias"],
            *(settings[name] for name in ("stride", "padding", "dilation", "groups")),
        )
    if op.kind == "linear":
        return F.linear(x, held["weight"], held["bias"])
    if op.kind == "scale":
        return x * _by_channel(held["scale"], x) + _by_channel(held["offset"], x)
    if op.kind == "activation":
        return _activated(op, x, held)
    if op.kind == "maxpool":
        names = ("kernel", "stride", "padding", "dilation")
        pooled: Tensor = F.max_pool2d(x, *(settings[name] for name in names))
        return pooled
    if op.kind == "avgpool":
        kernel, stride, padding = (settings[name] for name in ("kernel", "stride", "padding"))
        return F.avg_pool2d(
            x, kernel, stride, padding, count_include_pad=settings["counts_padding"]
        )
    if op.kind == "mean":
        return x.mean((2, 3))
    if op.kind in ("add", "subtract", "multiply"):
        other = given[1] if given[1].shape == x.shape else given[1][:, :, None, None]
        if op.kind == "multiply":
            return x * other
        return x + other if op.kind == "add" else x - other
    if op.kind == "concat":
        return torch.cat(given, 1)
    if op.kind == "slice":
        return x[:, settings["start"] : settings["stop"]]
    if op.kind == "deskew":
        return Deskew()(x)  # type: ignore[no-any-return]
    if op.kind == "pad":
        return F.pad(x, settings["around"])
    if op.kind == "flatten":
        return x.flatten(1)
    if op.kind == "softmax":
        return F.softmax(x, 1)
    assert op.kind == "log_softmax", op.kind
    return F.log_softmax(x, 1)


def _activated(op: Operation, x: Tensor, held: Mapping[str, Tensor]) -> Tensor:
    function = op.attributes["function"]
    if function == "prelu":
        return F.prelu(x, held["slope"])
    if function in ("leaky_relu", "elu"):
        return getattr(F, function)(x, op.attributes["slope"])  # type: ignore[no-any-return]
    if function in ("sigmoid", "tanh"):
        return getattr(torch, function)(x)  # type: ignore[no-any-return]
    return getattr(F, function)(x)  # type: ignore[no-any-return]


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *(1,) * (x.ndim - 2))
