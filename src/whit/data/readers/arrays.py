"""Images and labels from the arrays of a file: the values and shapes that readers accept.

Pixels are

- uint8, or integers or floats that are all integral and in 0..255;
- floats in 0..1 that are all multiples of 1/255, as other tools store the same bytes;
- booleans: 0 and 255.

Anything else, such as normalized images, is refused: whit stores uint8 and normalizes itself.

N images, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from whit.data.splits import Labels, Pixels, RawSplit, Role, SplitName
from whit.errors import DataError

Key = TypeVar("Key")
ArrayReader = Callable[..., npt.NDArray[Any]]
_LABEL_ADVICE = {  # by the kind of their type
    "U": "; if they are names, `classes, labels = numpy.unique(names, return_inverse=True)` gives "
    "integers: store both, the names as `classes`",
    "f": "; if they are integral, store labels.astype(int)",
}
_CHUNK = 1 << 20  # values converted at once


@dataclass(frozen=True)
class ArrayHeader:
    """What a file declares of its array, before the values are read."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


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
    # The largest rounding error of k/255 in units of 1/255: float16 has 11 bits.
    tolerance = 0.13 if values.dtype == np.float16 else 1e-4
    pixels = np.empty_like(values, np.uint8, order="A")
    flat_pixels = pixels.reshape(-1, order="A")
    in_range = low >= 0 and high * scale <= 255  # False for NaN
    for start in range(0, len(flat), _CHUNK):
        chunk = flat[start : start + _CHUNK].astype(np.float64) * scale
        nearest = np.rint(chunk)
        if not (in_range and np.all(np.abs(chunk - nearest) < tolerance)):
            raise DataError(
                f"{name}: expected pixels as integers from 0 to 255 or as multiples of 1/255 "
                f"from 0 to 1, found {values.dtype} between {low:.6g} and {high:.6g}; store the "
                "original bytes (uint8), whit normalizes them itself"
            )
        flat_pixels[start : start + _CHUNK] = nearest
    return pixels


def describe_range(values: npt.NDArray[Any]) -> str:
    """Return how pixels that `to_uint8` accepts are stored: the range that is read as 0 to 255."""
    if values.dtype.kind == "b":
        return "booleans"
    if values.dtype.kind == "f" and values.size and values.max() <= 1:
        return "floats from 0 to 1"
    return "bytes"


def check_pixel_type(dtype: np.dtype[Any], name: str) -> None:
    """Raise DataError unless pixels of this type could be accepted."""
    if dtype.kind not in "biuf":
        raise DataError(f"{name}: expected pixels as numbers, found {dtype}")


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
    sizes = list(shape[1:])
    channels = 1 if axis is None else sizes.pop(axis - 1)
    return channels, sizes[0], sizes[1]


def find_channel_axis(shape: tuple[int, ...], name: str) -> int | None:
    """Return the index of the channel axis, 1 or 3, or None. Raises DataError as `to_nchw`."""
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
        f"{name}: expected images of shape (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 "
        f"channels, found {format_shape(shape)}"
    )


def to_labels(labels: npt.NDArray[Any], name: str) -> Labels:
    """Return integer labels of shape (N,) or (N, 1) as int64 (N,). Raises DataError."""
    check_label_shape(labels.shape, labels.dtype, name)
    if labels.size and int(labels.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{name}: expected labels from 0 to K-1, found {labels.max()}")
    return labels.reshape(-1).astype(np.int64)


def check_label_shape(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    """Raise DataError unless labels are integers, one for each image."""
    if len(shape) == 2 and shape[1] > 1:
        raise DataError(
            f"{name}: expected one label for each image, shape (N,), found {shape[0]:,} rows of "
            f"{shape[1]}; if they are one-hot, store labels.argmax(1)"
        )
    if len(shape) not in (1, 2) or dtype.kind not in "iu":
        raise DataError(
            f"{name}: expected integers of shape (N,), one label for each image, found "
            f"{dtype} of shape {shape}{_LABEL_ADVICE.get(dtype.kind, '')}"
        )


def infer_classes(labels: Labels, name: str) -> tuple[tuple[str, ...], int]:
    """Return (the names of the classes, the label of the first), inferred from training labels.

    The first label is 0, or 1 if there is no 0, as in EMNIST's letters. Every label from the
    first to the largest must occur. Raises DataError.
    """
    occurring = np.unique(labels)
    if not len(occurring):
        raise DataError(f"{name}: expected training labels, found none")
    first, last = int(occurring[0]), int(occurring[-1])
    start = 1 if first == 1 else 0
    if first < 0:
        raise DataError(f"{name}: expected labels from 0 to K-1, found {first}")
    if len(occurring) != last - start + 1:
        pairs = enumerate(occurring.tolist(), start)  # ascending: the first that differs is missing
        missing = next(expected for expected, label in pairs if label != expected)
        raise DataError(
            f"{name}: expected an image of every class from {start} to the largest label {last:,}, "
            f"found none of class {missing} ({len(occurring):,} different labels); is a label "
            "wrong?"
        )
    return tuple(str(label) for label in range(start, last + 1)), start


def read_all(readers: Mapping[Key, ArrayReader]) -> dict[Key, npt.NDArray[Any]]:
    """Call all `readers`. Raises DataError with the problems of all that fail."""
    arrays: dict[Key, npt.NDArray[Any]] = {}
    problems: list[str] = []
    for key, read in readers.items():
        try:
            arrays[key] = read()
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return arrays


def to_splits(
    arrays: Mapping[tuple[SplitName, Role], npt.NDArray[Any]],
    names: Mapping[tuple[SplitName, Role], str],
    stored: Mapping[tuple[SplitName, Role], str] | None = None,
) -> dict[SplitName, RawSplit]:
    """Return the splits of checked images and labels; `names` are for messages."""
    return {
        split: RawSplit(
            arrays[split, "images"],
            arrays[split, "labels"],
            names[split, "images"],
            names[split, "labels"],
            (stored or {}).get((split, role), "bytes"),
        )
        for split, role in arrays
        if role == "images"
    }
