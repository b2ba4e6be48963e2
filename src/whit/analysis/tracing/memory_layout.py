"""Receptive fields bound to memory.

Axis runs are bound to memory strides, so any view, slice or permutation of a tensor is understood
from its shape and strides alone, with no rule for each view operation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from whit.analysis.receptive_field import (
    AXES,
    AxisRun,
    ReceptiveField,
    UnknownReceptiveField,
    shift_windows,
    untracked_dims,
)


@dataclass(frozen=True)
class Layout:
    """A receptive field bound to the memory of one storage, to be read through any view of it."""

    field: ReceptiveField
    runs: tuple[tuple[AxisRun, int], ...]  # with memory stride in elements, ascending

    @classmethod
    def bind(cls, field: ReceptiveField, tensor: Tensor) -> Layout:
        """Lay `field` over the memory of `tensor`."""
        bound: list[tuple[AxisRun, int]] = []
        if not _has_strides(tensor):
            return cls(field, ())
        for dim, size, stride in zip(field.dims, tensor.shape, tensor.stride(), strict=True):
            if prod(run.size for run in dim) != size:
                dim = (AxisRun("", size),)
            for run in reversed(dim):
                if run.size > 1 and stride > 0:
                    bound.append((run, stride))
                    stride *= run.size
        return cls(field, tuple(sorted(bound, key=lambda pair: pair[1])))

    def read(self, tensor: Tensor) -> ReceptiveField:
        """Return the field of `tensor`, a view of this memory."""
        if not _has_strides(tensor):
            same = tuple(tensor.shape) == tuple(
                prod(run.size for run in d) for d in self.field.dims
            )
            unknown = ReceptiveField(untracked_dims(tensor.shape), None, cropped=True)
            return self.field if same else unknown
        sizes = zip(tensor.shape, tensor.stride(), strict=True)
        try:
            dims = tuple(self._runs_along(size, stride) for size, stride in sizes)
        except UnknownReceptiveField:
            return ReceptiveField(untracked_dims(tensor.shape), None, cropped=True)
        view = replace(self.field, dims=dims)
        windows, offset = self.field.windows, tensor.storage_offset()
        for run, stride in reversed(self.runs):
            windows = shift_windows(windows, run.axis, offset // stride * run.step)
            offset %= stride
        cropped = view.cropped or any(
            prod(run.size for run, _ in self.runs if run.axis == axis)
            > _count_distinct(view.runs(axis))
            for axis in AXES
        )
        return replace(view, windows=windows, cropped=cropped)

    def _runs_along(self, size: int, stride: int) -> tuple[AxisRun, ...]:
        """Return the runs that `size` elements, `stride` apart in memory, go through."""
        if size == 1:
            return ()
        if stride == 0:  # expanded: the same element again and again
            return (AxisRun("", size),)
        runs: list[AxisRun] = []
        while size > 1:
            start = [pair for pair in self.runs if pair[1] <= stride < pair[1] * pair[0].size]
            if not start or stride % start[-1][1]:
                raise UnknownReceptiveField("a view that crosses its dimensions")
            run, base = start[-1]
            every = stride // base
            if (size - 1) * every < run.size:
                runs.append(AxisRun(run.axis, size, run.step * every))
                break
            if run.size % every or size % (run.size // every):
                raise UnknownReceptiveField("a view that crosses its dimensions")
            runs.append(AxisRun(run.axis, run.size // every, run.step * every))
            size //= run.size // every
            stride = base * run.size
        return tuple(reversed(runs))


def _has_strides(tensor: Tensor) -> bool:
    """Return whether `tensor` lies in memory by strides, as sparse and opaque ones do not."""
    return tensor.layout == torch.strided and not tensor.is_nested


def _count_distinct(runs: list[AxisRun]) -> int:
    """Return how many different positions `runs` reach; 0 if they overlap."""
    reach, finest = 1, None
    for run in sorted(runs, key=lambda run: abs(run.step)):
        step = abs(run.step)
        if finest is not None and step < finest:
            return 0  # windows that overlap, as `Tensor.unfold` makes
        finest = step * run.size
        reach *= run.size
    return reach
