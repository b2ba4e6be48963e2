"""The receptive field of every element of a tensor.

Every tensor of a traced forward pass is described by its *dims*: for each dimension the axis runs
it is made of, from the outermost to the innermost. A run is a stretch of images ("n"), of rows
("h"), of columns ("w") or of anything else (""). Flattening (N, C, H, W) gives the dims `n`,
`"" h w`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import prod

AXES = ("h", "w")


class UnknownReceptiveField(Exception):
    """A tensor or operation whose receptive field cannot be computed; the text says why."""


@dataclass(frozen=True)
class AxisRun:
    """A stretch of one dimension; `step` is input pixels from one index to the next."""

    axis: str  # "n", "h", "w" or ""
    size: int
    step: Fraction = Fraction(0)


Dims = tuple[tuple[AxisRun, ...], ...]


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


Windows = tuple[Window, Window]  # rows, columns


@dataclass(frozen=True)
class ReceptiveField:
    """Dims of a tensor and the window of its elements; `windows` None: unknown."""

    dims: Dims
    windows: Windows | None
    cropped: bool = False  # part of a map, as a slice is
    gain: float = 1.0  # what a sum over positions has been multiplied by so far
    summed: bool = False  # positions were summed, not averaged
    weighted_axes: frozenset[str] = frozenset()  # along these, stored weights were multiplied in
    jumps: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))  # for axes of one position

    def runs(self, axis: str) -> list[AxisRun]:
        """Return the runs of `axis` longer than one, in all dims."""
        return [run for dim in self.dims for run in dim if run.axis == axis and run.size > 1]

    @property
    def num_positions(self) -> int:
        """The number of positions of the map."""
        return prod(run.size for axis in AXES for run in self.runs(axis))

    def without_flags(self) -> ReceptiveField:
        """Return this field as of a map that is neither cropped, summed nor weighted."""
        return ReceptiveField(self.dims, self.windows)

    def jump(self, axis: str) -> Fraction:
        """Return input pixels between neighboring positions; the last known for one position."""
        steps = [
            (index == 1, abs(run.step))  # channels may hold positions too, as after an unshuffle
            for index, dim in enumerate(self.dims)
            for run in dim
            if run.axis == axis
        ]
        return min(steps)[1] if steps else self.jumps[AXES.index(axis)]

    def merge_runs(self, index: int) -> AxisRun:
        """Return dim `index` as one run, for a kernel that slides along it.

        Upsampled runs get fractions of a step. Raises UnknownReceptiveField where the positions
        of the dim are not evenly spaced.
        """
        runs = [run for run in self.dims[index] if run.size > 1]
        axes = {run.axis for run in runs}
        size = prod(run.size for run in runs)
        if not axes & {*AXES}:
            return AxisRun(axes.pop() if len(axes) == 1 else "", size)
        if len(axes & {*AXES}) > 1 or "n" in axes or runs[0].axis == "":
            raise UnknownReceptiveField(
                f"a window slides along dimension {index}, which mixes axes"
            )
        axis = runs[0].axis
        inner = prod(run.size for run in runs[1:])
        covered = all(run.axis == axis for run in runs)
        if covered and any(run.step != later.step * later.size for run, later in pairwise(runs)):
            raise UnknownReceptiveField(f"a window slides along dimension {index}, which jumps")
        return AxisRun(axis, size, runs[-1].step if covered else runs[0].step / inner)

    def with_dim(self, index: int, *runs: AxisRun) -> ReceptiveField:
        """Return this field with `runs` as dim `index`."""
        dims = list(self.dims)
        dims[index] = runs
        return replace(self, dims=tuple(dims))

    def slide(
        self,
        index: int,
        size: int,
        stride: Fraction | int = 1,
        kernel: int = 1,
        offset: Fraction | int = 0,
    ) -> ReceptiveField:
        """Return the field after a window slid along dim `index`, which then has `size` positions.

        The window is `kernel` positions wide, begins at position `offset`, and moves by `stride`.
        Raises UnknownReceptiveField as `merge_runs` does.
        """
        run = self.merge_runs(index)
        windows = extend_windows(self.windows, [replace(run, size=kernel)])
        windows = shift_windows(windows, run.axis, offset * run.step)
        field = self.with_dim(index, replace(run, size=size, step=run.step * stride))
        return replace(field, windows=windows)

    def mix(self, dims: Iterable[int]) -> ReceptiveField:
        """Return the field after each position was mixed with all others of `dims`."""
        runs = [run for index in dims for run in self.dims[index]]
        windows = extend_windows(self.windows, runs)
        if windows is not None:
            axes = {run.axis for run in runs if run.size > 1}
            rows, columns = (
                replace(window, fixed=window.fixed or axis in axes)
                for axis, window in zip(AXES, windows, strict=True)
            )
            windows = rows, columns
        return ReceptiveField(self.dims, windows, self.cropped)


def untracked_dims(shape: Iterable[int]) -> Dims:
    """Return dims of which only the sizes are known."""
    return tuple((AxisRun("", size),) if size > 1 else () for size in shape)


def image_field(shape: Iterable[int]) -> ReceptiveField:
    """Return the field of the input itself, (N, C, H, W): each pixel sees itself."""
    images, channels, height, width = shape
    one = Fraction(1)
    dims = ((AxisRun("n", images),), (AxisRun("", channels),), (AxisRun("h", height, one),))
    pixel = Window(Fraction(0), one)
    return ReceptiveField((*dims, (AxisRun("w", width, one),)), (pixel, pixel))


def extend_windows(windows: Windows | None, runs: Iterable[AxisRun]) -> Windows | None:
    """Return the windows of an element that depends on all of `runs`."""
    if windows is None:
        return None
    result = dict(zip(AXES, windows, strict=True))
    for run in runs:
        if run.axis in result and not result[run.axis].fixed:
            result[run.axis] = _extend_window(result[run.axis], run)
    return result["h"], result["w"]


def _extend_window(window: Window, run: AxisRun) -> Window:
    reach = (run.size - 1) * run.step
    return replace(
        window, start=window.start + min(reach, Fraction(0)), size=window.size + abs(reach)
    )


def shift_windows(windows: Windows | None, axis: str, offset: Fraction) -> Windows | None:
    """Return the windows moved by `offset` input pixels along `axis`; fixed ones stay."""
    if windows is None:
        return None
    rows, columns = (
        replace(window, start=window.start + offset)
        if name == axis and not window.fixed
        else window
        for name, window in zip(AXES, windows, strict=True)
    )
    return rows, columns


def merge_fields(fields: list[ReceptiveField], shape: tuple[int, ...]) -> ReceptiveField:
    """Return the field of an elementwise result of broadcast operands with `fields`.

    An element depends on the union of what its operands see. Centered branches give the largest.
    """
    dims = tuple(_merge_dims(fields, len(shape) - i, size) for i, size in enumerate(shape))
    cropped = any(field.cropped for field in fields)
    if any(field.windows is None for field in fields):
        return ReceptiveField(dims, None, cropped)
    rows, columns = (_merge_windows(fields, number, axis) for number, axis in enumerate(AXES))
    return ReceptiveField(dims, (rows, columns), cropped)


def _merge_dims(fields: list[ReceptiveField], from_right: int, size: int) -> tuple[AxisRun, ...]:
    dims = [field.dims[-from_right] for field in fields if len(field.dims) >= from_right]
    dims = [dim for dim in dims if prod(run.size for run in dim) == size]
    spatial = [dim for dim in dims if any(run.axis in AXES for run in dim)]
    images = [dim for dim in dims if any(run.axis == "n" for run in dim)]
    return (spatial or images or dims or [(AxisRun("", size),)])[0]


def _merge_windows(fields: list[ReceptiveField], number: int, axis: str) -> Window:
    moving, still, layouts = [], [], set()
    for field in fields:
        assert field.windows is not None
        window, runs = field.windows[number], field.runs(axis)
        if runs and not window.fixed:
            moving.append((window, runs))
            layouts.add(_run_layout(field, axis))
        else:
            still.append(window)
    if len(layouts) > 1:
        raise UnknownReceptiveField("branches whose positions lie at different input pixels meet")
    if still and moving:
        for window, runs in moving:
            for run in runs:
                window = _extend_window(window, run)
            still.append(window)
        return replace(_hull(still), fixed=True)
    if moving:
        return _hull([window for window, _ in moving])
    return replace(_hull(still), fixed=any(window.fixed for window in still))


def _run_layout(field: ReceptiveField, axis: str) -> tuple[tuple[int, Fraction], ...]:
    """Return where the runs of `axis` lie: dimension from the right, and step."""
    return tuple(
        (len(field.dims) - index, run.step)
        for index, dim in enumerate(field.dims)
        for run in dim
        if run.axis == axis and run.size > 1
    )


def _hull(windows: list[Window]) -> Window:
    if any(window.start.denominator > 1 for window in windows):
        # fractions come from upsampling, where a start is only a center: take the largest
        return max(windows, key=lambda window: window.size)
    start = min(window.start for window in windows)
    return Window(start, max(window.stop for window in windows) - start)
