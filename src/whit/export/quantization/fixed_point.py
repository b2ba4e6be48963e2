"""Factors as whole numbers: an output is (sum * factor + offset) without its low bits.

Every product and sum is bounded here, when a network is exported; what could overflow is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.errors import ModelError

_MOST = 62  # bits of a sum in int64, with one to spare
_LEAST_SHIFT = 8  # bits behind the point; fewer would be a poor factor
NEAR = 1 / 8  # of a level: what narrow numbers may be off by at the far ends of a sum
_NEAR_SCORE = 256  # units of a score, of which a logit has 65,536
_MOST_SCORE = 2**31 - 2 * _NEAR_SCORE  # a narrow factor and its offset may each be off
_NEAR_FACTOR = 1 / 128  # of a factor: what a byte may be off by; weights of 7 bits are off as far


@dataclass(frozen=True)
class Fixed:
    """Whole factors and offsets, an output each, and the shift of all of them.

    Wide ones are int32 and int64. Narrow ones are a byte or int16 each, and an offset counts
    `step`.
    """

    factors: NDArray[np.integer[Any]]
    offsets: NDArray[np.integer[Any]]
    shift: int
    step: int = 1


def fixed(
    name: str,
    factors: NDArray[np.float64],
    offsets: NDArray[np.float64],
    bounds: tuple[NDArray[np.int64], NDArray[np.int64]],
    moved: NDArray[np.int64] | int = 0,
    *,
    rounded: bool = True,
    bits: int | None = None,
) -> Fixed:
    """Return sum * factor + offset, by channel, for sums from bounds[0] to bounds[1].

    moved: what each sum is too large by; `rounded`: for a byte, to the nearest, and else for a
    score, towards zero; `bits`: of the weights, where narrow numbers may do. Those of weights of
    fewer than 8 bits may have factors of a byte.

    Raises ModelError naming the operation when a sum could leave int32, or a score.
    """
    low, high = (np.broadcast_to(bound, factors.shape) for bound in bounds)
    moves = np.broadcast_to(np.asarray(moved, np.int64), factors.shape)
    wanted = _Wanted(factors, offsets, low, high, moves, rounded)
    if max(int(high.max()), -int(low.min())) >= 2**31:
        raise _overflow(name, "a sum of its products could leave 32 bits")
    # Wanted: factors below 2**31, and every sum of two products within 62 bits.
    shift = 31 - frexp(float(np.abs(factors).max()))[1]
    shift = min(shift, _MOST - 1) if np.any(factors) else 31
    while shift >= _LEAST_SHIFT:
        found = wanted.at(shift)
        ends = [
            int(end) * int(factor) + offset
            for factor, offset, least, most in zip(*found, low, high, strict=True)
            for end in (least, most, 0)
        ]
        if all(abs(end) < 2**_MOST for end in [*ends, *found[1]]):
            if not rounded and any(abs(end) >> shift >= _MOST_SCORE for end in ends):
                raise _overflow(name, "a score could leave 32 bits")
            wide = Fixed(np.array(found[0], np.int32), np.array(found[1], np.int64), shift)
            if bits is None:
                return wide
            small = _of_bytes(wanted, shift) if bits < 8 and rounded else None
            return small or _of_words(wanted, shift) or wide
        shift -= 1
    raise _overflow(name, "an output could leave 64 bits")


@dataclass(frozen=True)
class _Wanted:
    """Real factors and offsets, and what the sums lie between."""

    factors: NDArray[np.float64]
    offsets: NDArray[np.float64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    moves: NDArray[np.int64]
    rounded: bool

    def at(self, shift: int) -> tuple[list[int], list[int]]:
        """Return whole factors and offsets with `shift` bits behind the point."""
        whole = [
            min(2**31 - 1, max(-(2**31) + 1, round(float(f) * 2**shift))) for f in self.factors
        ]
        half = 1 << (shift - 1) if self.rounded else 0
        return whole, [
            round(float(offset) * 2**shift) - factor * int(moved) + half
            for offset, factor, moved in zip(self.offsets, whole, self.moves, strict=True)
        ]

    def up_to(self, most: int, most_shift: int) -> tuple[list[int], list[int], int] | None:
        """Return factors of at most `most`, their offsets and their shift, the largest there is."""
        least = _LEAST_SHIFT if self.rounded else 0
        for shift in range(most_shift, least - 1, -1):
            whole, sums = self.at(shift)
            if max(map(abs, whole)) <= most:
                return whole, sums, shift
        return None


def _of_words(wanted: _Wanted, shift: int) -> Fixed | None:
    """Return factors and offsets of 16 bits, where they are near enough anywhere in a sum."""
    if (found := wanted.up_to(2**15 - 1, shift)) is None:
        return None
    whole, sums, shift = found
    near = NEAR if wanted.rounded else _NEAR_SCORE
    low, high = wanted.low - wanted.moves, wanted.high - wanted.moves
    off = np.abs(np.array(whole) / 2.0**shift - wanted.factors)
    if (off * np.maximum(np.abs(low), np.abs(high))).max() > near:
        return None
    return _with_offsets(np.array(whole, np.int16), sums, shift, near)


def _of_bytes(wanted: _Wanted, shift: int) -> Fixed | None:
    """Return factors of 8 bits, where none of them is far smaller than the largest."""
    if wanted.factors.min() <= 0 or (found := wanted.up_to(255, shift)) is None:
        return None
    whole, sums, shift = found
    off = np.abs(np.array(whole) / 2.0**shift / wanted.factors - 1)
    if off.max() > _NEAR_FACTOR:
        return None
    return _with_offsets(np.array(whole, np.uint8), sums, shift, NEAR)


def _with_offsets(
    factors: NDArray[np.integer[Any]], sums: list[int], shift: int, near: float
) -> Fixed | None:
    """Give factors their offsets: each a count of equal steps, none larger than `near`."""
    largest = max(map(abs, sums))
    if factors.dtype == np.uint8 and len(set(sums)) == 1 and 0 < sums[0] < 2**31:
        return Fixed(factors, np.ones(len(sums), np.int8), shift, sums[0])
    kinds = (np.int8, np.int16) if factors.dtype == np.uint8 else (np.int16,)
    for kind in kinds:
        most = int(np.iinfo(kind).max)
        step = 1 << max(0, largest.bit_length() - most.bit_length())
        rounded = [round(each / step) for each in sums]
        # The kernels take a step as int32.
        if step < 2**31 and step <= near * 2**shift and max(map(abs, rounded)) <= most:
            return Fixed(factors, np.array(rounded, kind), shift, step)
    return None


def _overflow(name: str, why: str) -> ModelError:
    return ModelError(f"{name}: cannot be exported in int8: {why}.")
