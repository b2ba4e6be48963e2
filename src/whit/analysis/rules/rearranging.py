"""Elements that change place: concatenation, indexing, flips, shuffles."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from whit.analysis.receptive_field import (
    AXES,
    Run,
    Sight,
    UnknownSight,
    line,
    merge,
    whole,
)
from whit.analysis.rules.call import Call, Finding, each, shifted
from whit.analysis.rules.reductions import dims_of


def pixel_shuffle(call: Call, kind: str | None) -> Finding:
    sight, factor = call.first, int(call.at(1))
    dims = list(sight.dims)
    channels = prod(run.size for run in dims[-3]) // factor**2
    if any(run.axis in AXES for run in dims[-3]):
        raise UnknownSight("positions move from channels back to the map")
    dims[-3] = (Run("", channels),)
    for at in (-2, -1):
        run = line(dims[at], at)
        dims[at] = (replace(run, size=run.size * factor, step=run.step / factor),)
    return Finding(Sight(tuple(dims), sight.windows), kind)


def pixel_unshuffle(call: Call, kind: str | None) -> Finding:
    sight, factor = call.first, int(call.at(1))
    dims, inner = list(sight.dims), []
    for at in (-2, -1):
        run = line(dims[at], at)
        inner.append(replace(run, size=factor))
        dims[at] = (replace(run, size=run.size // factor, step=run.step * factor),)
    dims[-3] = (*dims[-3], *inner)
    return Finding(Sight(tuple(dims), sight.windows), kind)


def cat(call: Call, kind: str | None) -> Finding:
    sights = [operand.sight for operand in call.data if operand.sight]
    at = int(call.at(1, 0)) % len(call.shape)
    if call.name == "stack":
        sights = [replace(sight, dims=(*sight.dims[:at], (), *sight.dims[at:])) for sight in sights]
    if any(run.axis in AXES for sight in sights for run in sight.dims[at]):
        return Finding(_padded_by_hand(call, at), kind)
    single = [replace(s, dims=(*s.dims[:at], (), *s.dims[at + 1 :])) for s in sights]
    shape = (*call.shape[:at], 1, *call.shape[at + 1 :])
    merged = merge(single, shape)
    joined = (*merged.dims[:at], (Run("", call.shape[at]),), *merged.dims[at + 1 :])
    return Finding(replace(merged, dims=joined), kind)


def _padded_by_hand(call: Call, at: int) -> Sight:
    """One map with constant rows or columns put before and after it."""
    if len(call.data) != 1 or call.name == "stack":
        raise UnknownSight("maps are put together along a spatial dimension")
    before = 0
    for operand in call.operands:
        if operand.sight:
            break
        before += operand.tensor.shape[at]
    sight = call.first
    run = line(sight.dims[at], at)
    windows = sight.windows and shifted(sight.windows, run.axis, -before * run.step)
    dims = list(sight.dims)
    dims[at] = (replace(run, size=call.shape[at]),)
    return Sight(tuple(dims), windows, sight.cut)


def flip(call: Call, kind: str | None) -> Finding:
    sight = call.first
    dims, windows = list(sight.dims), sight.windows
    for at in dims_of(call, 1):
        for run in dims[at]:
            if windows is not None:
                windows = shifted(windows, run.axis, (run.size - 1) * run.step)
        dims[at] = tuple(replace(run, step=-run.step) for run in dims[at])
    return Finding(replace(sight, dims=tuple(dims), windows=windows), kind)


def roll(call: Call, kind: str | None) -> Finding:
    """Moved by some positions; the seam, where the map wraps around, is left out."""
    sight = call.first
    windows = sight.windows
    shifts, over = each(call.at(1), 1), call.at(2, [])
    if not over:
        raise UnknownSight("the flattened tensor is rolled")
    for shift, at in zip(shifts, each(over, len(shifts)), strict=True):
        run = line(sight.dims[at], at)
        if windows is not None:
            windows = shifted(windows, run.axis, -shift * run.step)
    return Finding(replace(sight, windows=windows), kind)


def index(call: Call, kind: str | None) -> Finding:
    """Indexing along dims without positions keeps the field; along a map it is unknown."""
    sight = call.first
    if call.name == "index_select":
        indexed = [int(call.at(1)) % len(sight.dims)]
    else:
        indexed = [at for at, index in enumerate(call.args[1]) if index is not None]
    if any(run.axis in ("h", "w", "n") for at in indexed for run in sight.dims[at]):
        raise UnknownSight("positions are picked by index")
    if len(indexed) != 1 or len(call.shape) != len(sight.dims) or len(call.data) != 1:
        raise UnknownSight("several dimensions are indexed at once")
    dims = list(sight.dims)
    dims[indexed[0]] = (Run("", call.shape[indexed[0]]),)
    return Finding(replace(sight, dims=tuple(dims)), kind)


def sample(call: Call, kind: str | None) -> Finding:
    """Each place of a map of the same size reads wherever a grid says: it may be anywhere."""
    sight = call.first
    if len(sight.dims) != 4 or call.shape != tuple(call.data[0].tensor.shape):
        raise UnknownSight("places are sampled to another size")
    windows = None if sight.windows is None else whole(sight.windows, sight.dims, (2, 3))
    return Finding(Sight(sight.dims, windows, sight.cut), kind)


def glu(call: Call, kind: str | None) -> Finding:
    sight = call.first
    at = int(call.at(1, -1)) % len(sight.dims)
    if any(run.axis in AXES for run in sight.dims[at]):
        raise UnknownSight("halves of a map are multiplied")
    dims = (*sight.dims[:at], (Run("", call.shape[at]),), *sight.dims[at + 1 :])
    return Finding(Sight(dims, sight.windows, sight.cut), kind)


def embedding(call: Call, kind: str | None) -> Finding:
    return Finding(Sight((*call.first.dims, (Run("", call.shape[-1]),)), call.first.windows), kind)
