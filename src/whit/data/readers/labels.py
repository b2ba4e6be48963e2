"""Labels and class names of a data set, checked by every reader.

N images, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from whit.data.splits import Labels
from whit.errors import DataError


def to_labels(labels: npt.NDArray[Any], name: str) -> Labels:
    """Return integer labels of shape (N,) or (N, 1) as int64 (N,). Raises DataError."""
    check_label_shape(labels.shape, labels.dtype, name)
    if labels.size and int(labels.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{name}: wanted labels from 0 to K-1, found {labels.max()}")
    return labels.reshape(-1).astype(np.int64)


def check_label_shape(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    """Raise DataError unless labels are integers, one for each image."""
    if len(shape) == 2 and shape[1] > 1:
        raise DataError(
            f"{name}: wanted one label for each image, shape (N,), found {shape[0]:,} rows of "
            f"{shape[1]}; if they are one-hot, store labels.argmax(1)"
        )
    if len(shape) not in (1, 2) or dtype.kind not in "iu":
        raise DataError(
            f"{name}: wanted whole numbers of shape (N,), one label for each image, found "
            f"{dtype} of shape {shape}"
        )


def infer_classes(labels: Labels, name: str) -> tuple[tuple[str, ...], int]:
    """Return (the names of the classes, the label of the first), inferred from training labels.

    The first label is 0, or 1 if there is no 0, as in EMNIST's letters. Every label from the
    first to the largest must occur. Raises DataError.
    """
    occurring = np.unique(labels)
    if not len(occurring):
        raise DataError(f"{name}: wanted training labels, found none")
    first, last = int(occurring[0]), int(occurring[-1])
    start = 1 if first == 1 else 0
    if first < 0:
        raise DataError(f"{name}: wanted labels from 0 to K-1, found {first}")
    if len(occurring) != last - start + 1:
        pairs = enumerate(occurring.tolist(), start)  # rising: the first that differs is missing
        missing = next(expected for expected, label in pairs if label != expected)
        raise DataError(
            f"{name}: wanted an image of every class from {start} to the largest label {last:,}, "
            f"found none of class {missing} ({len(occurring):,} different labels); is a label "
            "wrong?"
        )
    return tuple(str(label) for label in range(start, last + 1)), start
