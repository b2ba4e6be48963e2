"""The steps in whole numbers in plain NumPy: what the compiled int8 form must equal, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whit.export.ir.graph import INPUT
from whit.export.ir.interpreter import moved
from whit.export.program import OUTPUT, Program, Step

_BATCH = 100
_NUMBER_BY_NUMBER = ("scale", "table", "add", "multiply", "concat", "slice")
Whole = NDArray[np.int64]


def whole_scores(program: Program, images: Tensor) -> NDArray[np.int64]:
    """Return the scores (N, K) of uint8 images (N, C, H, W), in units of 1/65536."""
    parts = []
    for first in range(0, len(images), _BATCH):
        batch = images[first : first + _BATCH]
        sums = sum(_scores(program, moved(batch, *shift)) for shift in program.shifts)
        assert isinstance(sums, np.ndarray)
        parts.append(_divided(sums, len(program.shifts)))
    return np.concatenate(parts)


def _scores(program: Program, images: Tensor) -> Whole:
    # A map as (N, H, W, C), a vector as (N, K), or as the map that it lies like.
    values: dict[str, Whole] = {INPUT: images.permute(0, 2, 3, 1).numpy().astype(np.int64)}
    for step in program.steps:
        held = {
            role: program.constants[name].astype(np.int64) for role, name in step.constants.items()
        }
        if "offset" in held:
            # Of offsets that are shared there may be more.
            held["offset"] = held["offset"][: step.shape[0]] * step.settings.get("step", 1)
        given = [values[name] for name in step.inputs]
        if len(step.shape) == 1 and step.kind in _NUMBER_BY_NUMBER:
            given = [value.reshape(len(images), -1) for value in given]
        made = _value(step, given, held)
        assert made.shape[1:] == (*step.shape[1:], step.shape[0]), f"{step.name}: another shape"
        if step.name != OUTPUT:
            assert made.min() >= 0
            assert made.max() <= 255
        values[step.name] = made
    return values[OUTPUT]


def _value(step: Step, given: list[Whole], held: dict[str, Whole]) -> Whole:
    x, settings = given[0], step.settings
    kind, shift = step.kind, settings.get("shift", 0)
    if kind in ("conv", "depthwise"):
        return _settled(
            _convolved(step, x, held["weight"]) * held["factor"] + held["offset"], shift
        )
    if kind in ("linear", "linear_scores"):
        sums = _product(x.reshape(len(x), -1), held["weight"]) * held["factor"] + held["offset"]
        return _settled(sums, shift) if kind == "linear" else _as_score(sums, shift)
    if kind == "scale":
        return _settled(x * held["factor"] + held["offset"], shift)
    if kind == "table":
        table = held["table"]
        return table[np.arange(len(table)), x] if settings["by_channel"] else table[0][x]
    if kind == "hardswish":
        x = x - settings["zero"]
        gate = (16 * x + settings["three"]).clip(0, 2 * settings["three"])
        return _settled(x * gate * settings["factor"] + settings["offset"], shift)
    if kind == "maxpool":
        largest: Whole = np.stack([tap for tap, _ in _taps(step, x, -1)]).max(0)
        return largest
    if kind == "avgpool":
        counts = settings["counts_padding"]
        taps = [(tap, inside) for tap, inside in _taps(step, x, settings["zero"])]
        counted = np.stack([np.ones_like(inside) if counts else inside for _, inside in taps])
        sums = (np.stack([tap for tap, _ in taps]) * counted).sum(0)
        count = counted.sum(0)
        averages: Whole = (sums + count // 2) // count
        return averages
    if kind in ("mean", "mean_scores"):
        sums = x.sum((1, 2)) * settings["factor"] + settings["offset"]
        return _settled(sums, shift) if kind == "mean" else _as_score(sums, shift)
    if kind == "scores":
        sums = x.reshape(len(x), -1) * settings["factor"] + settings["offset"]
        return _as_score(sums, shift)
    if kind in ("add", "multiply"):
        other = given[1].reshape(len(x), 1, 1, -1) if settings["by_channel"] else given[1]
        if kind == "add":
            sums = x * settings["factor_a"] + other * settings["factor_b"]
        else:
            sums = (x - settings["zero_a"]) * (other - settings["zero_b"]) * settings["factor"]
        return _settled(sums + settings["offset"], shift)
    if kind == "deskew":
        return _upright(x)
    if kind == "concat":
        numbers = zip(given, settings["factors"], settings["offsets"], strict=True)
        return np.concatenate([_settled(p * f + o, shift) for p, f, o in numbers], -1)
    if kind == "slice":
        return x[..., settings["start"] : settings["stop"]]
    if kind == "pad":
        left, right, top, bottom = settings["around"]
        around = ((0, 0), (top, bottom), (left, right), (0, 0))
        added = [(max(0, first), max(0, last)) for first, last in around]
        wide: Whole = np.pad(x, added, constant_values=settings["zero"])
        _, height, width, _ = wide.shape
        return wide[
            :, max(0, -top) : height + min(0, bottom), max(0, -left) : width + min(0, right)
        ]
    assert kind == "flatten", kind
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1)


def _upright(x: Whole) -> Whole:
    """Rows moved by their moments, places in units of 1/65536 and shares in 1/256."""
    _, height, width, _ = x.shape
    rows, columns = np.arange(height), np.arange(width)
    mass = (x - x.min((1, 2), keepdims=True)).sum(3)
    along, row = mass @ columns, mass.sum(2)
    total, sum_x, sum_y = row.sum(1), along.sum(1), row @ rows
    mixed = total * (along @ rows) - sum_x * sum_y
    spread = total * (row @ rows**2) - sum_y**2
    while (large := np.abs(mixed) >= 1 << 46).any():
        mixed = np.where(large, _divided(mixed, 2), mixed)
        spread = np.where(large, spread // 2, spread)
    slope = np.where(spread > 0, _divided(mixed * 65536, np.maximum(spread, 1)), 0)
    slope = slope.clip(-256 * 65536, 256 * 65536)
    from_y = total[:, None] * rows - sum_y[:, None]
    moved = _divided(slope[:, None] * from_y, np.maximum(total, 1)[:, None])
    moved = moved.clip(-width * 65536, width * 65536)
    source = (columns * 65536 + moved[..., None]).clip(0, (width - 1) * 65536)
    left, share = source >> 16, (source >> 8 & 255)[..., None]
    a = np.take_along_axis(x, left[..., None], 2)
    b = np.take_along_axis(x, np.minimum(left + 1, width - 1)[..., None], 2)
    mean: Whole = (a * (256 - share) + b * share + 128) >> 8
    return mean


def _divided(numbers: Whole, by: Any) -> Whole:
    """Towards zero, as C divides."""
    quotient: Whole = np.sign(numbers) * (np.abs(numbers) // by)
    return quotient


def _settled(sums: Whole, shift: int) -> Whole:
    """A byte: what C gets from a sum, negative ones being zero before their bits are dropped."""
    byte: Whole = np.minimum(np.maximum(sums, 0) >> shift, 255)
    return byte


def _as_score(sums: Whole, shift: int) -> Whole:
    score: Whole = np.sign(sums) * (np.abs(sums) >> shift)
    return score


def _product(x: Whole, weight: Whole) -> Whole:
    """x @ weight.T. Sums of whole numbers below 2**53 are exact in float64, which is far faster."""
    return (x.astype(np.float64) @ weight.T.astype(np.float64)).astype(np.int64)


def _convolved(step: Step, x: Whole, weight: Whole) -> Whole:
    """The sums of a convolution, tap by tap; weights as (O, KH, KW, C/G) or (KH, KW, C)."""
    taps = [tap for tap, _ in _taps(step, x, step.settings["zero"])]
    if step.kind == "depthwise":
        by_tap = weight.reshape(len(taps), -1)
        sums: Whole = np.stack([tap * row for tap, row in zip(taps, by_tap, strict=True)]).sum(0)
        return sums
    groups, reads = step.settings["groups"], weight.shape[3]
    parts = []
    for group, made in enumerate(np.split(weight, groups)):
        read = slice(group * reads, (group + 1) * reads)
        rows = np.concatenate([tap[..., read] for tap in taps], -1)
        parts.append(_product(rows, made.reshape(len(made), -1)))
    return np.concatenate(parts, -1)


def _taps(step: Step, x: Whole, outside: int) -> Iterator[tuple[Whole, Any]]:
    """Yield what each tap of a window reads, (N, H, W, C), and where that is inside the map."""
    settings, (_, height, width) = step.settings, step.shape
    (top, left), (step_y, step_x) = settings["padding"], settings["stride"]
    apart_y, apart_x = settings.get("dilation", (1, 1))
    kernel_h, kernel_w = settings["kernel"]
    around = ((0, 0), (top, top), (left, left), (0, 0))
    padded = np.pad(x, around, constant_values=outside)
    within = np.pad(np.ones_like(x), around)
    for ky in range(kernel_h):
        for kx in range(kernel_w):
            y, x_at = ky * apart_y, kx * apart_x
            place = (
                slice(None),
                slice(y, y + (height - 1) * step_y + 1, step_y),
                slice(x_at, x_at + (width - 1) * step_x + 1, step_x),
            )
            yield padded[place], within[place]
