"""Build a Dataset from the splits of a reader, and validate images, labels and splits.

N images, C channels, H W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from whit.data.holdout import TEST_DIVISOR, holdout_split
from whit.data.readers.arrays import format_shape, infer_classes
from whit.data.splits import Dataset, RawSplit, Split, SplitName
from whit.data.value_ranges import check_ranges
from whit.errors import DataError


def build_dataset(
    name: str,
    source: str,
    raw_splits: Mapping[SplitName, RawSplit],
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Return the data set of `raw_splits` (train, and optionally val and test), validated.

    classes: their names, if the reader knows them; else they are inferred from train

    Without a test split, one image in TEST_DIVISOR is held out from train for it (see holdout.py).
    val images that also occur in train are dropped, so that the two never overlap. Raises
    DataError with all problems.
    """
    problems = [problem for raw in raw_splits.values() for problem in _split_problems(raw)]
    train = raw_splits["train"]
    start = 0
    if classes is None and len(train.labels):
        try:
            classes, start = infer_classes(train.labels, train.labels_name)
        except DataError as error:
            problems += error.problems
    if classes is not None:
        problems += _class_problems(raw_splits, classes, start)
    problems += _shape_problems(raw_splits)
    range_problems, range_notes = check_ranges(raw_splits)
    problems += range_problems
    if problems:
        raise DataError(problems)
    assert classes is not None

    splits = {}
    for key, raw in raw_splits.items():
        images = np.require(raw.images, requirements=["C", "W"])  # which torch may own
        splits[key] = Split(key, torch.from_numpy(images), torch.from_numpy(raw.labels - start))
    if "test" not in splits:
        size = len(splits["train"]) // TEST_DIVISOR
        splits["train"], splits["test"] = holdout_split(splits["train"], size, "test")
    val: Split | None = None
    notes = [*(note for raw in raw_splits.values() for note in raw.notes), *range_notes]
    if "val" in splits:
        val, dropped = _drop_copies(splits["val"], splits["train"], raw_splits["val"].images_name)
        notes += dropped
    return Dataset(
        name,
        splits["train"],
        val,
        splits["test"],
        tuple(classes),
        source,
        tuple(notes),
        any(raw.is_transposed for raw in raw_splits.values()),
    )


def _split_problems(raw: RawSplit) -> list[str]:
    num_images, num_labels = len(raw.images), len(raw.labels)
    problems = []
    if num_images != num_labels:
        problems.append(
            f"{raw.labels_name}: expected {num_images:,} labels, one for each image in "
            f"{raw.images_name}, found {num_labels:,}; do these two files match?"
        )
    if not raw.images.size:
        shape = format_shape(raw.images.shape)
        problems.append(f"{raw.images_name}: expected at least one image, found {shape} values")
    elif raw.images.shape[1] not in (1, 3):
        problems.append(
            f"{raw.images_name}: expected images of 1 or 3 channels, found {raw.images.shape[1]}"
        )
    if not num_labels:
        problems.append(f"{raw.labels_name}: expected at least one label, found none")
    return problems


def _class_problems(
    raw_splits: Mapping[SplitName, RawSplit], classes: Sequence[str], start: int
) -> list[str]:
    """Return the problems of the labels, given the K classes; `start` is the first label."""
    problems = []
    last = start + len(classes) - 1
    train_name = raw_splits["train"].labels_name
    if len(classes) < 2:
        problems.append(f"{train_name}: expected at least 2 classes, found {len(classes)}")
    problems += [
        f"{train_name}: expected class names in printable characters, found {name!r}"
        for name in classes
        if not name.isprintable()
    ]
    if len(set(classes)) < len(classes):
        double = next(name for name in classes if list(classes).count(name) > 1)
        problems.append(f"{train_name}: expected different class names, found {double!r} twice")
    for key, raw in raw_splits.items():
        outside = np.flatnonzero((raw.labels < start) | (raw.labels > last))
        if len(outside):
            index = int(outside[0])
            problems.append(
                f"{raw.labels_name}: expected labels from {start} to {last}, as in training, "
                f"found {int(raw.labels[index])} at index {index} ({len(outside):,} such labels)"
            )
        if key == "train":
            occurring = set(np.unique(raw.labels).tolist())
            if absent := [n for n in range(start, last + 1) if n not in occurring]:
                names = ", ".join(repr(classes[label - start]) for label in absent[:5])
                problems.append(
                    f"{raw.labels_name}: expected training images of all {len(classes)} classes, "
                    f"found none of {names}"
                )
    return problems


def _shape_problems(raw_splits: Mapping[SplitName, RawSplit]) -> list[str]:
    train = raw_splits["train"]
    return [
        f"{raw.images_name}: expected images of {format_shape(train.images.shape[1:])} (channels x "
        f"height x width), as in {train.images_name}, found {format_shape(raw.images.shape[1:])}"
        for raw in raw_splits.values()
        if raw.images.shape[1:] != train.images.shape[1:]
    ]


def _drop_copies(val: Split, train: Split, name: str) -> tuple[Split, tuple[str, ...]]:
    """Return val without the images that occur in train, and a note if there were any."""
    in_train = set(train.digests)
    keep = torch.tensor([digest not in in_train for digest in val.digests])
    num_dropped = len(val) - int(keep.sum())
    if not num_dropped:
        return val, ()
    if num_dropped == len(val):
        raise DataError(
            f"{name}: all {len(val):,} val images occur in train byte for byte, so "
            "an evaluation on them is meaningless; provide other val images, or none and let "
            "whit hold out val from train"
        )
    return Split("val", val.images[keep], val.labels[keep]), (
        f"{name}: {num_dropped:,} of {len(val):,} val images occur in train byte for byte and "
        "are dropped from val",
    )
