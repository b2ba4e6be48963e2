"""Pixels of an array file as bytes: which numbers are accepted, and what they mean.

- unsigned bytes, or other whole numbers or floats that are all whole and in 0..255;
- floats in 0..1 that are all multiples of 1/255, as other tools store the same bytes;
- booleans: 0 and 255.

Anything else, such as normalised images, is refused: whit stores bytes and normalises itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from whit.errors import DataError

Pixels = npt.NDArray[np.uint8]

_PIECE = 1 << 20  # values converted at once


def as_bytes(values: npt.NDArray[Any], name: str) -> Pixels:
    """Return the values as uint8, of the same shape. Raises DataError."""
    if values.dtype == np.uint8 or not values.size:
        return values.astype(np.uint8, copy=False)
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    check_pixel_type(values.dtype, name)
    flat = values.reshape(-1, order="A")
    low, high = flat.min(), flat.max()
    scale = 255 if values.dtype.kind == "f" and high <= 1 else 1
    pixels = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _PIECE):
        piece = flat[start : start + _PIECE]
        if values.dtype.kind == "f":
            piece = piece.astype(np.float64) * scale
            nearest = np.rint(piece)
            with np.errstate(invalid="ignore"):  # infinities are refused below
                exact = bool(np.all(np.abs(piece - nearest) < _tolerance(values.dtype)))
            piece = nearest
        else:
            exact = True
        if not (low >= 0 and high * scale <= 255 and exact):  # also refuses NaN
            raise DataError(
                f"{name}: wanted pixels as whole numbers from 0 to 255 or as multiples of 1/255 "
                f"from 0 to 1, found {values.dtype} between {low:.6g} and {high:.6g}; store the "
                "original bytes (uint8), whit normalises them itself"
            )
        pixels[start : start + _PIECE] = piece
    fortran = values.flags.f_contiguous and not values.flags.c_contiguous
    return pixels.reshape(values.shape, order="F" if fortran else "C")


def check_pixel_type(dtype: np.dtype[Any], name: str) -> None:
    """Raise DataError unless pixels of this type could be accepted."""
    if dtype.kind not in "biuf":
        raise DataError(f"{name}: wanted pixels as numbers, found {dtype}")


def _tolerance(dtype: np.dtype[Any]) -> float:
    """How far k/255 may be from its rounding, in units of 1/255: float16 keeps 11 bits."""
    return 0.13 if dtype.itemsize == 2 else 1e-4
