"""One rule for each operation: what its result sees of the image, and of which kind it is.

Receptive field by the books, not clipped to the image: `rf += (k - 1) * dilation * jump`, then
`jump *= stride` (Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor

from whit.audit.kinds import ATTENTION, BATCH_NORMS, CONVOLUTIONS, PRODUCTS, SIMPLE
from whit.audit.sight import (
    AXES,
    Dims,
    Run,
    Sight,
    UnknownSight,
    Window,
    contract,
    image_sight,
    line,
    merge,
    plain_dims,
    whole,
)

# Operations that may leave positions out.
PICKING = frozenset({"index", "index_select", "gather", "take", "masked_select", "index_put"})
NEAR_ONE = 1e-3  # how far sum * factor may be from a true mean


@dataclass
class Operand:
    """A tensor argument: its sight if it depends on the image, and what it was made from."""

    tensor: Tensor
    sight: Sight | None  # None: does not depend on the image
    stored: bool  # depends on stored numbers

    @property
    def dims(self) -> Dims:
        return self.sight.dims if self.sight else plain_dims(self.tensor.shape)

    def same_value(self) -> float | None:
        """Return the one value of all elements, if the tensor is made and not stored."""
        if self.sight or self.stored or not self.tensor.numel() or self.tensor.is_complex():
            return None
        low, high = self.tensor.min().item(), self.tensor.max().item()
        return float(low) if low == high else None


@dataclass
class Call:
    """One operation as executed: aten name, its arguments, and operands in argument order."""

    name: str
    args: tuple[Any, ...]
    pointwise: bool
    operands: list[Operand]
    by_tensor: Callable[[Any], Operand]
    outputs: list[Tensor]
    through_linear: bool = False  # inside F.linear

    @property
    def data(self) -> list[Operand]:
        return [operand for operand in self.operands if operand.sight]

    @property
    def first(self) -> Sight:
        sight = self.data[0].sight
        assert sight is not None
        return sight

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.outputs[0].shape)

    def at(self, position: int, default: Any = None) -> Any:
        return self.args[position] if position < len(self.args) else default


@dataclass
class Finding:
    """What a rule found: the sight of the results, and the kind of the operation."""

    sight: Sight
    kind: str | None


def judge(call: Call) -> tuple[Finding, str | None]:
    """Return the finding for `call` and, where something is unknown, a sentence naming it."""
    kind = kind_of(call)
    try:
        rule = _RULES.get(call.name) or (_pointwise if call.pointwise else None)
        if rule is None:
            raise UnknownSight("the operation is not known here")
        return rule(call, kind), None
    except UnknownSight as unknown:
        return Finding(_lost(call), kind), f"receptive field unknown from {call.name} on: {unknown}"


def _lost(call: Call) -> Sight:
    """Return what is left of a sight: positions stay positions, but what they see is unknown."""
    before, dims = call.first.dims, plain_dims(call.shape)
    picked = call.name in PICKING
    if len(before) == len(dims) == 4 and any(run.axis == "h" for run in before[2]):
        images, channels, height, width = call.shape
        dims = image_sight((images, channels, height, width)).dims
    elif call.shape == tuple(call.data[0].tensor.shape):
        dims = before
    else:
        picked = True
    return Sight(dims, None, cut=picked or call.first.cut)


def kind_of(call: Call) -> str | None:
    """Return the kind that the name alone tells."""
    if call.name in CONVOLUTIONS:
        return "conv"
    if call.name in PRODUCTS:
        return "linear"
    if call.name in ATTENTION:
        return "attention"
    if call.name in BATCH_NORMS:
        return "batchnorm"
    if call.name.startswith(("upsample_", "_upsample_", "grid_sampler")):
        return "upsample"
    if call.name.startswith(("avg_pool", "_adaptive_avg_pool")):
        return "avgpool"
    if call.name in SIMPLE:
        return SIMPLE[call.name]
    return None if call.pointwise or call.name in _RULES else "other"


def _known(sight: Sight) -> tuple[Window, Window]:
    if sight.windows is None:
        raise UnknownSight("its input's is unknown")
    return sight.windows


def _contracted(sight: Sight, runs: Sequence[Run]) -> tuple[Window, Window] | None:
    return None if sight.windows is None else contract(sight.windows, runs)


# --- elementwise -------------------------------------------------------------------------


def _pointwise(call: Call, kind: str | None) -> Finding:
    sights = [operand.sight for operand in call.data if operand.sight]
    result = merge(sights, call.shape)
    if call.name in ("mul", "div", "add", "sub", "neg", "clone", "_to_copy", "copy"):
        result = _carried(call, result)
    if call.name == "mul" and len(sights) == 2 and kind == "mul":
        result = replace(result, gain=1.0, summed=False)
    divided = call.name in ("mul", "div") and result.summed and result.positions == 1
    if divided and abs(result.gain - 1) < NEAR_ONE <= abs(call.first.gain - 1):
        return Finding(result.plain(), "gap")
    return Finding(result, kind)


def _carried(call: Call, result: Sight) -> Sight:
    """Carry a pending sum or weighting through a linear elementwise operation."""
    pending = call.first
    gain = pending.gain
    weighted = pending.weighted
    if call.name in ("mul", "div"):
        for factor in (argument for argument in call.args[:2]):
            operand = call.by_tensor(factor) if isinstance(factor, Tensor) else None
            if operand is None:
                value = float(factor) if isinstance(factor, (int, float)) else None
            elif operand.sight:
                continue
            else:
                value = operand.same_value()
                if value is None:
                    weighted |= _varying(operand.tensor, result.dims)
            if value:
                gain = gain * value if call.name == "mul" else gain / value
    return replace(result, gain=gain, summed=pending.summed, weighted=weighted)


def _varying(tensor: Tensor, dims: Dims) -> frozenset[str]:
    """Return the axes of `dims` along which `tensor`, broadcast against them, changes."""
    axes = set()
    for at in range(1, min(tensor.dim(), len(dims)) + 1):
        if tensor.shape[-at] > 1 and tensor.stride(-at) != 0:
            axes |= {run.axis for run in dims[-at] if run.size > 1}
    return frozenset(axes)


# --- convolutions and products ------------------------------------------------------------


def _convolution(call: Call, kind: str | None) -> Finding:
    image, weight = call.by_tensor(call.args[0]), call.by_tensor(call.args[1])
    if image.sight is None or weight.sight is not None:
        raise UnknownSight("the kernel depends on the image")
    sight, kernel = image.sight, weight.tensor.shape[2:]
    stride, padding, dilation = (_each(call.at(at), len(kernel)) for at in (3, 4, 5))
    transposed = bool(call.at(6, False))
    sizes = image.tensor.shape[2:]
    if not transposed and _covers(sight, sizes, kernel, stride, padding, dilation):
        kind = "linear"
    windows = _contracted(sight, sight.dims[1])
    dims: list[tuple[Run, ...]] = [sight.dims[0], (Run("", call.shape[1]),)]
    for at, size in enumerate(call.shape[2:]):
        step = (stride[at], padding[at], dilation[at])
        slide = _deconvolve if transposed else _slide
        dim, windows = slide(sight, 2 + at, windows, kernel[at], step, size)
        dims.append(dim)
    return Finding(Sight(tuple(dims), windows), kind)


def _covers(
    sight: Sight,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> bool:
    """Tell whether some window of the kernel touches the whole input map of more than 1x1."""
    hidden = prod(run.size for run in sight.dims[1] if run.axis in AXES)
    if prod(sizes) * hidden == 1:
        return False
    for size, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        starts = range(-p, size + p - (k - 1) * d, s)
        dense = d == 1 or size == 1
        if not dense or not any(start <= 0 and start + k >= size for start in starts):
            return False
    return True


Slid = tuple[tuple[Run, ...], tuple[Window, Window] | None]


def _slide(
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
        windows = _shift(windows, run.axis, -padding * run.step)
    return (replace(run, size=out, step=run.step * stride),), windows


def _deconvolve(
    sight: Sight,
    index: int,
    windows: tuple[Window, Window] | None,
    kernel: int,
    geometry: tuple[int, int, int],
    out: int,
) -> Slid:
    """As `_slide`, for a transposed convolution: a result sees every stride-th tap."""
    stride, padding, dilation = geometry
    run = line(sight.dims[index], index)
    reach = (kernel - 1) * dilation
    if windows is not None:
        windows = contract(windows, [replace(run, size=ceil(Fraction(reach + 1, stride)))])
        windows = _shift(windows, run.axis, ceil(Fraction(padding - reach, stride)) * run.step)
    return (replace(run, size=out, step=run.step / stride),), windows


def _shift(windows: tuple[Window, Window], axis: str, by: Fraction) -> tuple[Window, Window]:
    rows, cols = (
        replace(window, start=window.start + by) if name == axis and not window.fixed else window
        for name, window in zip(AXES, windows, strict=True)
    )
    return rows, cols


def _each(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * count if len(values) == 1 else values


def _product(call: Call, kind: str | None) -> Finding:
    """Matrix products: the last dim of the left operand meets a dim of the right one."""
    skip = 1 if call.name.startswith("add") or call.name == "baddbmm" else 0
    left, right = (call.by_tensor(call.args[skip + at]) for at in (0, 1))
    inner_right = -1 if call.name == "linear" or right.tensor.dim() == 1 else -2
    outer_right = -2 if call.name == "linear" else -1
    met = [*left.dims[-1], *right.dims[inner_right]]
    batch = left.dims[:-2] if left.sight else right.dims[:-2]
    dims = [*batch, *(left.dims[-2:-1] if call.name != "linear" else left.dims[len(batch) : -1])]
    if right.tensor.dim() > 1:
        dims.append(right.dims[outer_right])
    if call.name == "linear":
        dims = [*left.dims[:-1], right.dims[0]]
    if call.name == "addbmm":
        raise UnknownSight("a product summed over its batch")
    sights = [operand.sight for operand in (left, right) if operand.sight]
    if not sights:  # only the added term depends on the image
        return Finding(merge([call.first], call.shape), kind)
    result = Sight(tuple(dims), None)
    if len(sights) == 2:
        return Finding(replace(result, windows=_both(sights)), "matmul")
    result = replace(result, windows=_contracted(sights[0], met))
    weight = right if left.sight else left
    value = weight.same_value()
    if value is not None:
        gain = value * prod(run.size for run in met if run.axis in AXES)
        if sights[0].positions > 1 and result.positions == 1 and not sights[0].cut:
            return Finding(result, "gap" if abs(gain - 1) < NEAR_ONE else "sum")
        return Finding(result, "sum")
    if not weight.stored:
        return Finding(result, "matmul")
    if result.positions > 1 and not call.through_linear:
        kind = "conv"
    added = [operand.sight for operand in call.data if operand.sight not in sights]
    if skip and any(added):
        result = merge([result, *[sight for sight in added if sight]], call.shape)
    return Finding(result, kind)


def _both(sights: list[Sight]) -> tuple[Window, Window] | None:
    """Return windows of a product of two image-dependent tensors: all positions of both."""
    if any(sight.windows is None for sight in sights):
        return None
    windows = []
    for number in range(len(AXES)):
        ends = []
        for sight in sights:
            runs = [*sight.runs("h"), *sight.runs("w")]
            ends.append(contract(_known(sight), runs)[number])
        start = min(window.start for window in ends)
        size = max(window.stop for window in ends) - start
        moving = any(sight.positions > 1 for sight in sights)
        windows.append(Window(start, size, fixed=moving))
    return windows[0], windows[1]


def _attention(call: Call, kind: str | None) -> Finding:
    query, value = call.by_tensor(call.args[0]), call.by_tensor(call.args[2])
    sights = [operand.sight for operand in call.data if operand.sight]
    dims = (*query.dims[:-1], value.dims[-1])
    return Finding(Sight(dims, _both(sights)), kind)


# --- windows that slide: pooling, padding, sampling -----------------------------------------


def _pool(call: Call, kind: str | None) -> Finding:
    sight, image = call.first, call.data[0].tensor
    count = 3 if "3d" in call.name else 2
    sizes, leading = image.shape[-count:], image.dim() - count
    kernel = _each(call.at(1), count)
    stride = _each(call.at(2) or kernel, count)
    padding = _each(call.at(3, 0), count)
    dilation = _each(call.at(4, 1) if "max" in call.name else 1, count)
    dims, windows = list(sight.dims[:leading]), sight.windows
    for at in range(count):
        geometry = (stride[at], padding[at], dilation[at])
        size = call.shape[leading + at]
        dim, windows = _slide(sight, leading + at, windows, kernel[at], geometry, size)
        dims.append(dim)
    result = Sight(tuple(dims), windows)
    single = all(size == 1 for size in call.shape[-count:])
    reach = all(k - p >= size for size, k, p in zip(sizes, kernel, padding, strict=True))
    if kind == "avgpool" and single and reach and _is_whole_mean(sight, result):
        kind = "gap"
    return Finding(result, kind)


def _is_whole_mean(before: Sight, after: Sight) -> bool:
    """Tell whether averaging made one position of a whole, unweighted map of more than 1x1."""
    spread = before.weighted & {*AXES}
    scaled = before.summed and abs(before.gain - 1) >= NEAR_ONE
    return before.positions > 1 and after.positions == 1 and not (before.cut or spread or scaled)


def _adaptive_pool(call: Call, kind: str | None) -> Finding:
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
    whole_map = kind == "avgpool" and _is_whole_mean(sight, result)
    return Finding(result, "gap" if whole_map else kind)


def _pad(call: Call, kind: str | None) -> Finding:
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
            windows = _shift(windows, run.axis, -before * run.step)
        dims[at] = (replace(run, size=call.shape[at]),)
    return Finding(Sight(tuple(dims), windows, cut), kind)


def _upsample(call: Call, kind: str | None) -> Finding:
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
            windows = _shift(windows, run.axis, centre * run.step)
        dims.append((replace(run, size=call.shape[at], step=run.step / scale),))
    return Finding(Sight(tuple(dims), windows), kind)


def _unfold(call: Call, kind: str | None) -> Finding:
    """im2col: (N, C, H, W) to (N, C kh kw, positions)."""
    sight, image = call.first, call.data[0].tensor
    kernel, dilation, padding, stride = (_each(call.at(at), 2) for at in (1, 2, 3, 4))
    taps, places, windows = [], [], sight.windows
    for at in (0, 1):
        run = line(sight.dims[2 + at], 2 + at)
        span = image.shape[2 + at] + 2 * padding[at] - (kernel[at] - 1) * dilation[at] - 1
        if windows is not None:
            windows = _shift(windows, run.axis, -padding[at] * run.step)
        taps.append(replace(run, size=kernel[at], step=run.step * dilation[at]))
        places.append(replace(run, size=span // stride[at] + 1, step=run.step * stride[at]))
    dims = (sight.dims[0], (*sight.dims[1], *taps), tuple(places))
    return Finding(Sight(dims, windows), kind)


def _pixel_shuffle(call: Call, kind: str | None) -> Finding:
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


def _pixel_unshuffle(call: Call, kind: str | None) -> Finding:
    sight, factor = call.first, int(call.at(1))
    dims, inner = list(sight.dims), []
    for at in (-2, -1):
        run = line(dims[at], at)
        inner.append(replace(run, size=factor))
        dims[at] = (replace(run, size=run.size // factor, step=run.step * factor),)
    dims[-3] = (*dims[-3], *inner)
    return Finding(Sight(tuple(dims), sight.windows), kind)


# --- reductions and mixing --------------------------------------------------------------


def _dims_of(call: Call, position: int) -> list[int]:
    rank = call.data[0].tensor.dim()
    given = call.at(position)
    if given is None or given == []:
        return list(range(rank))
    return sorted({at % rank for at in (given if isinstance(given, (list, tuple)) else [given])})


def _reduce(position: int) -> Callable[[Call, str | None], Finding]:
    def rule(call: Call, kind: str | None) -> Finding:
        sight = call.first
        if call.name in ("max", "min") and len(call.data) == 2:
            return _pointwise(call, kind)
        over = _dims_of(call, position)
        runs = [run for at in over for run in sight.dims[at]]
        kept = [dim for at, dim in enumerate(sight.dims) if at not in over]
        if len(call.shape) == len(sight.dims):
            kept = [() if at in over else dim for at, dim in enumerate(sight.dims)]
        result = Sight(tuple(kept), _contracted(sight, runs), sight.cut)
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
        whole_map = bool(axes & {*AXES}) and _is_whole_mean(sight, result)
        kept = replace(result, gain=sight.gain, summed=sight.summed)
        return Finding(kept, "gap" if whole_map else "mean")
    gain = sight.gain * prod(run.size for run in runs if run.axis in AXES)
    kept = replace(result, gain=gain, summed=sight.summed or bool(axes & {*AXES}))
    if kept.summed and _is_whole_mean(replace(sight, summed=True, gain=gain), result):
        return Finding(kept, "gap")  # divided by the area beforehand
    if kept.cut:
        kept = replace(kept, summed=False, gain=1.0)
    return Finding(kept, "sum")


def _mix(position: int) -> Callable[[Call, str | None], Finding]:
    """Operations that keep the shape and mix all positions along given dims."""

    def rule(call: Call, kind: str | None) -> Finding:
        sight = call.first
        over = _dims_of(call, position)
        windows = None if sight.windows is None else whole(sight.windows, sight.dims, over)
        return Finding(Sight(sight.dims, windows, sight.cut), kind)

    return rule


def _layer_norm(call: Call, kind: str | None) -> Finding:
    sight, count = call.first, len(call.args[1])
    over = range(len(sight.dims) - count, len(sight.dims))
    windows = None if sight.windows is None else whole(sight.windows, sight.dims, over)
    return Finding(Sight(sight.dims, windows, sight.cut), kind)


def _group_norm(call: Call, kind: str | None) -> Finding:
    sight = call.first
    over = range(1, len(sight.dims))
    windows = None if sight.windows is None else whole(sight.windows, sight.dims, over)
    return Finding(Sight(sight.dims, windows, sight.cut), kind)


def _batch_norm(call: Call, kind: str | None) -> Finding:
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


def uses_batch_statistics(call: Call) -> bool:
    """Tell whether a batch normalisation takes its statistics from the batch itself."""
    return call.name != "_native_batch_norm_legit_no_training" and bool(call.at(5, True))


# --- moving elements --------------------------------------------------------------------


def _cat(call: Call, kind: str | None) -> Finding:
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
    windows = sight.windows and _shift(sight.windows, run.axis, -before * run.step)
    dims = list(sight.dims)
    dims[at] = (replace(run, size=call.shape[at]),)
    return Sight(tuple(dims), windows, sight.cut)


def _flip(call: Call, kind: str | None) -> Finding:
    sight = call.first
    dims, windows = list(sight.dims), sight.windows
    for at in _dims_of(call, 1):
        for run in dims[at]:
            if windows is not None:
                windows = _shift(windows, run.axis, (run.size - 1) * run.step)
        dims[at] = tuple(replace(run, step=-run.step) for run in dims[at])
    return Finding(replace(sight, dims=tuple(dims), windows=windows), kind)


def _roll(call: Call, kind: str | None) -> Finding:
    """Moved by some positions; the seam, where the map wraps around, is left out."""
    sight = call.first
    windows = sight.windows
    shifts, over = _each(call.at(1), 1), call.at(2, [])
    if not over:
        raise UnknownSight("the flattened tensor is rolled")
    for shift, at in zip(shifts, _each(over, len(shifts)), strict=True):
        run = line(sight.dims[at], at)
        if windows is not None:
            windows = _shift(windows, run.axis, -shift * run.step)
    return Finding(replace(sight, windows=windows), kind)


def _index(call: Call, kind: str | None) -> Finding:
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


def _glu(call: Call, kind: str | None) -> Finding:
    sight = call.first
    at = int(call.at(1, -1)) % len(sight.dims)
    if any(run.axis in AXES for run in sight.dims[at]):
        raise UnknownSight("halves of a map are multiplied")
    dims = (*sight.dims[:at], (Run("", call.shape[at]),), *sight.dims[at + 1 :])
    return Finding(Sight(dims, sight.windows, sight.cut), kind)


def _embedding(call: Call, kind: str | None) -> Finding:
    return Finding(Sight((*call.first.dims, (Run("", call.shape[-1]),)), call.first.windows), kind)


_RULES: dict[str, Callable[[Call, str | None], Finding]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(PRODUCTS, _product),
    **dict.fromkeys(ATTENTION, _attention),
    **dict.fromkeys(BATCH_NORMS, _batch_norm),
    **dict.fromkeys([f"max_pool{n}d_with_indices" for n in (2, 3)], _pool),
    **dict.fromkeys([f"avg_pool{n}d" for n in (2, 3)], _pool),
    **dict.fromkeys([f"_adaptive_avg_pool{n}d" for n in (2, 3)], _adaptive_pool),
    **dict.fromkeys([f"adaptive_max_pool{n}d" for n in (2, 3)], _adaptive_pool),
    **{f"{how}_pad{n}d": _pad for how in ("reflection", "replication") for n in (1, 2, 3)},
    "constant_pad_nd": _pad,
    **{
        f"{prefix}upsample_{how}": _upsample
        for prefix in ("", "_")
        for how in (
            *("nearest1d", "nearest2d", "nearest3d", "nearest_exact1d", "nearest_exact2d"),
            *("linear1d", "bilinear2d", "trilinear3d", "bicubic2d"),
        )
    },
    "im2col": _unfold,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **dict.fromkeys(
        (
            *("mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean"),
            *("prod", "logsumexp", "any", "all", "argmax", "argmin", "median"),
        ),
        _reduce(1),
    ),
    **dict.fromkeys(("linalg_vector_norm", "norm"), _reduce(2)),
    **dict.fromkeys(
        ("_softmax", "_log_softmax", "_safe_softmax", "cumsum", "cumprod", "logcumsumexp"), _mix(1)
    ),
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm"), _layer_norm),
    "native_group_norm": _group_norm,
    **dict.fromkeys(("cat", "stack"), _cat),
    "flip": _flip,
    "roll": _roll,
    **dict.fromkeys(("index", "index_select"), _index),
    "glu": _glu,
    "embedding": _embedding,
    **dict.fromkeys(
        (
            *("clone", "_to_copy", "copy", "tril", "triu", "log_sigmoid_forward", "masked_fill"),
            *("native_dropout", "_prelu_kernel", "zero", "contiguous", "rrelu_with_noise"),
            *("lift_fresh_copy", "detach_copy", "rrelu_with_noise_functional", "bernoulli"),
        ),
        _pointwise,
    ),
}


def base_name(func: Any) -> str:
    """Return the aten name of an operation without its overload and in-place underscore."""
    name: str = func._schema.name.split("::")[-1]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def is_pointwise(func: Any) -> bool:
    return torch.Tag.pointwise in func.tags
