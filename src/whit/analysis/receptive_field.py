"""What one element of a tensor sees of the input image, and where its positions lie in memory.

Every tensor of a traced forward pass is described by its *dims*: for each dimension the runs it is
made of, from the outermost to the innermost. A run is a stretch of images ("n"), of rows ("h"), of
columns ("w") or of anything else (""). Flattening (N, C, H, W) gives the dims `n`, `"" h w`.
Runs are bound to memory strides, so any view, slice or permutation of a tensor is understood from
its shape and strides alone, with no rule for each view operation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import prod

from torch import Tensor

AXES = ("h", "w")


class UnknownSight(Exception):
    """A tensor or operation whose view of the input cannot be told; the text says why."""


@dataclass(frozen=True)
class Run:
    """A stretch of one dimension; `step` is input pixels from one index to the next."""

    axis: str  # "n", "h", "w" or ""
    size: int
    step: Fraction = Fraction(0)


Dims = tuple[tuple[Run, ...], ...]


@dataclass(frozen=True)
class Window:
    """The input pixels, in one axis, that the element at index 0 depends on: start, start+size.

    Not clipped to the image. `fixed`: every position sees this same window, as after a
    squeeze-and-excitation, so later layers cannot widen it.
    """

    start: Fraction
    size: Fraction
    fixed: bool = False

    @property
    def stop(self) -> Fraction:
        return self.start + self.size


@dataclass(frozen=True)
class Sight:
    """Dims of a tensor and the window of its elements; `windows` None: unknown."""

    dims: Dims
    windows: tuple[Window, Window] | None  # rows, columns
    cut: bool = False  # part of a map, as a slice is
    gain: float = 1.0  # what a sum over positions has been multiplied by so far
    summed: bool = False  # positions were summed, not averaged
    weighted: frozenset[str] = frozenset()  # axes along which stored weights were multiplied in
    jumps: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))  # where one position is left

    def runs(self, axis: str) -> list[Run]:
        """Return the runs of `axis` longer than one, in all dims."""
        return [run for dim in self.dims for run in dim if run.axis == axis and run.size > 1]

    @property
    def positions(self) -> int:
        """Return how many positions of the map there are."""
        return prod(run.size for axis in AXES for run in self.runs(axis))

    def plain(self) -> Sight:
        """Return this sight with nothing pending: no cut, no sum, no weighting."""
        return Sight(self.dims, self.windows)

    def jump(self, axis: str) -> Fraction:
        """Return input pixels between neighbouring positions; the last known where one is left."""
        found = [
            (at == 1, abs(run.step))  # channels may hold positions too, as after an unshuffle
            for at, dim in enumerate(self.dims)
            for run in dim
            if run.axis == axis
        ]
        return min(found)[1] if found else self.jumps[AXES.index(axis)]


def plain_dims(shape: Iterable[int]) -> Dims:
    """Return dims that know nothing but their sizes."""
    return tuple((Run("", size),) if size > 1 else () for size in shape)


def image_sight(shape: Iterable[int]) -> Sight:
    """Return the sight of the input itself, (N, C, H, W): each pixel sees itself."""
    images, channels, height, width = shape
    one = Fraction(1)
    dims = ((Run("n", images),), (Run("", channels),), (Run("h", height, one),))
    pixel = Window(Fraction(0), one)
    return Sight((*dims, (Run("w", width, one),)), (pixel, pixel))


def line(dim: tuple[Run, ...], index: int) -> Run:
    """Return `dim` as one run: a kernel slides along it. Upsampled runs get fractions of a step."""
    runs = [run for run in dim if run.size > 1]
    axes = {run.axis for run in runs}
    size = prod(run.size for run in runs)
    if not axes & {*AXES}:
        return Run(axes.pop() if len(axes) == 1 else "", size)
    if len(axes & {*AXES}) > 1 or "n" in axes or runs[0].axis == "":
        raise UnknownSight(f"a window slides along dimension {index}, which mixes axes")
    axis = runs[0].axis
    inner = prod(run.size for run in runs[1:])
    covered = all(run.axis == axis for run in runs)
    if covered and any(run.step != later.step * later.size for run, later in pairwise(runs)):
        raise UnknownSight(f"a window slides along dimension {index}, which jumps")
    return Run(axis, size, runs[-1].step if covered else runs[0].step / inner)


def contract(windows: tuple[Window, Window], runs: Iterable[Run]) -> tuple[Window, Window]:
    """Return the windows of an element that depends on all of `runs`."""
    result = dict(zip(AXES, windows, strict=True))
    for run in runs:
        if run.axis in result and not result[run.axis].fixed:
            result[run.axis] = _widened(result[run.axis], (run.size - 1) * run.step)
    return result["h"], result["w"]


def _widened(window: Window, reach: Fraction) -> Window:
    return replace(
        window, start=window.start + min(reach, Fraction(0)), size=window.size + abs(reach)
    )


def whole(windows: tuple[Window, Window], dims: Dims, over: Iterable[int]) -> tuple[Window, Window]:
    """Return the windows after each position was mixed with all others of the dims `over`."""
    runs = [run for index in over for run in dims[index]]
    mixed = contract(windows, runs)
    axes = {run.axis for run in runs if run.size > 1}
    rows, cols = (
        replace(window, fixed=window.fixed or axis in axes)
        for axis, window in zip(AXES, mixed, strict=True)
    )
    return rows, cols


def merge(sights: list[Sight], shape: tuple[int, ...]) -> Sight:
    """Return the sight of an elementwise result of broadcast `sights`.

    An element depends on the union of what its operands see. Centred branches give the largest.
    """
    dims = tuple(_merged_dim(sights, len(shape) - at, size) for at, size in enumerate(shape))
    cut = any(sight.cut for sight in sights)
    if any(sight.windows is None for sight in sights):
        return Sight(dims, None, cut)
    rows, cols = (_merged_window(sights, number, axis) for number, axis in enumerate(AXES))
    return Sight(dims, (rows, cols), cut)


def _merged_dim(sights: list[Sight], from_right: int, size: int) -> tuple[Run, ...]:
    found: list[tuple[Run, ...]] = []
    for sight in sights:
        if len(sight.dims) >= from_right:
            dim = sight.dims[len(sight.dims) - from_right]
            if prod(run.size for run in dim) == size:
                found.append(dim)
    spatial = [dim for dim in found if any(run.axis in AXES for run in dim)]
    images = [dim for dim in found if any(run.axis == "n" for run in dim)]
    return (spatial or images or found or [(Run("", size),)])[0]


def _merged_window(sights: list[Sight], number: int, axis: str) -> Window:
    moving, still = [], []
    for sight in sights:
        assert sight.windows is not None
        window = sight.windows[number]
        runs = sight.runs(axis)
        if runs and not window.fixed:
            moving.append((window, _lie(sight, axis), runs))
        else:
            still.append(window)
    if len({lie for _, lie, _ in moving}) > 1:
        raise UnknownSight("branches whose positions lie at different input pixels meet")
    windows = [window for window, _, _ in moving]
    if still and moving:
        for window, _, runs in moving:
            for run in runs:
                window = _widened(window, (run.size - 1) * run.step)
            still.append(window)
        return replace(_hull(still), fixed=True)
    return _hull(windows) if moving else replace(_hull(still), fixed=any(w.fixed for w in still))


def _lie(sight: Sight, axis: str) -> tuple[tuple[int, Fraction], ...]:
    """Return where the runs of `axis` lie: dimension from the right, and step."""
    return tuple(
        (len(sight.dims) - at, run.step)
        for at, dim in enumerate(sight.dims)
        for run in dim
        if run.axis == axis and run.size > 1
    )


def _hull(windows: list[Window]) -> Window:
    if any(window.start.denominator > 1 for window in windows):
        # fractions come from upsampling, where a start is only a centre: take the largest
        return max(windows, key=lambda window: window.size)
    start = min(window.start for window in windows)
    return Window(start, max(window.stop for window in windows) - start)


@dataclass(frozen=True)
class Layout:
    """A sight bound to the memory of one storage, from which any view of it can be read."""

    sight: Sight
    runs: tuple[tuple[Run, int], ...]  # with memory stride in elements, ascending

    @classmethod
    def bind(cls, sight: Sight, tensor: Tensor) -> Layout:
        """Lay `sight` over the memory of `tensor`."""
        bound: list[tuple[Run, int]] = []
        for dim, size, stride in zip(sight.dims, tensor.shape, tensor.stride(), strict=True):
            if prod(run.size for run in dim) != size:
                dim = (Run("", size),)
            for run in reversed(dim):
                if run.size > 1 and stride > 0:
                    bound.append((run, stride))
                    stride *= run.size
        return cls(sight, tuple(sorted(bound, key=lambda pair: pair[1])))

    def read(self, tensor: Tensor) -> Sight:
        """Return the sight of `tensor`, a view of this memory."""
        sizes = zip(tensor.shape, tensor.stride(), strict=True)
        try:
            dims = tuple(self._stretch(size, stride) for size, stride in sizes)
        except UnknownSight:
            return Sight(plain_dims(tensor.shape), None, cut=True)
        view = replace(self.sight, dims=dims)
        windows = self.sight.windows
        if windows is not None:
            offset, shift = tensor.storage_offset(), {"h": Fraction(0), "w": Fraction(0)}
            for run, stride in reversed(self.runs):
                if run.axis in shift:
                    shift[run.axis] += offset // stride * run.step
                offset %= stride
            windows = (_moved(windows[0], shift["h"]), _moved(windows[1], shift["w"]))
        cut = view.cut or any(self._total(axis) > _tiled(view.runs(axis)) for axis in AXES)
        return replace(view, windows=windows, cut=cut)

    def _total(self, axis: str) -> int:
        return prod(run.size for run, _ in self.runs if run.axis == axis)

    def _stretch(self, size: int, stride: int) -> tuple[Run, ...]:
        """Return the runs that `size` elements, `stride` apart in memory, go through."""
        if size == 1:
            return ()
        if stride == 0:  # expanded: the same element again and again
            return (Run("", size),)
        found: list[Run] = []
        while size > 1:
            start = [pair for pair in self.runs if pair[1] <= stride < pair[1] * pair[0].size]
            if not start or stride % start[-1][1]:
                raise UnknownSight("a view that crosses its dimensions")
            run, base = start[-1]
            every = stride // base
            if (size - 1) * every < run.size:
                found.append(Run(run.axis, size, run.step * every))
                break
            if run.size % every or size % (run.size // every):
                raise UnknownSight("a view that crosses its dimensions")
            found.append(Run(run.axis, run.size // every, run.step * every))
            size //= run.size // every
            stride = base * run.size
        return tuple(reversed(found))


def _moved(window: Window, shift: Fraction) -> Window:
    return window if window.fixed else replace(window, start=window.start + shift)


def _tiled(runs: list[Run]) -> int:
    """Return how many different positions `runs` reach: overlapping ones do not add up."""
    reach, finest = 1, None
    for run in sorted(runs, key=lambda run: abs(run.step)):
        step = abs(run.step)
        if finest is not None and step < finest:
            return 0  # windows that overlap, as `Tensor.unfold` makes
        finest = step * run.size
        reach *= run.size
    return reach
