"""Images of an array file as uint8 (N, C, H, W): the accepted pixel values and shapes.

- uint8, or integers or floats that are all integral and in 0..255;
- floats in 0..1 that are all multiples of 1/255, as other tools store the same bytes;
- booleans: 0 and 255.

Anything else, such as normalized images, is refused: whit stores uint8 and normalizes itself.

N images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from whit.data.splits import Pixels
from whit.errors import DataError

_CHUNK = 1 << 20  # values converted at once


def to_uint8(values: npt.NDArray[Any], name: str) -> Pixels:
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
    for start in range(0, len(flat), _CHUNK):
        chunk = flat[start : start + _CHUNK]
        if values.dtype.kind == "f":
            chunk = chunk.astype(np.float64) * scale
            nearest = np.rint(chunk)
            with np.errstate(invalid="ignore"):  # infinities are refused below
                exact = bool(np.all(np.abs(chunk - nearest) < _tolerance(values.dtype)))
            chunk = nearest
        else:
            exact = True
        if not (low >= 0 and high * scale <= 255 and exact):  # also refuses NaN
            raise DataError(
                f"{name}: wanted pixels as whole numbers from 0 to 255 or as multiples of 1/255 "
                f"from 0 to 1, found {values.dtype} between {low:.6g} and {high:.6g}; store the "
                "original bytes (uint8), whit normalises them itself"
            )
        pixels[start : start + _CHUNK] = chunk
    fortran = values.flags.f_contiguous and not values.flags.c_contiguous
    return pixels.reshape(values.shape, order="F" if fortran else "C")


def check_pixel_type(dtype: np.dtype[Any], name: str) -> None:
    """Raise DataError unless pixels of this type could be accepted."""
    if dtype.kind not in "biuf":
        raise DataError(f"{name}: wanted pixels as numbers, found {dtype}")


def _tolerance(dtype: np.dtype[Any]) -> float:
    """Return the largest rounding error of k/255 in units of 1/255: float16 has 11 bits."""
    return 0.13 if dtype.itemsize == 2 else 1e-4


def format_shape(shape: Iterable[int]) -> str:
    """Return sizes as text, such as `1x28x28`."""
    return "x".join(map(str, shape))


def to_nchw(images: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return images of shape (N, H, W), (N, C, H, W) or (N, H, W, C) as a view (N, C, H, W).

    Raises DataError for other shapes, and where both channel orders are possible.
    """
    axis = find_channel_axis(images.shape, name)
    return images[:, None] if axis is None else np.moveaxis(images, axis, 1)


def to_chw_shape(shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    """Return (C, H, W) of images of `shape`; raises DataError as `to_nchw` does."""
    axis = find_channel_axis(shape, name)
    if axis is None:
        return 1, shape[1], shape[2]
    rest = tuple(size for i, size in enumerate(shape[1:], start=1) if i != axis)
    return shape[axis], rest[0], rest[1]


def find_channel_axis(shape: tuple[int, ...], name: str) -> int | None:
    """Return the index of the channel dimension, 1 or 3, or None for images without one.

    Raises DataError as `to_nchw` does.
    """
    if len(shape) == 3:
        return None
    axes = [axis for axis in (1, 3) if len(shape) == 4 and shape[axis] in (1, 3)]
    if len(axes) == 1:
        return axes[0]
    if axes:
        raise DataError(
            f"{name}: found images of shape {format_shape(shape)}, whose channels could be the "
            "second or the last number; store them as (N, H, W) or in another size"
        )
    raise DataError(
        f"{name}: wanted images of shape (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 "
        f"channels, found {format_shape(shape)}"
    )
