"""Windows that slide along a map: convolution, pooling, padding, interpolation.

Receptive field by the books, not clipped to the image: `rf += (k - 1) * dilation * jump`, then
`jump *= stride` (Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019).
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil, prod

from whit.analysis.receptive_field import (
    AXES,
    AxisRun,
    ReceptiveField,
    UnknownReceptiveField,
    extend_windows,
    shift_windows,
)
from whit.analysis.rules.call import OpCall, RuleResult, is_global_mean


def convolution(call: OpCall, kind: str | None) -> RuleResult:
    image, weight = call.find_operand(call.args[0]), call.find_operand(call.args[1])
    if image.field is None or weight.field is not None:
        raise UnknownReceptiveField("the kernel depends on the image")
    field, kernel = image.field, weight.tensor.shape[2:]
    stride, padding, dilation = (call.int_args(i, len(kernel)) for i in (3, 4, 5))
    transposed = bool(call.arg(6, False))
    geometry = [*zip(image.tensor.shape[2:], kernel, stride, padding, dilation, strict=True)]
    if not transposed and covers_map(field, geometry):
        kind = "linear"
    result = field.without_flags().with_dim(1, AxisRun("", call.shape[1]))
    result = replace(result, windows=extend_windows(field.windows, field.dims[1]))
    for i, (_, k, s, p, d) in enumerate(geometry, start=2):
        if transposed:  # a result sees every stride-th tap
            taps, first = Fraction((k - 1) * d + 1, s), Fraction(p - (k - 1) * d, s)
            result = result.slide(i, call.shape[i], Fraction(1, s), ceil(taps), ceil(first))
        else:
            result = slide_window(result, i, call.shape[i], (k, s, p, d))
    return RuleResult(result, kind)


def covers_map(field: ReceptiveField, geometry: list[tuple[int, int, int, int, int]]) -> bool:
    """Return whether every window of the kernel covers the full input map of more than 1x1.

    `geometry` has size, kernel, stride, padding and dilation of each dimension. Then each output
    depends on each input: fully connected. A padded 3x3 on a 3x3 map is not, as only its middle
    window covers the map.
    """
    hidden = prod(run.size for run in field.dims[1] if run.axis in AXES)
    if prod(size for size, *_ in geometry) * hidden == 1:
        return False
    for size, k, s, p, d in geometry:
        starts = range(-p, size + p - (k - 1) * d, s)
        dense = d == 1 or size == 1
        if not dense or not all(start <= 0 and start + k >= size for start in starts):
            return False
    return True


def slide_window(
    field: ReceptiveField, index: int, size: int, window: tuple[int, int, int, int]
) -> ReceptiveField:
    """As `ReceptiveField.slide`, with kernel, stride, padding, dilation; unknown if that raises."""
    kernel, stride, padding, dilation = window
    if kernel == 1 and stride == 1 and padding == 0:
        return field
    try:
        return field.slide(index, size, stride, (kernel - 1) * dilation + 1, -padding)
    except UnknownReceptiveField:
        return replace(field.with_dim(index, AxisRun("", size)), windows=None)


def pool(call: OpCall, kind: str | None) -> RuleResult:
    field, image = call.field, call.image_tensor
    count = next((n for n in (1, 3) if f"{n}d" in call.name), 2)
    sizes, leading = image.shape[-count:], image.dim() - count
    kernel = call.int_args(1, count)
    stride = call.int_args(2, count) if call.arg(2) else kernel
    padding = call.int_args(3, count, 0)
    dilation = call.int_args(4, count, 1) if "max" in call.name else [1] * count
    result = field.without_flags()
    geometry = zip(kernel, stride, padding, dilation, strict=True)
    for i, window in enumerate(geometry, start=leading):
        result = slide_window(result, i, call.shape[i], window)
    single = all(size == 1 for size in call.shape[-count:])
    complete = all(k - p >= size for size, k, p in zip(sizes, kernel, padding, strict=True))
    if kind == "avgpool" and single and complete and is_global_mean(field, result):
        kind = "gap"
    return RuleResult(result, kind)


def adaptive_pool(call: OpCall, kind: str | None) -> RuleResult:
    field, image = call.field, call.image_tensor
    result = field.without_flags()
    for i in range(image.dim() - (3 if "3d" in call.name else 2), image.dim()):
        size, out = image.shape[i], call.shape[i]
        if size != out:
            kernel = max(-(-(j + 1) * size // out) - j * size // out for j in range(out))
            result = result.slide(i, out, Fraction(size, out), kernel)
    full_map = kind == "avgpool" and is_global_mean(field, result)
    return RuleResult(result, "gap" if full_map else kind)


def fractional_pool(call: OpCall, kind: str | None) -> RuleResult:
    """Windows of one size at random places; on average as far apart as the sizes say."""
    field, image = call.field, call.image_tensor
    count = 3 if "3d" in call.name else 2
    result = field.without_flags()
    for axis, kernel in enumerate(call.int_args(1, count)):
        i = image.dim() - count + axis
        out = call.shape[i]
        stride = Fraction(image.shape[i] - kernel, max(out - 1, 1))
        result = result.slide(i, out, stride, kernel)
    return RuleResult(result, kind)


def pad(call: OpCall, kind: str | None) -> RuleResult:
    result = ReceptiveField(call.field.dims, call.field.windows, call.field.cropped)
    widths: list[int] = list(call.args[1])
    for pair in range(len(widths) // 2):
        before, after = widths[2 * pair], widths[2 * pair + 1]
        i = call.image_tensor.dim() - 1 - pair
        if before == after == 0:
            continue
        result = result.slide(i, call.shape[i], offset=-before)
        if min(before, after) < 0 and result.dims[i][0].axis in AXES:
            result = replace(result, cropped=True)
    return RuleResult(result, kind)


def upsample(call: OpCall, kind: str | None) -> RuleResult:
    taps = {"nearest": 1, "bilinear": 2, "linear1": 2, "trilinear": 2, "bicubic": 4}
    kernel = taps_of_one = next(count for word, count in taps.items() if word in call.name)
    result = call.field.without_flags()
    for i in range(2, call.image_tensor.dim()):
        stride = Fraction(call.image_tensor.shape[i], call.shape[i])
        if call.name.endswith("_aa") and stride > 1:  # the filter is as wide as what it shrinks
            kernel = ceil(taps_of_one * stride)
        offset = (stride - 1) / 2 - Fraction(kernel - 1, 2)  # both centers agree
        result = result.slide(i, call.shape[i], stride, kernel, offset)
    return RuleResult(result, kind)


def unpool(call: OpCall, kind: str | None) -> RuleResult:
    """Each value goes back to where it was the largest: somewhere in its own window."""
    count = 3 if "3d" in call.name else 2
    result = call.field.without_flags()
    for i in range(call.image_tensor.dim() - count, call.image_tensor.dim()):
        stride = Fraction(call.image_tensor.shape[i], call.shape[i])
        result = result.slide(i, call.shape[i], stride, offset=(stride - 1) / 2)
    return RuleResult(result, kind)


def fold(call: OpCall, kind: str | None) -> RuleResult:
    """col2im, (N, C kh kw, positions) to (N, C, H, W): a sum of all patches at a position.

    While the patches still hold what unfold put there, each position gets back what it was.
    """
    field, size = call.field, [int(length) for length in call.args[1]]
    kernel, dilation, padding, stride = (call.int_args(i, 2) for i in (2, 3, 4, 5))
    positions = dict(zip(AXES, (None, None), strict=True)) | {
        run.axis: run for run in field.dims[-1] if run.axis in AXES
    }
    taps = {run.axis for run in field.dims[-2] if run.axis in AXES and run.size > 1}
    dims, windows = [*field.dims[:-2], (AxisRun("", call.shape[-3]),)], field.windows
    for i, axis in enumerate(AXES):
        run = positions[axis]
        if run is None:
            raise UnknownReceptiveField("patches are put together in another order")
        step = run.step / stride[i]
        if axis not in taps and windows is not None:
            reach = (kernel[i] - 1) * dilation[i]
            patches = reach // stride[i] + 1
            windows = extend_windows(windows, [replace(run, size=patches)])
            windows = shift_windows(windows, axis, (padding[i] - reach) * step)
        elif windows is not None:
            windows = shift_windows(windows, axis, padding[i] * step)
        dims.append((replace(run, size=size[i], step=step),))
    return RuleResult(ReceptiveField(tuple(dims), windows), kind)


def unfold(call: OpCall, kind: str | None) -> RuleResult:
    """im2col: (N, C, H, W) to (N, C kh kw, positions)."""
    field, image = call.field, call.image_tensor
    kernel, dilation, padding, stride = (call.int_args(i, 2) for i in (1, 2, 3, 4))
    taps, positions, windows = [], [], field.windows
    for i in (0, 1):
        run = field.merge_runs(2 + i)
        span = image.shape[2 + i] + 2 * padding[i] - (kernel[i] - 1) * dilation[i] - 1
        windows = shift_windows(windows, run.axis, -padding[i] * run.step)
        taps.append(replace(run, size=kernel[i], step=run.step * dilation[i]))
        positions.append(replace(run, size=span // stride[i] + 1, step=run.step * stride[i]))
    dims = (field.dims[0], (*field.dims[1], *taps), tuple(positions))
    return RuleResult(ReceptiveField(dims, windows), kind)
