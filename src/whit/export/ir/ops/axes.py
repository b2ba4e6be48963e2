"""What moves axes, and what puts channels together or takes them apart."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from whit.export.ir.ops.values import (
    BATCH,
    BY_CHANNEL,
    MAP,
    Growing,
    Seen,
    Spread,
    Unreadable,
    as_map,
    settled,
)


def view(graph: Growing, value: Any, shape: Sequence[int]) -> Any:
    if isinstance(value, Tensor):
        return value.reshape(shape)
    sizes = value.sizes
    atoms = [axis for group in value.axes[1:] for axis in group if sizes[axis] > 1]
    wanted = list(shape)
    if wanted[0] not in (BATCH, -1):
        raise Unreadable("it uses a view that mixes the images of a batch")
    if -1 in wanted:
        whole = BATCH * prod(sizes[axis] for axis in atoms)
        wanted[wanted.index(-1)] = whole // -prod(wanted)
        if wanted[0] != BATCH:
            raise Unreadable("it uses a view that mixes the images of a batch")
    groups: list[tuple[str, ...]] = [()]
    for size in wanted[1:]:
        group: list[str] = []
        while prod(sizes[axis] for axis in group) < size and atoms:
            group.append(atoms.pop(0))
        if prod(sizes[axis] for axis in group) != size:
            raise Unreadable("it uses a view that takes channels or places apart")
        groups.append(tuple(group))
    if atoms:
        raise Unreadable("it uses a view that takes channels or places apart")
    return Seen(value.name, value.shape, settled(value, tuple(groups)))


def permute(graph: Growing, value: Any, order: Sequence[int]) -> Any:
    if isinstance(value, Tensor):
        return value.permute(*order)
    turned = tuple(value.axes[dim] for dim in order)
    if order[0] % len(order) != 0:
        raise Unreadable("it exchanges the images of a batch with something else")
    return Seen(value.name, value.shape, settled(value, turned))


def transpose(graph: Growing, value: Any, a: int, b: int) -> Any:
    rank = value.ndim if isinstance(value, Tensor) else len(value.axes)
    order = list(range(rank))
    order[a], order[b] = order[b], order[a]
    return permute(graph, value, order)


def squeeze(graph: Growing, value: Any, dims: Any = None) -> Any:
    if isinstance(value, Tensor):
        return value.squeeze(dims) if dims is not None else value.squeeze()
    rank = len(value.axes)
    gone = {d % rank for d in ([dims] if isinstance(dims, int) else dims or range(1, rank))}
    kept = tuple(
        group
        for dim, group in enumerate(value.axes)
        if dim not in gone or dim == 0 or prod(value.sizes[axis] for axis in group) > 1
    )
    return Seen(value.name, value.shape, settled(value, kept))


def unsqueeze(graph: Growing, value: Any, dim: int) -> Any:
    if isinstance(value, Tensor):
        return value.unsqueeze(dim)
    axes = list(value.axes)
    place = dim % (len(axes) + 1)
    if place == 0:
        raise Unreadable("it puts a dimension in front of the batch")
    axes.insert(place, ())
    return Seen(value.name, value.shape, settled(value, tuple(axes)))


def expand(graph: Growing, value: Any, lengths: Sequence[int], implicit: bool = False) -> Any:
    if isinstance(value, Tensor) and lengths[0] != BATCH:
        return value.expand(*lengths)
    old = tuple(value.shape) if isinstance(value, Tensor) else (BATCH, *value.lengths)
    if isinstance(value, Seen) and len(old) != len(lengths):
        raise Unreadable("it puts a dimension in front of the batch")
    old = (1,) * (len(lengths) - len(old)) + old
    wanted = tuple(o if new == -1 else new for o, new in zip(old, lengths, strict=True))
    if wanted == old:
        return value
    if isinstance(value, Seen) and value.axes == MAP and wanted[2:] == old[2:]:
        return repeated(graph, value, wanted[1])
    return Spread(value, wanted[1:])


def repeated(graph: Growing, value: Seen, channels: int) -> Seen:
    """Return a map or a vector of one channel as one of several that are equal."""
    made = graph.add("concat", [value] * channels, (channels, *value.shape[1:]))
    return Seen(made.name, made.shape, MAP if len(value.shape) == 3 else BY_CHANNEL)


def select(graph: Growing, value: Any, dim: int, index: int) -> Any:
    if isinstance(value, Tensor):
        return value.select(dim, index)
    if dim % len(value.axes) == 0 or value.lengths[dim % len(value.axes) - 1] != 1:
        raise Unreadable("it takes one channel, row or image out of several")
    return squeeze(graph, value, dim)


def same(graph: Growing, value: Any, *given: Any, **named: Any) -> Any:
    return value


def cast(graph: Growing, value: Any, *, dtype: torch.dtype | None = None, **named: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype or value.dtype)
    if dtype not in (None, torch.float32, torch.float64):
        raise Unreadable(f"it uses a cast to {str(dtype).removeprefix('torch.')}")
    return value


def pad(graph: Growing, value: Any, around: Sequence[int], fill: float = 0.0) -> Seen:
    inner = as_map(value, "a padding")
    if fill != 0 or any(around[6:]):
        raise Unreadable("it uses a padding with something else than zeros around the map")
    if any(around[4:]):
        inner = _more_channels(graph, inner, *around[4:6])
    left, right, top, bottom = (*around, 0, 0, 0, 0)[:4]
    if not any((left, right, top, bottom)):
        return inner
    channels, height, width = inner.shape
    shape = (channels, height + top + bottom, width + left + right)
    return graph.add("pad", [inner], shape, {"around": (left, right, top, bottom)})


def _more_channels(graph: Growing, value: Seen, before: int, after: int) -> Seen:
    """Channels of zeros in front and behind, as a convolution of 1x1; negative ones take away."""
    channels = value.shape[0]
    taps = torch.zeros(before + channels + after, channels)
    for made in range(len(taps)):
        if 0 <= made - before < channels:
            taps[made, made - before] = 1
    settings = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    constants = {"weight": taps[:, :, None, None], "bias": torch.zeros(len(taps))}
    return graph.add("conv", [value], (len(taps), *value.shape[1:]), settings, constants)


def concat(graph: Growing, values: Sequence[Any], dim: int = 0) -> Seen:
    if not all(isinstance(value, Seen) for value in values):
        raise Unreadable("it uses cat with something that does not depend on the image")
    at = dim % len(values[0].axes)
    if any(value.axes != MAP for value in values):
        as_one = graph.as_row if len(values[0].axes) == 2 else graph.as_column
        values = [as_one(value) for value in values]
    axes = values[0].axes
    if axes[at] != ("C",) or any(value.axes != axes for value in values):
        raise Unreadable("it uses cat along something else than the channels")
    if any(value.shape[1:] != values[0].shape[1:] for value in values):
        raise Unreadable("it uses cat of maps of different sizes")
    shape = (sum(value.shape[0] for value in values), *values[0].shape[1:])
    made = graph.add("concat", values, shape)
    return Seen(made.name, made.shape, axes)


def split(graph: Growing, value: Any, size: int | Sequence[int], dim: int = 0) -> list[Seen]:
    if not isinstance(value, Seen) or value.axes[dim % len(value.axes)] != ("C",):
        raise Unreadable("it uses split along something else than the channels")
    channels = value.shape[0]
    sizes = size if not isinstance(size, int) else [size] * -(-channels // size)
    parts, start = [], 0
    for each in sizes:
        stop = min(channels, start + each)
        parts.append(slice(graph, value, dim, start, stop))
        start = stop
    return parts


def slice(
    graph: Growing, value: Any, dim: int = 0, start: Any = 0, stop: Any = None, step: int = 1
) -> Any:
    if isinstance(value, Tensor):
        raise Unreadable("it cuts a constant")
    group = value.axes[dim % len(value.axes)]
    size = prod(value.sizes[axis] for axis in group)
    first = 0 if start is None else min(size, start if start >= 0 else max(0, size + start))
    last = size if stop is None else min(size, stop if stop >= 0 else max(0, size + stop))
    if (first, last, step) == (0, size, 1) or dim % len(value.axes) == 0:
        return value
    if step > 1 and value.axes == MAP and group in (("H",), ("W",)):
        cut: Seen = slice(graph, value, dim, first, last)
        strides = (step, 1) if group == ("H",) else (1, step)
        size = tuple(-(-n // s) for n, s in zip(cut.shape[1:], strides, strict=True))
        settings = {"kernel": (1, 1), "stride": strides, "padding": (0, 0), "dilation": (1, 1)}
        return graph.add("maxpool", [cut], (cut.shape[0], *size), settings)
    if step != 1 or last <= first or group not in (("C",), ("H",), ("W",)):
        raise Unreadable("it cuts something else than a range of channels, rows or columns")
    if group != ("C",):
        ends = (-first, last - size)
        cut = pad(graph, value, (0, 0, *ends) if group == ("H",) else ends)
        return Seen(cut.name, cut.shape, value.axes)
    attributes = {"start": first, "stop": last}
    made = graph.add("slice", [value], (last - first, *value.shape[1:]), attributes)
    return Seen(made.name, made.shape, value.axes)
