"""Fixed-point requantization: an output is (sum * factor + offset) >> shift.

All products and sums are bounded at export time; a network that could overflow is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.errors import ModelError
from whit.training.optimization.qat import qmax

BYTE_RANGE = (np.zeros(1, np.int64), np.full(1, 255, np.int64))
_MAX_BITS = 62  # of a sum in int64; one bit of margin
_MIN_SHIFT = 8  # fractional bits; with fewer, factors would be inaccurate
MAX_ERROR = 1 / 8  # quantization steps: error of a narrow factor or offset, at worst


@dataclass(frozen=True)
class FixedPointMultiplier:
    """Integer factors and offsets per output channel, and their common shift.

    Wide ones are int32 and int64; narrow ones have 8 or 16 bits, and offsets are multiplied by
    `offset_scale`.
    """

    factors: NDArray[np.integer[Any]]
    offsets: NDArray[np.integer[Any]]
    shift: int
    offset_scale: int = 1

    def channel_settings(self) -> dict[str, Any]:
        """Return the settings of a step whose factors and offsets are constants."""
        types = (str(self.factors.dtype), str(self.offsets.dtype))
        return {"shift": self.shift, "offset_scale": self.offset_scale, "types": types}


def scalar_multiplier(
    name: str, factor: float, offset: float, low: int, high: int, excess: int = 0, **kind: bool
) -> dict[str, int]:
    """Return the settings of a step with a scalar factor; arguments: `quantize_multiplier`."""
    bounds = np.full(1, low, np.int64), np.full(1, high, np.int64)
    one = quantize_multiplier(name, np.array([factor]), np.array([offset]), bounds, excess, **kind)
    return {"factor": int(one.factors[0]), "offset": int(one.offsets[0]), "shift": one.shift}


def quantize_multiplier(
    name: str,
    factors: NDArray[np.float64],
    offsets: NDArray[np.float64],
    bounds: tuple[NDArray[np.int64], NDArray[np.int64]],
    excess: NDArray[np.int64] | int = 0,
    *,
    rounded: bool = True,
    bits: int | None = None,
) -> FixedPointMultiplier:
    """Return factors and offsets in fixed point, for sums from bounds[0] to bounds[1].

    excess: the contribution of the inputs' zero point to each sum; rounded: to the nearest
    integer, else toward zero (logits); bits: bits per weight if narrow types are allowed. 8-bit
    factors are used for weights of fewer than 8 bits only.

    Raises ModelError naming the operation if a sum, an output or a logit could overflow.
    """
    low, high = (np.broadcast_to(bound, factors.shape) for bound in bounds)
    max_logit = 2**31 - 2 * _max_logit_error(bits)  # factor and offset may each have the error
    excesses = np.broadcast_to(np.asarray(excess, np.int64), factors.shape)
    real = _RealMultiplier(factors, offsets, low, high, excesses, rounded)
    if max(int(high.max()), -int(low.min())) >= 2**31:
        raise _overflow(name, "a sum of its products could overflow int32")
    # The largest shift with factors below 2**31, and every sum of two products within 62 bits.
    shift = 31 - frexp(float(np.abs(factors).max()))[1]
    shift = min(shift, _MAX_BITS - 1) if np.any(factors) else 31
    while shift >= _MIN_SHIFT:
        numbers = real.at(shift)
        ends = [
            int(end) * factor + offset
            for factor, offset, *bound in zip(*numbers, low, high, strict=True)
            for end in (*bound, 0)
        ]
        if all(abs(end) < 2**_MAX_BITS for end in [*ends, *numbers[1]]):
            if not rounded and any(abs(end) >> shift >= max_logit for end in ends):
                raise _overflow(name, "a logit could overflow int32")
            integers = np.array(numbers[0], np.int32), np.array(numbers[1], np.int64)
            wide = FixedPointMultiplier(*integers, shift)
            if bits is None:
                return wide
            narrow = _with_8_bits(real, shift, bits) if bits < 8 and rounded else None
            return narrow or _with_16_bits(real, shift, bits) or wide
        shift -= 1
    raise _overflow(name, "an output could overflow int64")


@dataclass(frozen=True)
class _RealMultiplier:
    """Real factors and offsets, and the bounds of the sums."""

    factors: NDArray[np.float64]
    offsets: NDArray[np.float64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    excesses: NDArray[np.int64]
    rounded: bool

    def at(self, shift: int) -> tuple[list[int], list[int]]:
        """Return integer factors and offsets with `shift` fractional bits."""
        max_factor = 2**31 - 1
        exact = (round(float(factor) * 2**shift) for factor in self.factors)
        factors = [min(max_factor, max(-max_factor, factor)) for factor in exact]
        half = 1 << (shift - 1) if self.rounded else 0
        return factors, [
            round(float(offset) * 2**shift) - factor * int(excess) + half
            for offset, factor, excess in zip(self.offsets, factors, self.excesses, strict=True)
        ]

    def up_to(
        self, max_factor: int, max_shift: int, min_shift: int
    ) -> tuple[list[int], list[int], int] | None:
        """Return factors, offsets and shift for the largest shift that keeps factors in range."""
        for shift in range(max_shift, min_shift - 1, -1):
            factors, offsets = self.at(shift)
            if max(map(abs, factors)) <= max_factor:
                return factors, offsets, shift
        return None


def _max_logit_error(bits: int | None) -> int:
    """Return the error of a logit in units of 1/65536, for the largest sum that weights allow."""
    return 1024 if bits and bits < 8 else 256  # low-bit weights are less exact themselves


def _with_16_bits(real: _RealMultiplier, shift: int, bits: int) -> FixedPointMultiplier | None:
    """Return 16-bit factors and offsets if their error is small for all sums."""
    min_shift = _MIN_SHIFT if real.rounded else 0
    if (numbers := real.up_to(2**15 - 1, shift, min_shift)) is None:
        return None
    factors, offsets, shift = numbers
    max_error = MAX_ERROR if real.rounded else _max_logit_error(bits)
    low, high = real.low - real.excesses, real.high - real.excesses
    error = np.abs(np.array(factors) / 2.0**shift - real.factors)
    if (error * np.maximum(np.abs(low), np.abs(high))).max() > max_error:
        return None
    return _with_offsets(np.array(factors, np.int16), offsets, shift, max_error)


def _with_8_bits(real: _RealMultiplier, shift: int, bits: int) -> FixedPointMultiplier | None:
    """Return 8-bit factors if none is much smaller than the largest.

    The relative error of each is at most 1/128, or, if that is more, a quarter of the relative
    rounding error of the largest weight.
    """
    # The error of each factor is checked below, so any number of fractional bits will do; rounding
    # to the nearest integer needs one.
    if real.factors.min() <= 0 or (numbers := real.up_to(255, shift, 1)) is None:
        return None
    factors, offsets, shift = numbers
    error = np.abs(np.array(factors) / 2.0**shift / real.factors - 1)
    if error.max() > max(1 / 128, 1 / (8 * qmax(bits))):
        return None
    return _with_offsets(np.array(factors, np.uint8), offsets, shift, MAX_ERROR)


def _with_offsets(
    factors: NDArray[np.integer[Any]], offsets: list[int], shift: int, max_error: float
) -> FixedPointMultiplier | None:
    """Add offsets as integers times an offset scale of at most `max_error`; None if impossible."""
    largest = max(map(abs, offsets))
    is_byte = factors.dtype == np.uint8
    if is_byte and len(set(offsets)) == 1 and 0 < offsets[0] < 2**31:
        ones = np.ones(len(offsets), np.int8)
        return FixedPointMultiplier(factors, ones, shift, offsets[0])
    for dtype in (np.int8, np.int16) if is_byte else (np.int16,):
        limit = int(np.iinfo(dtype).max)
        scale = 1 << max(0, largest.bit_length() - limit.bit_length())
        counts = [round(each / scale) for each in offsets]
        # Kernels take offset_scale as int32.
        if scale < 2**31 and scale <= max_error * 2**shift and max(map(abs, counts)) <= limit:
            return FixedPointMultiplier(factors, np.array(counts, dtype), shift, scale)
    return None


def _overflow(name: str, why: str) -> ModelError:
    return ModelError(f"{name}: cannot be exported in int8: {why}.")
