"""From the arrays of a reader to a checked Dataset: all checks across images, labels and splits.

N images, C channels, H W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from whit.data.cut import TEST_SHARE, cut
from whit.data.pixels import Pixels
from whit.data.splits import Dataset, Split, SplitName
from whit.errors import DataError

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """What a reader found for one split.

    images: uint8 (N, C, H, W); labels: int64 (N,); the two names are for messages.
    """

    images: Pixels
    labels: Labels
    images_from: str
    labels_from: str


def as_nchw(images: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return images of shape (N, H, W), (N, C, H, W) or (N, H, W, C) as a view (N, C, H, W).

    Raises DataError for other shapes, and where both orders would be possible.
    """
    axis = channel_axis(images.shape, name)
    return images[:, None] if axis is None else np.moveaxis(images, axis, 1)


def nchw_shape(shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    """Return (C, H, W) of images of `shape`; raises DataError as `as_nchw` does."""
    axis = channel_axis(shape, name)
    if axis is None:
        return 1, shape[1], shape[2]
    rest = tuple(size for i, size in enumerate(shape[1:], start=1) if i != axis)
    return shape[axis], rest[0], rest[1]


def channel_axis(shape: tuple[int, ...], name: str) -> int | None:
    """Return where the channels are, 1 or 3, or None for images without such a dimension."""
    found = "x".join(map(str, shape))
    if len(shape) == 3:
        return None
    axes = [axis for axis in (1, 3) if len(shape) == 4 and shape[axis] in (1, 3)]
    if len(axes) == 1:
        return axes[0]
    if axes:
        raise DataError(
            f"{name}: found images of shape {found}, whose channels could be the second or the "
            "last number; store them as (N, H, W) or in another size"
        )
    raise DataError(
        f"{name}: wanted images of shape (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 "
        f"channels, found {found}"
    )


def as_labels(labels: npt.NDArray[Any], name: str) -> Labels:
    """Return integer labels of shape (N,) or (N, 1) as int64 (N,). Raises DataError."""
    check_label_shape(labels.shape, labels.dtype, name)
    if labels.size and int(labels.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{name}: wanted labels from 0 to K-1, found {labels.max()}")
    return labels.reshape(-1).astype(np.int64)


def check_label_shape(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    """Raise DataError unless labels are whole numbers, one for each image."""
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


def class_names(labels: Labels, name: str) -> tuple[tuple[str, ...], int]:
    """Return (the names of the classes, the label of the first), told from training labels.

    Labels count from 0; if there is no 0 but a 1, from 1, as in EMNIST's letters. Every label
    from the first to the largest must occur. Raises DataError.
    """
    occurring = np.unique(labels)
    if not len(occurring):
        raise DataError(f"{name}: wanted training labels, found none")
    first, last = int(occurring[0]), int(occurring[-1])
    start = 1 if first == 1 else 0
    if first < 0:
        raise DataError(f"{name}: wanted labels from 0 to K-1, found {first}")
    if len(occurring) != last - start + 1:
        known = set(occurring.tolist())
        missing = next(label for label in range(start, last + 1) if label not in known)
        raise DataError(
            f"{name}: wanted an image of every class from {start} to the largest label {last:,}, "
            f"found none of class {missing} ({len(occurring):,} different labels); is a label "
            "wrong?"
        )
    return tuple(str(label) for label in range(start, last + 1)), start


def assemble(
    name: str,
    source: str,
    parts: Mapping[SplitName, Part],
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Return the data set of `parts` (train and perhaps val and test), checked as a whole.

    `classes` are their names, where the reader knows them. Without a test split, one image in
    TEST_SHARE is cut from train for it (see cut.py). val images that also occur in train
    are left out, so that val never overlaps. Raises DataError with all problems.
    """
    problems = [problem for part in parts.values() for problem in _part_problems(part)]
    train = parts["train"]
    start = 0
    if classes is None and len(train.labels):
        try:
            classes, start = class_names(train.labels, train.labels_from)
        except DataError as error:
            problems += error.problems
    if classes is not None:
        problems += _class_problems(parts, classes, start)
    problems += _shape_problems(parts)
    if problems:
        raise DataError(problems)
    assert classes is not None

    splits = {
        key: Split(
            key,
            torch.from_numpy(_writable(part.images)),
            torch.from_numpy(_writable(part.labels - start)),
        )
        for key, part in parts.items()
    }
    if "test" not in splits:
        size = len(splits["train"]) // TEST_SHARE
        splits["train"], splits["test"] = cut(splits["train"], size, "test")
    val: Split | None = None
    left_out: tuple[str, ...] = ()
    if "val" in splits:
        val, left_out = _without_copies(splits["val"], splits["train"], parts["val"].images_from)
    return Dataset(name, splits["train"], val, splits["test"], tuple(classes), source, left_out)


def _part_problems(part: Part) -> list[str]:
    """Return what is wrong with one split alone."""
    num_images, num_labels = len(part.images), len(part.labels)
    problems = []
    if num_images != num_labels:
        problems.append(
            f"{part.labels_from}: wanted {num_images:,} labels, one for each image in "
            f"{part.images_from}, found {num_labels:,}; do the two belong together?"
        )
    if not part.images.size:
        shape = "x".join(map(str, part.images.shape))
        problems.append(f"{part.images_from}: wanted at least one image, found {shape} values")
    elif part.images.shape[1] not in (1, 3):
        problems.append(
            f"{part.images_from}: wanted images of 1 or 3 channels, found {part.images.shape[1]}"
        )
    if not num_labels:
        problems.append(f"{part.labels_from}: wanted at least one label, found none")
    return problems


def _class_problems(
    parts: Mapping[SplitName, Part], classes: Sequence[str], start: int
) -> list[str]:
    """Return what is wrong with the labels, given the K classes; `start` is the first label."""
    problems = []
    last = start + len(classes) - 1
    train_from = parts["train"].labels_from
    if len(classes) < 2:
        problems.append(f"{train_from}: wanted at least 2 classes, found {len(classes)}")
    problems += [
        f"{train_from}: wanted names of classes in printable characters, found {name!r}"
        for name in classes
        if not name.isprintable()
    ]
    if len(set(classes)) < len(classes):
        double = next(name for name in classes if list(classes).count(name) > 1)
        problems.append(f"{train_from}: wanted different names of classes, found {double!r} twice")
    for key, part in parts.items():
        wrong = np.flatnonzero((part.labels < start) | (part.labels > last))
        if len(wrong):
            index = int(wrong[0])
            problems.append(
                f"{part.labels_from}: wanted labels from {start} to {last}, as in training, "
                f"found {int(part.labels[index])} at index {index} ({len(wrong):,} such labels)"
            )
        if key == "train":
            occurring = set(np.unique(part.labels).tolist())
            absent = [label for label in range(start, last + 1) if label not in occurring]
            if absent:
                named = ", ".join(repr(classes[label - start]) for label in absent[:5])
                problems.append(
                    f"{part.labels_from}: wanted training images of all {len(classes)} classes, "
                    f"found none of {named}"
                )
    return problems


def _shape_problems(parts: Mapping[SplitName, Part]) -> list[str]:
    """Return where the images of another split are not shaped like those of train."""
    train = parts["train"]
    wanted = "x".join(map(str, train.images.shape[1:]))
    return [
        f"{part.images_from}: wanted images of {wanted} (channels x height x width), as in "
        f"{train.images_from}, found {'x'.join(map(str, part.images.shape[1:]))}"
        for part in parts.values()
        if part.images.shape[1:] != train.images.shape[1:]
    ]


def _without_copies(val: Split, train: Split, name: str) -> tuple[Split, tuple[str, ...]]:
    """Return val without the images that occur in train, and a note if there were any."""
    known = set(train.digests)
    keep = torch.tensor([digest not in known for digest in val.digests])
    left_out = len(val) - int(keep.sum())
    if not left_out:
        return val, ()
    if left_out == len(val):
        raise DataError(
            f"{name}: all {len(val):,} val images occur in train byte for byte; nothing could "
            "be judged on them; bring other images, or none and let whit cut val from train"
        )
    return Split("val", val.images[keep], val.labels[keep]), (
        f"{name}: {left_out:,} of {len(val):,} val images occur in train byte for byte and "
        "are left out of val",
    )


def _writable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a contiguous array that torch may own."""
    return np.require(array, requirements=["C", "W"])
