"""Windows that slide along a map: convolution, pooling, padding, interpolation.

Receptive field by the books, not clipped to the image: `rf += (k - 1) * dilation * jump`, then
`jump *= stride` (Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil, prod

from whit.analysis.receptive_field import (
    AXES,
    AxisRun,
    ReceptiveField,
    UnknownReceptiveField,
    Windows,
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
    sizes = image.tensor.shape[2:]
    if not transposed and covers_map(field, sizes, kernel, stride, padding, dilation):
        kind = "linear"
    windows = extend_windows(field.windows, field.dims[1])
    dims: list[tuple[AxisRun, ...]] = [field.dims[0], (AxisRun("", call.shape[1]),)]
    for i, size in enumerate(call.shape[2:]):
        geometry = (stride[i], padding[i], dilation[i])
        slide = _slide_transposed if transposed else slide_window
        dim, windows = slide(field, 2 + i, windows, kernel[i], geometry, size)
        dims.append(dim)
    return RuleResult(ReceptiveField(tuple(dims), windows), kind)


def covers_map(
    field: ReceptiveField,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> bool:
    """Return whether every window of the kernel covers the full input map of more than 1x1.

    Then each output depends on each input: fully connected. A padded 3x3 on a 3x3 map is
    not, as only its middle window covers the map.
    """
    hidden = prod(run.size for run in field.dims[1] if run.axis in AXES)
    if prod(sizes) * hidden == 1:
        return False
    for size, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        starts = range(-p, size + p - (k - 1) * d, s)
        dense = d == 1 or size == 1
        if not dense or not all(start <= 0 and start + k >= size for start in starts):
            return False
    return True


def slide_window(
    field: ReceptiveField,
    index: int,
    windows: Windows | None,
    kernel: int,
    geometry: tuple[int, int, int],
    size: int,
) -> tuple[tuple[AxisRun, ...], Windows | None]:
    """Return the dim, of `size`, and the windows after a window of `kernel` slid along dim `index`.

    `geometry` is stride, padding and dilation.
    """
    stride, padding, dilation = geometry
    if kernel == 1 and stride == 1 and padding == 0:
        return field.dims[index], windows
    try:
        run = field.merge_runs(index)
    except UnknownReceptiveField:
        return (AxisRun("", size),), None
    windows = extend_windows(windows, [replace(run, size=(kernel - 1) * dilation + 1)])
    windows = shift_windows(windows, run.axis, -padding * run.step)
    return (replace(run, size=size, step=run.step * stride),), windows


def _slide_transposed(
    field: ReceptiveField,
    index: int,
    windows: Windows | None,
    kernel: int,
    geometry: tuple[int, int, int],
    size: int,
) -> tuple[tuple[AxisRun, ...], Windows | None]:
    """As `slide_window`, for a transposed convolution: a result sees every stride-th tap."""
    stride, padding, dilation = geometry
    run = field.merge_runs(index)
    reach = (kernel - 1) * dilation
    windows = extend_windows(windows, [replace(run, size=ceil(Fraction(reach + 1, stride)))])
    offset = ceil(Fraction(padding - reach, stride)) * run.step
    windows = shift_windows(windows, run.axis, offset)
    return (replace(run, size=size, step=run.step / stride),), windows


def pool(call: OpCall, kind: str | None) -> RuleResult:
    field, image = call.field, call.image_tensor
    count = 3 if "3d" in call.name else 2
    sizes, leading = image.shape[-count:], image.dim() - count
    kernel = call.int_args(1, count)
    stride = call.int_args(2, count) if call.arg(2) else kernel
    padding = call.int_args(3, count, 0)
    dilation = call.int_args(4, count, 1) if "max" in call.name else [1] * count
    dims, windows = list(field.dims[:leading]), field.windows
    for i in range(count):
        geometry = (stride[i], padding[i], dilation[i])
        size = call.shape[leading + i]
        dim, windows = slide_window(field, leading + i, windows, kernel[i], geometry, size)
        dims.append(dim)
    result = ReceptiveField(tuple(dims), windows)
    single = all(size == 1 for size in call.shape[-count:])
    complete = all(k - p >= size for size, k, p in zip(sizes, kernel, padding, strict=True))
    if kind == "avgpool" and single and complete and is_global_mean(field, result):
        kind = "gap"
    return RuleResult(result, kind)


def adaptive_pool(call: OpCall, kind: str | None) -> RuleResult:
    field, image = call.field, call.image_tensor
    leading = image.dim() - (3 if "3d" in call.name else 2)
    dims, windows = list(field.dims[:leading]), field.windows
    for i in range(leading, image.dim()):
        size, out = image.shape[i], call.shape[i]
        if size == out:
            dims.append(field.dims[i])
            continue
        run = field.merge_runs(i)
        kernel = max(-(-(j + 1) * size // out) - j * size // out for j in range(out))
        windows = extend_windows(windows, [replace(run, size=kernel)])
        dims.append((replace(run, size=out, step=run.step * Fraction(size, out)),))
    result = ReceptiveField(tuple(dims), windows)
    full_map = kind == "avgpool" and is_global_mean(field, result)
    return RuleResult(result, "gap" if full_map else kind)


def pad(call: OpCall, kind: str | None) -> RuleResult:
    field, image = call.field, call.image_tensor
    widths: list[int] = list(call.args[1])
    dims, windows, cropped = list(field.dims), field.windows, field.cropped
    for pair in range(len(widths) // 2):
        before, after = widths[2 * pair], widths[2 * pair + 1]
        i = image.dim() - 1 - pair
        if before == after == 0:
            continue
        run = field.merge_runs(i)
        cropped = cropped or (run.axis in AXES and min(before, after) < 0)
        windows = shift_windows(windows, run.axis, -before * run.step)
        dims[i] = (replace(run, size=call.shape[i]),)
    return RuleResult(ReceptiveField(tuple(dims), windows, cropped), kind)


def upsample(call: OpCall, kind: str | None) -> RuleResult:
    field, image = call.field, call.image_tensor
    taps = {"nearest": 1, "bilinear": 2, "linear1": 2, "trilinear": 2, "bicubic": 4}
    reach = next(count for word, count in taps.items() if word in call.name)
    dims, windows = list(field.dims[:2]), field.windows
    for i in range(2, image.dim()):
        run = field.merge_runs(i)
        scale = Fraction(call.shape[i], image.shape[i])
        windows = extend_windows(windows, [replace(run, size=reach)])
        center = (1 / scale - 1) / 2 - Fraction(reach - 1, 2)
        windows = shift_windows(windows, run.axis, center * run.step)
        dims.append((replace(run, size=call.shape[i], step=run.step / scale),))
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
