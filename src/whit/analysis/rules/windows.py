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
    Run,
    Sight,
    UnknownSight,
    Window,
    contract,
    line,
)
from whit.analysis.rules.call import Call, Finding, contracted, each, is_whole_mean, shifted


def convolution(call: Call, kind: str | None) -> Finding:
    image, weight = call.by_tensor(call.args[0]), call.by_tensor(call.args[1])
    if image.sight is None or weight.sight is not None:
        raise UnknownSight("the kernel depends on the image")
    sight, kernel = image.sight, weight.tensor.shape[2:]
    stride, padding, dilation = (each(call.at(at), len(kernel)) for at in (3, 4, 5))
    transposed = bool(call.at(6, False))
    sizes = image.tensor.shape[2:]
    if not transposed and covers(sight, sizes, kernel, stride, padding, dilation):
        kind = "linear"
    windows = contracted(sight, sight.dims[1])
    dims: list[tuple[Run, ...]] = [sight.dims[0], (Run("", call.shape[1]),)]
    for at, size in enumerate(call.shape[2:]):
        step = (stride[at], padding[at], dilation[at])
        moved = _deconvolve if transposed else slide
        dim, windows = moved(sight, 2 + at, windows, kernel[at], step, size)
        dims.append(dim)
    return Finding(Sight(tuple(dims), windows), kind)


def covers(
    sight: Sight,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> bool:
    """Tell whether every window of the kernel covers the whole input map of more than 1x1.

    Then each output meets each input: fully connected. A padded 3x3 on a 3x3 map is not, as only
    its middle window sees everything.
    """
    hidden = prod(run.size for run in sight.dims[1] if run.axis in AXES)
    if prod(sizes) * hidden == 1:
        return False
    for size, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        starts = range(-p, size + p - (k - 1) * d, s)
        dense = d == 1 or size == 1
        if not dense or not all(start <= 0 and start + k >= size for start in starts):
            return False
    return True


Slid = tuple[tuple[Run, ...], tuple[Window, Window] | None]


def slide(
    sight: Sight,
    index: int,
    windows: tuple[Window, Window] | None,
    kernel: int,
    geometry: tuple[int, int, int],
    out: int,
) -> Slid:
    """Return the dim and windows after a window of `kernel` slid along dim `index`."""
    stride, padding, dilation = geometry
    if kernel == 1 and stride == 1 and padding == 0:
        return sight.dims[index], windows
    try:
        run = line(sight.dims[index], index)
    except UnknownSight:
        return (Run("", out),), None
    if windows is not None:
        windows = contract(windows, [replace(run, size=(kernel - 1) * dilation + 1)])
        windows = shifted(windows, run.axis, -padding * run.step)
    return (replace(run, size=out, step=run.step * stride),), windows


def _deconvolve(
    sight: Sight,
    index: int,
    windows: tuple[Window, Window] | None,
    kernel: int,
    geometry: tuple[int, int, int],
    out: int,
) -> Slid:
    """As `slide`, for a transposed convolution: a result sees every stride-th tap."""
    stride, padding, dilation = geometry
    run = line(sight.dims[index], index)
    reach = (kernel - 1) * dilation
    if windows is not None:
        windows = contract(windows, [replace(run, size=ceil(Fraction(reach + 1, stride)))])
        windows = shifted(windows, run.axis, ceil(Fraction(padding - reach, stride)) * run.step)
    return (replace(run, size=out, step=run.step / stride),), windows


def pool(call: Call, kind: str | None) -> Finding:
    sight, image = call.first, call.data[0].tensor
    count = 3 if "3d" in call.name else 2
    sizes, leading = image.shape[-count:], image.dim() - count
    kernel = each(call.at(1), count)
    stride = each(call.at(2) or kernel, count)
    padding = each(call.at(3, 0), count)
    dilation = each(call.at(4, 1) if "max" in call.name else 1, count)
    dims, windows = list(sight.dims[:leading]), sight.windows
    for at in range(count):
        geometry = (stride[at], padding[at], dilation[at])
        size = call.shape[leading + at]
        dim, windows = slide(sight, leading + at, windows, kernel[at], geometry, size)
        dims.append(dim)
    result = Sight(tuple(dims), windows)
    single = all(size == 1 for size in call.shape[-count:])
    reach = all(k - p >= size for size, k, p in zip(sizes, kernel, padding, strict=True))
    if kind == "avgpool" and single and reach and is_whole_mean(sight, result):
        kind = "gap"
    return Finding(result, kind)


def adaptive_pool(call: Call, kind: str | None) -> Finding:
    sight, image = call.first, call.data[0].tensor
    count = 3 if "3d" in call.name else 2
    leading = image.dim() - count
    dims, windows = list(sight.dims[:leading]), sight.windows
    for at in range(leading, image.dim()):
        size, out = image.shape[at], call.shape[at]
        if size == out:
            dims.append(sight.dims[at])
            continue
        run = line(sight.dims[at], at)
        kernel = max(-(-(i + 1) * size // out) - i * size // out for i in range(out))
        if windows is not None:
            windows = contract(windows, [replace(run, size=kernel)])
        dims.append((replace(run, size=out, step=run.step * Fraction(size, out)),))
    result = Sight(tuple(dims), windows)
    whole_map = kind == "avgpool" and is_whole_mean(sight, result)
    return Finding(result, "gap" if whole_map else kind)


def pad(call: Call, kind: str | None) -> Finding:
    sight, image = call.first, call.data[0].tensor
    widths: list[int] = list(call.args[1])
    dims, windows, cut = list(sight.dims), sight.windows, sight.cut
    for pair in range(len(widths) // 2):
        before, after = widths[2 * pair], widths[2 * pair + 1]
        at = image.dim() - 1 - pair
        if before == after == 0:
            continue
        run = line(sight.dims[at], at)
        cut = cut or (run.axis in AXES and min(before, after) < 0)
        if windows is not None:
            windows = shifted(windows, run.axis, -before * run.step)
        dims[at] = (replace(run, size=call.shape[at]),)
    return Finding(Sight(tuple(dims), windows, cut), kind)


def upsample(call: Call, kind: str | None) -> Finding:
    sight, image = call.first, call.data[0].tensor
    taps = {"nearest": 1, "bilinear": 2, "linear1": 2, "trilinear": 2, "bicubic": 4}
    reach = next((taps[word] for word in taps if word in call.name), None)
    if reach is None:
        raise UnknownSight("the interpolation is not known here")
    dims, windows = list(sight.dims[:2]), sight.windows
    for at in range(2, image.dim()):
        run = line(sight.dims[at], at)
        scale = Fraction(call.shape[at], image.shape[at])
        if windows is not None:
            windows = contract(windows, [replace(run, size=reach)])
            centre = (1 / scale - 1) / 2 - Fraction(reach - 1, 2)
            windows = shifted(windows, run.axis, centre * run.step)
        dims.append((replace(run, size=call.shape[at], step=run.step / scale),))
    return Finding(Sight(tuple(dims), windows), kind)


def unfold(call: Call, kind: str | None) -> Finding:
    """im2col: (N, C, H, W) to (N, C kh kw, positions)."""
    sight, image = call.first, call.data[0].tensor
    kernel, dilation, padding, stride = (each(call.at(at), 2) for at in (1, 2, 3, 4))
    taps, places, windows = [], [], sight.windows
    for at in (0, 1):
        run = line(sight.dims[2 + at], 2 + at)
        span = image.shape[2 + at] + 2 * padding[at] - (kernel[at] - 1) * dilation[at] - 1
        if windows is not None:
            windows = shifted(windows, run.axis, -padding[at] * run.step)
        taps.append(replace(run, size=kernel[at], step=run.step * dilation[at]))
        places.append(replace(run, size=span // stride[at] + 1, step=run.step * stride[at]))
    dims = (sight.dims[0], (*sight.dims[1], *taps), tuple(places))
    return Finding(Sight(dims, windows), kind)
