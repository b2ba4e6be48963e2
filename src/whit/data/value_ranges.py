"""Whether the pixels of a data set have one range of values: within a split, and in all splits.

A range that cannot belong to another is a problem; anything odd is a note, as a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from whit.data.splits import RawSplit, SplitName

# Splits whose brightest pixels differ by more are not images of the same kind.
_MAX_RATIO = 4
_CHUNK = 4096  # images compared at once


def check_ranges(raw_splits: Mapping[SplitName, RawSplit]) -> tuple[list[str], list[str]]:
    """Return the problems and the notes about the ranges of values within and between splits."""
    splits = [raw for raw in raw_splits.values() if raw.images.size]
    if not splits:
        return [], []
    brightest = [raw.images.max(axis=(1, 2, 3)) for raw in splits]  # (N,) each
    tops = [int(values.max()) for values in brightest]
    problems, notes = [], []
    low, high = int(np.argmin(tops)), int(np.argmax(tops))
    if 1 in tops and tops[high] > 1:
        scaled = splits[tops.index(1)]
        problems.append(
            f"{scaled.images_name}: its largest pixel is 1, but that of "
            f"{splits[high].images_name} is {tops[high]}: one of them was divided by 255 or "
            "thresholded; store the original bytes, 0 to 255, of all images"
        )
    elif tops[high] > _MAX_RATIO * tops[low]:
        notes.append(
            f"{splits[low].images_name}: its largest pixel is {tops[low]}, but that of "
            f"{splits[high].images_name} is {tops[high]}; check that they are scaled "
            "in the same way"
        )
    elif tops[high] == 1:
        notes.append(
            f"{splits[0].images_name}: all pixels are 0 and 1 of at most 255; if they are black "
            "and white, store booleans, or 0 and 255"
        )
    for raw, values, top in zip(splits, brightest, tops, strict=True):
        count = int((values == 1).sum())
        if count and top > 1:
            notes.append(
                f"{raw.images_name}: {count:,} of {len(values):,} images have only the pixels 0 "
                f"and 1, others up to {top}; check that they are scaled in the same way"
            )
    return problems, [*notes, *_stored_notes(splits)]


def _stored_notes(splits: list[RawSplit]) -> list[str]:
    """Return a note on splits that are stored in different ranges, or only partly in grey."""
    if len({raw.stored for raw in splits}) > 1:
        stored = ", ".join(f"{raw.images_name} has {raw.stored}" for raw in splits)
        return [f"pixels are stored in different ranges: {stored}; all are read as bytes, 0 to 255"]
    binary = [raw for raw in splits if _is_binary(raw)]
    if 0 < len(binary) < len(splits):
        grey = next(raw for raw in splits if raw not in binary)
        return [
            f"{binary[0].images_name}: its pixels have only two values, but those of "
            f"{grey.images_name} have more; check whether it was thresholded"
        ]
    return []


def _is_binary(raw: RawSplit) -> bool:
    """Whether the pixels have at most two values, 0 and another."""
    top = raw.images[:_CHUNK].max()
    chunks = (raw.images[first : first + _CHUNK] for first in range(0, len(raw.images), _CHUNK))
    return all(bool(((chunk == 0) | (chunk == top)).all()) for chunk in chunks)
