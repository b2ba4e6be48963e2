"""Reductions, normalizations and softmax: positions that see one another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod

from whit.analysis.receptive_field import AXES, AxisRun, ReceptiveField, extend_windows
from whit.analysis.rules.call import OpCall, Rule, RuleResult, is_global_mean
from whit.analysis.rules.products import pointwise


def reduce(position: int) -> Rule:
    """Reductions over the dims that argument `position` names."""

    def rule(call: OpCall, kind: str | None) -> RuleResult:
        field = call.field
        if call.name in ("max", "min") and len(call.fields) == 2:
            return pointwise(call, kind)
        over = call.reduced_dims(position)
        runs = [run for i in over for run in field.dims[i]]
        dims = [dim for i, dim in enumerate(field.dims) if i not in over]
        if len(call.shape) == len(field.dims):
            dims = [() if i in over else dim for i, dim in enumerate(field.dims)]
        windows = extend_windows(field.windows, runs)
        result = ReceptiveField(tuple(dims), windows, field.cropped)
        if call.name in ("mean", "sum"):
            return _classify_average(call.name, field, result, runs)
        return RuleResult(result, kind)

    return rule


def _classify_average(
    name: str, field: ReceptiveField, result: ReceptiveField, runs: list[AxisRun]
) -> RuleResult:
    """Distinguish a mean over the full map, also in several steps, from other means and sums."""
    axes = {run.axis for run in runs if run.size > 1}
    if axes & field.weighted_axes:  # weights were multiplied in before: a product with weights
        kind = "linear" if result.num_positions == 1 else "conv"
        return RuleResult(result.without_flags(), kind)
    if name == "mean":
        full_map = bool(axes & {*AXES}) and is_global_mean(field, result)
        result = replace(result, gain=field.gain, summed=field.summed)
        return RuleResult(result, "gap" if full_map else "mean")
    gain = field.gain * prod(run.size for run in runs if run.axis in AXES)
    result = replace(result, gain=gain, summed=field.summed or bool(axes & {*AXES}))
    if result.summed and is_global_mean(replace(field, summed=True, gain=gain), result):
        return RuleResult(result, "gap")  # divided by the area beforehand
    if result.cropped:
        result = replace(result, summed=False, gain=1.0)
    return RuleResult(result, "sum")


def mix_dims(position: int) -> Rule:
    """Operations that keep the shape and mix all positions along given dims."""

    def rule(call: OpCall, kind: str | None) -> RuleResult:
        return RuleResult(call.field.mix(call.reduced_dims(position)), kind)

    return rule


def select(position: int) -> Rule:
    """Operations that pick values along the dim that argument `position` names: the last without.

    Each result may be any of the values there.
    """

    def rule(call: OpCall, kind: str | None) -> RuleResult:
        (over,) = call.reduced_dims(position, default=-1)
        field, shape = call.field.mix([over]), call.shape
        if len(shape) < len(field.dims):
            dims = [dim for i, dim in enumerate(field.dims) if i != over]
            return RuleResult(replace(field, dims=tuple(dims)), kind)
        size = shape[over]
        if size != call.image_tensor.shape[over]:
            field = field.with_dim(over, *([AxisRun("", size)] if size > 1 else []))
        return RuleResult(field, kind)

    return rule


def fourier(call: OpCall, kind: str | None) -> RuleResult:
    """Each frequency depends on all positions."""
    field = call.field.mix(call.reduced_dims(1))
    for i, size in enumerate(call.shape):
        if size != call.image_tensor.shape[i]:
            run = field.merge_runs(i)
            field = field.with_dim(i, replace(run, size=size))
    return RuleResult(field, kind)


def _normalize(field: ReceptiveField, kind: str | None, over: Iterable[int]) -> RuleResult:
    """Keep the windows: what is subtracted and divided by is one number for all positions.

    Strictly each value then depends on all positions of dims `over`. That is reported beside the
    field, whose size is reckoned from the windows alone, as for a network without normalization.
    """
    runs = [run for i in over for run in field.dims[i] if run.size > 1]
    axes = frozenset(run.axis for run in runs) & {*AXES}
    return RuleResult(ReceptiveField(field.dims, field.windows, field.cropped), kind, axes)


def layer_norm(call: OpCall, kind: str | None) -> RuleResult:
    rank = len(call.field.dims)
    return _normalize(call.field, kind, range(rank - len(call.args[1]), rank))


def group_norm(call: OpCall, kind: str | None) -> RuleResult:
    return _normalize(call.field, kind, range(1, len(call.field.dims)))


def batch_norm(call: OpCall, kind: str | None) -> RuleResult:
    """Fixed statistics change no field; statistics of the batch are those of full maps."""
    field = call.field
    # F.instance_norm reshapes to (1, N C, H, W): there the images are among the channels
    if any(run.axis == "n" for run in field.dims[1]):
        kind = "instancenorm"
    over = [0, *range(2, len(field.dims))] if call.uses_batch_statistics else []
    return _normalize(field, kind, over)
