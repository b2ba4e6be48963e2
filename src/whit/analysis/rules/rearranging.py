"""Elements that change position: concatenation, indexing, flips, shuffles."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import takewhile
from math import prod

import torch

from whit.analysis.receptive_field import (
    AXES,
    AxisRun,
    ReceptiveField,
    UnknownReceptiveField,
    merge_fields,
    shift_windows,
    untracked_dims,
)
from whit.analysis.rules.call import OpCall, Operand, RuleResult, broadcast_ints


def pixel_shuffle(call: OpCall, kind: str | None) -> RuleResult:
    field, factor = call.field, int(call.arg(1))
    if any(run.axis in AXES for run in field.dims[-3]):
        raise UnknownReceptiveField("positions move from channels back to the map")
    channels = prod(run.size for run in field.dims[-3]) // factor**2
    result = field.without_flags().with_dim(-3, AxisRun("", channels))
    for i in (-2, -1):
        result = result.slide(i, call.shape[i], Fraction(1, factor))
    return RuleResult(result, kind)


def pixel_unshuffle(call: OpCall, kind: str | None) -> RuleResult:
    field, factor = call.field, int(call.arg(1))
    inner = [replace(field.merge_runs(i), size=factor) for i in (-2, -1)]
    result = field.without_flags().with_dim(-3, *field.dims[-3], *inner)
    for i in (-2, -1):
        result = result.slide(i, call.shape[i], factor)
    return RuleResult(result, kind)


def cat(call: OpCall, kind: str | None) -> RuleResult:
    fields = call.fields
    joined = int(call.arg(1, 0)) % len(call.shape)
    if call.name == "stack":
        fields = [
            replace(field, dims=(*field.dims[:joined], (), *field.dims[joined:]))
            for field in fields
        ]
    if any(run.axis in AXES for field in fields for run in field.dims[joined]):
        return RuleResult(_pad_with_constants(call, joined), kind)
    single = [field.with_dim(joined) for field in fields]
    merged = merge_fields(single, (*call.shape[:joined], 1, *call.shape[joined + 1 :]))
    return RuleResult(merged.with_dim(joined, AxisRun("", call.shape[joined])), kind)


def _pad_with_constants(call: OpCall, joined: int) -> ReceptiveField:
    """One map with constant rows or columns put before and after it."""
    if len(call.fields) != 1 or call.name == "stack":
        raise UnknownReceptiveField("maps are put together along a spatial dimension")
    constants = takewhile(lambda operand: not operand.field, call.operands)
    before = sum(operand.tensor.shape[joined] for operand in constants)
    field = ReceptiveField(call.field.dims, call.field.windows, call.field.cropped)
    return field.slide(joined, call.shape[joined], offset=-before)


def channel_shuffle(call: OpCall, kind: str | None) -> RuleResult:
    field = call.field
    if any(run.axis in AXES for run in field.dims[1]):
        raise UnknownReceptiveField("positions move among the channels")
    return RuleResult(field, kind)


def repeat(call: OpCall, kind: str | None) -> RuleResult:
    """Adjacent copies, along dims without positions."""
    times = [int(number) for number in call.args[1]]
    dims = [()] * (len(times) - len(call.field.dims)) + [*call.field.dims]
    for i, number in enumerate(times):
        if number > 1 and any(run.axis in AXES for run in dims[i]):
            raise UnknownReceptiveField("a map is repeated")
        if number != 1:
            dims[i] = (AxisRun("", call.shape[i]),)
    return RuleResult(replace(call.field, dims=tuple(dims)), kind)


def rot90(call: OpCall, kind: str | None) -> RuleResult:
    turns, plane = int(call.arg(1, 1)) % 4, [int(i) for i in call.arg(2, [0, 1])]
    first, second = (i % len(call.field.dims) for i in plane)
    field = call.field
    if turns in (1, 2):
        field = _flip(field, [second])
    if turns == 2:
        field = _flip(field, [first])
    if turns % 2:
        dims = list(field.dims)
        dims[first], dims[second] = dims[second], dims[first]
        field = replace(field, dims=tuple(dims))
    return RuleResult(_flip(field, [second]) if turns == 3 else field, kind)


def flip(call: OpCall, kind: str | None) -> RuleResult:
    return RuleResult(_flip(call.field, call.reduced_dims(1)), kind)


def _flip(field: ReceptiveField, over: list[int]) -> ReceptiveField:
    dims, windows = list(field.dims), field.windows
    for i in over:
        for run in dims[i]:
            windows = shift_windows(windows, run.axis, (run.size - 1) * run.step)
        dims[i] = tuple(replace(run, step=-run.step) for run in dims[i])
    return replace(field, dims=tuple(dims), windows=windows)


def roll(call: OpCall, kind: str | None) -> RuleResult:
    """Shifted by some positions; the seam, where the map wraps around, is ignored."""
    field = call.field
    windows = field.windows
    shifts, over = broadcast_ints(call.arg(1), 1), call.arg(2, [])
    if not over:
        raise UnknownReceptiveField("the flattened tensor is rolled")
    for shift, i in zip(shifts, broadcast_ints(over, len(shifts)), strict=True):
        run = field.merge_runs(i)
        windows = shift_windows(windows, run.axis, -shift * run.step)
    return RuleResult(replace(field, windows=windows), kind)


def index(call: OpCall, kind: str | None) -> RuleResult:
    """Indexing along dims without positions keeps the field; along a map it is unknown."""
    field = call.field
    table = call.find_operand(call.args[0])
    if call.name == "index" and not table.field and len(call.args[1]) == 1:
        return _look_up(call, table, kind)
    if call.name == "index_select":
        indexed = [int(call.arg(1)) % len(field.dims)]
    else:
        indexed = [i for i, indices in enumerate(call.args[1]) if indices is not None]
    if any(run.axis in ("h", "w", "n") for i in indexed for run in field.dims[i]):
        raise UnknownReceptiveField("positions are picked by index")
    if len(indexed) != 1 or len(call.shape) != len(field.dims) or len(call.fields) != 1:
        raise UnknownReceptiveField("several dimensions are indexed at once")
    return RuleResult(field.with_dim(indexed[0], AxisRun("", call.shape[indexed[0]])), kind)


def _look_up(call: OpCall, table: Operand, kind: str | None) -> RuleResult:
    """Rows of a table that does not depend on the image, by an index that does."""
    rows = call.find_operand(call.args[1][0])
    if rows.field is None or rows.tensor.dtype == torch.bool:
        raise UnknownReceptiveField("positions are picked by index")
    dims = (*rows.field.dims, *untracked_dims(table.tensor.shape[1:]))
    field = ReceptiveField(dims, rows.field.windows, rows.field.cropped)
    return RuleResult(field, "embedding" if table.stored else kind)


def index_put(call: OpCall, kind: str | None) -> RuleResult:
    """Single elements are overwritten, with values that depend on no image."""
    if len(call.fields) != 1 or not call.find_operand(call.args[0]).field:
        raise UnknownReceptiveField("positions are written by index")
    return RuleResult(call.field, kind)


def grid_sample(call: OpCall, kind: str | None) -> RuleResult:
    """Each position of a map of the same size reads wherever a grid says: it may be anywhere."""
    field = call.field
    if len(field.dims) != 4 or call.shape != tuple(call.image_tensor.shape):
        raise UnknownReceptiveField("positions are sampled to another size")
    return RuleResult(field.mix((2, 3)), kind)


def glu(call: OpCall, kind: str | None) -> RuleResult:
    field = call.field
    halved = int(call.arg(1, -1)) % len(field.dims)
    if any(run.axis in AXES for run in field.dims[halved]):
        raise UnknownReceptiveField("halves of a map are multiplied")
    dims = field.with_dim(halved, AxisRun("", call.shape[halved])).dims
    return RuleResult(ReceptiveField(dims, field.windows, field.cropped), kind)


def embedding(call: OpCall, kind: str | None) -> RuleResult:
    dims = (*call.field.dims, (AxisRun("", call.shape[-1]),))
    return RuleResult(ReceptiveField(dims, call.field.windows), kind)
