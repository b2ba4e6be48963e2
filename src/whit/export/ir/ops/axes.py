"""ATen operators without a graph operator: they permute axes, cast, or map to other operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch.nn import functional as F

from whit.export.ir.ops.channels import repeat_channel
from whit.export.ir.ops.layers import CONV, pad_map
from whit.export.ir.ops.operator import Converter
from whit.export.ir.ops.values import (
    BATCH,
    Expanded,
    GraphBuilder,
    Layout,
    UnsupportedOp,
    ValueView,
    as_map,
    normalize_axes,
    require_float,
)


def _view(builder: GraphBuilder, value: ValueView, shape: Sequence[int]) -> ValueView:
    sizes = value.sizes
    atoms = [axis for group in value.axes[1:] for axis in group if sizes[axis] > 1]
    lengths = list(shape)
    if lengths[0] not in (BATCH, -1):
        raise UnsupportedOp("a view that changes the batch dimension is not supported")
    if -1 in lengths:
        total = BATCH * prod(sizes[axis] for axis in atoms)
        lengths[lengths.index(-1)] = total // -prod(lengths)
        if lengths[0] != BATCH:
            raise UnsupportedOp("a view that changes the batch dimension is not supported")
    groups: list[tuple[str, ...]] = [()]
    for length in lengths[1:]:
        group: list[str] = []
        while prod(sizes[axis] for axis in group) < length and atoms:
            group.append(atoms.pop(0))
        if prod(sizes[axis] for axis in group) != length:
            raise UnsupportedOp("a view that splits channels, rows or columns is not supported")
        groups.append(tuple(group))
    if atoms:
        raise UnsupportedOp("a view that splits channels, rows or columns is not supported")
    return _with_axes(value, groups)


def _with_axes(value: ValueView, axes: Sequence[tuple[str, ...]]) -> ValueView:
    return replace(value, axes=normalize_axes(value, tuple(axes)))


def _permute(builder: GraphBuilder, value: ValueView, order: Sequence[int]) -> ValueView:
    axes = [value.axes[dim] for dim in order]
    if order[0] % len(order) != 0:
        raise UnsupportedOp("permuting the batch dimension is not supported")
    return _with_axes(value, axes)


def _transpose(builder: GraphBuilder, value: ValueView, a: int, b: int) -> ValueView:
    order = list(range(len(value.axes)))
    order[a], order[b] = order[b], order[a]
    return _permute(builder, value, order)


def _squeeze(builder: GraphBuilder, value: ValueView, dims: Sequence[int]) -> ValueView:
    rank = len(value.axes)
    removed = {d % rank for d in dims}
    kept = [
        group
        for dim, group in enumerate(value.axes)
        if dim not in removed or dim == 0 or prod(value.sizes[axis] for axis in group) > 1
    ]
    return _with_axes(value, kept)


def _unsqueeze(builder: GraphBuilder, value: ValueView, dim: int) -> ValueView:
    axes = list(value.axes)
    index = dim % (len(axes) + 1)
    if index == 0:
        raise UnsupportedOp("adding a dimension before the batch dimension is not supported")
    axes.insert(index, ())
    return _with_axes(value, axes)


def _expand(builder: GraphBuilder, value: ValueView, lengths: Sequence[int], implicit: bool) -> Any:
    old = (BATCH, *value.lengths)
    if len(old) != len(lengths):
        raise UnsupportedOp("adding a dimension before the batch dimension is not supported")
    new = tuple(o if length == -1 else length for o, length in zip(old, lengths, strict=True))
    if new == old:
        return value
    if value.axes == Layout.MAP and new[2:] == old[2:]:
        return repeat_channel(builder, value, new[1])
    return Expanded(value, new[1:])


def _select(builder: GraphBuilder, value: ValueView, dim: int, index: int) -> ValueView:
    if dim % len(value.axes) == 0 or value.lengths[dim % len(value.axes) - 1] != 1:
        raise UnsupportedOp("selecting one channel, row, column or image is not supported")
    return _squeeze(builder, value, [dim])


def _identity(builder: GraphBuilder, value: Any, *, memory_format: Any = None) -> Any:
    return value


def _dropout(builder: GraphBuilder, value: Any, p: float, train: bool) -> Any:
    if train and p:
        raise UnsupportedOp("dropout that is active in evaluation mode is not supported")
    return value


# The layout of the result in memory is no part of the graph.
_PLACEMENT = ("layout", "device", "pin_memory", "non_blocking", "memory_format")


def _cast(builder: GraphBuilder, value: Any, *, dtype: torch.dtype | None, **placement: Any) -> Any:
    assert set(placement) <= set(_PLACEMENT)
    require_float(dtype, "a cast")
    return value


def _pad(builder: GraphBuilder, value: Any, pads: Sequence[int], fill: float | None) -> ValueView:
    inner = as_map(value, "padding")
    if fill or any(pads[6:]):
        raise UnsupportedOp(
            "padding is supported with zeros around rows, columns and channels only"
        )
    if any(pads[4:]):
        inner = _pad_channels(builder, inner, *pads[4:6])
    return pad_map(builder, inner, *(*pads, 0, 0, 0, 0)[:4])


def _pad_by_mode(
    builder: GraphBuilder,
    value: Any,
    pads: Sequence[int],
    mode: str,
    fill: float | None,
) -> ValueView:
    if mode != "constant":
        raise UnsupportedOp(f"padding mode {mode!r} is not supported, only 'constant'")
    return _pad(builder, value, pads, fill)


def _pad_channels(builder: GraphBuilder, value: ValueView, before: int, after: int) -> ValueView:
    """Zero channels before and after, as a 1x1 convolution; negative numbers crop."""
    taps = F.pad(torch.eye(value.shape[0]), (0, 0, before, after))
    settings = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    constants = {"weight": taps[:, :, None, None], "bias": torch.zeros(len(taps))}
    return builder.add(CONV, [value], (len(taps), *value.shape[1:]), settings, constants)


# Operators that return an Expanded value unchanged.
IDENTITIES = ("clone", "contiguous", "alias", "detach", "_to_copy")
CONVERTERS: dict[str, Converter] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape"), _view),
    "permute": _permute,
    "transpose": _transpose,
    "t": lambda builder, value: _transpose(builder, value, 0, 1),
    "expand": _expand,
    "select": _select,
    "squeeze": lambda builder, value: _squeeze(builder, value, range(1, len(value.axes))),
    "squeeze.dim": lambda builder, value, dim: _squeeze(builder, value, [dim]),
    "squeeze.dims": _squeeze,
    "unsqueeze": _unsqueeze,
    **dict.fromkeys(IDENTITIES, _identity),
    "_to_copy": _cast,
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), _dropout),
    "native_dropout": lambda *call: [_dropout(*call), None],
    "constant_pad_nd": _pad,
    "pad": _pad_by_mode,
}
