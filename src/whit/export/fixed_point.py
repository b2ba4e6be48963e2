"""Factors as whole numbers: an output is (sum * factor + offset) without its low bits.

Every product and sum is bounded here, when a network is exported; what could overflow is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp

import numpy as np
from numpy.typing import NDArray

from whit.errors import ModelError

_MOST = 62  # bits of a sum in int64, with one to spare
_LEAST_SHIFT = 8  # bits behind the point; fewer would be a poor factor
_SCORE_BITS = 31
_NARROW = 2**15 - 1
NEAR = 1 / 8  # of a level: what narrow factors may be off by at the far ends of a sum


@dataclass(frozen=True)
class Fixed:
    """Whole factors and offsets, an output each, and the shift of all of them.

    Wide ones are int32 and int64, narrow ones int16; a narrow offset counts `step` each.
    """

    factors: NDArray[np.int32] | NDArray[np.int16]
    offsets: NDArray[np.int64] | NDArray[np.int16]
    shift: int
    step: int = 1

    @property
    def is_narrow(self) -> bool:
        return self.factors.dtype == np.int16


def fixed(
    name: str,
    factors: NDArray[np.float64],
    offsets: NDArray[np.float64],
    bounds: tuple[NDArray[np.int64], NDArray[np.int64]],
    moved: NDArray[np.int64] | int = 0,
    *,
    rounded: bool = True,
    narrow: bool = False,
) -> Fixed:
    """Return sum * factor + offset, by channel, for sums from bounds[0] to bounds[1].

    moved: what each sum is too large by; `rounded`: for a byte, to the nearest, and else for a
    score, towards zero; `narrow`: for a byte, in 16 bits each where that is near enough.

    Raises ModelError naming the operation when a sum could leave int32, or a score.
    """
    low, high = (np.broadcast_to(bound, factors.shape) for bound in bounds)
    moves = np.broadcast_to(np.asarray(moved, np.int64), factors.shape)
    if max(int(high.max()), -int(low.min())) >= 2**31:
        raise _overflow(name, "a sum of its products could leave 32 bits")
    # Wanted: factors below 2**31, and every sum of two products within 62 bits.
    shift = 31 - frexp(float(np.abs(factors).max()))[1]
    shift = min(shift, _MOST - 1) if np.any(factors) else 31
    while shift >= _LEAST_SHIFT:
        found = _at(factors, offsets, moves, shift, rounded)
        ends = [
            int(end) * int(factor) + offset
            for factor, offset, least, most in zip(*found, low, high, strict=True)
            for end in (least, most, 0)
        ]
        if all(abs(end) < 2**_MOST for end in [*ends, *found[1]]):
            if not rounded and any(abs(end) >> shift >= 2**_SCORE_BITS for end in ends):
                raise _overflow(name, "a score could leave 32 bits")
            wide = Fixed(np.array(found[0], np.int32), np.array(found[1], np.int64), shift)
            if not narrow:
                return wide
            return _narrowed(factors, offsets, low, high, moves, shift) or wide
        shift -= 1
    raise _overflow(name, "an output could leave 64 bits")


def _narrowed(
    factors: NDArray[np.float64],
    offsets: NDArray[np.float64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    moves: NDArray[np.int64],
    shift: int,
) -> Fixed | None:
    """Return the same in a third of the bytes, where that is near enough for a byte."""
    whole, sums = _at(factors, offsets, moves, shift, True)
    while max(map(abs, whole)) > _NARROW:
        shift -= 1
        if shift < _LEAST_SHIFT:
            return None
        whole, sums = _at(factors, offsets, moves, shift, True)
    farthest = np.maximum(np.abs(low - moves), np.abs(high - moves))
    off = np.abs(np.array(whole) / 2.0**shift - factors) * farthest
    step = 1 << max(0, max(map(abs, sums)).bit_length() - 15)
    rounded = [round(each / step) for each in sums]
    if off.max() > NEAR or step > NEAR * 2**shift or max(map(abs, rounded)) > _NARROW:
        return None
    return Fixed(np.array(whole, np.int16), np.array(rounded, np.int16), shift, step)


def _at(
    factors: NDArray[np.float64],
    offsets: NDArray[np.float64],
    moves: NDArray[np.int64],
    shift: int,
    rounded: bool,
) -> tuple[list[int], list[int]]:
    whole = [min(2**31 - 1, max(-(2**31) + 1, round(float(f) * 2**shift))) for f in factors]
    half = 1 << (shift - 1) if rounded else 0
    return whole, [
        round(float(offset) * 2**shift) - factor * int(moved) + half
        for offset, factor, moved in zip(offsets, whole, moves, strict=True)
    ]


def _overflow(name: str, why: str) -> ModelError:
    return ModelError(f"{name}: cannot be exported in int8: {why}.")
