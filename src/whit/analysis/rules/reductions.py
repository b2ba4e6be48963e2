"""Reductions, normalisations and softmax: positions that see one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

from whit.analysis.receptive_field import (
    AXES,
    Run,
    Sight,
    whole,
)
from whit.analysis.rules.call import (
    Call,
    Finding,
    contracted,
    is_whole_mean,
    uses_batch_statistics,
)
from whit.analysis.rules.products import pointwise


def dims_of(call: Call, position: int) -> list[int]:
    rank = call.data[0].tensor.dim()
    given = call.at(position)
    if given is None or given == []:
        return list(range(rank))
    return sorted({at % rank for at in (given if isinstance(given, (list, tuple)) else [given])})


def reduce(position: int) -> Callable[[Call, str | None], Finding]:
    def rule(call: Call, kind: str | None) -> Finding:
        sight = call.first
        if call.name in ("max", "min") and len(call.data) == 2:
            return pointwise(call, kind)
        over = dims_of(call, position)
        runs = [run for at in over for run in sight.dims[at]]
        kept = [dim for at, dim in enumerate(sight.dims) if at not in over]
        if len(call.shape) == len(sight.dims):
            kept = [() if at in over else dim for at, dim in enumerate(sight.dims)]
        result = Sight(tuple(kept), contracted(sight, runs), sight.cut)
        if call.name in ("mean", "sum"):
            return _averaged(call.name, sight, result, runs)
        return Finding(result, kind)

    return rule


def _averaged(name: str, sight: Sight, result: Sight, runs: list[Run]) -> Finding:
    """Tell a mean over the whole map from other means and sums, also when written in steps."""
    axes = {run.axis for run in runs if run.size > 1}
    if axes & sight.weighted:  # weights were multiplied in before: a product with weights
        return Finding(result.plain(), "linear" if result.positions == 1 else "conv")
    if name == "mean":
        whole_map = bool(axes & {*AXES}) and is_whole_mean(sight, result)
        kept = replace(result, gain=sight.gain, summed=sight.summed)
        return Finding(kept, "gap" if whole_map else "mean")
    gain = sight.gain * prod(run.size for run in runs if run.axis in AXES)
    kept = replace(result, gain=gain, summed=sight.summed or bool(axes & {*AXES}))
    if kept.summed and is_whole_mean(replace(sight, summed=True, gain=gain), result):
        return Finding(kept, "gap")  # divided by the area beforehand
    if kept.cut:
        kept = replace(kept, summed=False, gain=1.0)
    return Finding(kept, "sum")


def mix(position: int) -> Callable[[Call, str | None], Finding]:
    """Operations that keep the shape and mix all positions along given dims."""

    def rule(call: Call, kind: str | None) -> Finding:
        sight = call.first
        over = dims_of(call, position)
        windows = None if sight.windows is None else whole(sight.windows, sight.dims, over)
        return Finding(Sight(sight.dims, windows, sight.cut), kind)

    return rule


def layer_norm(call: Call, kind: str | None) -> Finding:
    sight, count = call.first, len(call.args[1])
    over = range(len(sight.dims) - count, len(sight.dims))
    windows = None if sight.windows is None else whole(sight.windows, sight.dims, over)
    return Finding(Sight(sight.dims, windows, sight.cut), kind)


def group_norm(call: Call, kind: str | None) -> Finding:
    sight = call.first
    over = range(1, len(sight.dims))
    windows = None if sight.windows is None else whole(sight.windows, sight.dims, over)
    return Finding(Sight(sight.dims, windows, sight.cut), kind)


def batch_norm(call: Call, kind: str | None) -> Finding:
    """Fixed statistics change no field; statistics of the batch see whole maps."""
    sight = call.first
    # F.instance_norm reshapes to (1, N C, H, W): there the images stand among the channels
    instances = any(run.axis == "n" for run in sight.dims[1])
    if instances:
        kind = "instancenorm"
    windows = sight.windows
    if uses_batch_statistics(call) and windows is not None:
        windows = whole(windows, sight.dims, [0, *range(2, len(sight.dims))])
    return Finding(Sight(sight.dims, windows, sight.cut), kind)
