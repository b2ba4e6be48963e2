"""Holding out a validation (or test) split from the training images.

The split is a function of the images' bytes, the labels and the size alone. It uses no random
numbers, so it is the same in every run, on every machine, and for every order of the files.

1. Each class gives its share, size * n_class / n, rounded down. The images still missing come
   from the classes with the largest remainders (the smaller label first among equals).
2. Within a class the images with the smallest SHA-256(purpose + SHA-256(image)) are taken.
3. An image that occurs more than once, byte for byte, is never taken, so train has no copy of a
   val image.
4. Each class keeps at least one image in train. What a class cannot give comes from the class
   with the next largest remainder.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Literal

import torch
from torch import Tensor

from whit.data.splits import Split
from whit.errors import DataError

Purpose = Literal["val", "test"]

# Of a data set without a test split, one image in TEST_DIVISOR is held out for it.
TEST_DIVISOR = 5


def holdout_split(train: Split, size: int, purpose: Purpose) -> tuple[Split, Split]:
    """Return (the rest of train, the new split of `size` images), both in the order of `train`.

    Raises DataError if there is no such split.
    """
    held_out = select_indices(train, size, purpose)
    is_kept = torch.ones(len(train), dtype=torch.bool).index_fill(0, held_out, False)
    kept = is_kept.nonzero().flatten()  # index_select is ten times faster than a mask
    return (
        Split("train", train.images.index_select(0, kept), train.labels[kept]),
        Split(purpose, train.images.index_select(0, held_out), train.labels[held_out]),
    )


def select_indices(train: Split, size: int, purpose: Purpose) -> Tensor:
    """Return the sorted indices to hold out, int64 (size,). Raises DataError if impossible."""
    labels = train.labels.tolist()
    digests = train.digests
    copies = Counter(digests)
    counts = Counter(labels)
    unique: dict[int, list[int]] = {label: [] for label in counts}
    for index, label in enumerate(labels):
        if copies[digests[index]] == 1:
            unique[label].append(index)

    salt = f"whit/{purpose}/".encode()
    selected: list[int] = []
    for label, share in _allocate(size, counts, unique, purpose).items():
        ranked = sorted(unique[label], key=lambda i: hashlib.sha256(salt + digests[i]).digest())
        selected += ranked[:share]
    return torch.tensor(sorted(selected), dtype=torch.int64)


def _allocate(
    size: int, counts: Counter[int], unique: dict[int, list[int]], purpose: Purpose
) -> dict[int, int]:
    """Return how many images each class gives; `unique` are its images without a copy."""
    total = sum(counts.values())
    max_size = total - len(counts)
    if not 1 <= size <= max_size:
        raise DataError(
            f"{purpose} = {size:,}: it must be between 1 and {max_size:,} of the {total:,} "
            f"training images, so that each of the {len(counts)} classes keeps one; "
            "choose another size"
        )
    available = {label: min(len(unique[label]), counts[label] - 1) for label in sorted(counts)}
    shares = {label: size * counts[label] // total for label in available}
    by_remainder = sorted(available, key=lambda label: (-(size * counts[label] % total), label))
    for label in by_remainder:
        if sum(shares.values()) < size and shares[label] < available[label]:
            shares[label] += 1
    short = [label for label in available if shares[label] > available[label]]
    if sum(shares.values()) < size:
        short += [label for label in available if shares[label] == available[label]]
    if short:
        classes = ", ".join(f"class {label} can give {available[label]:,}" for label in short[:5])
        raise DataError(
            f"{purpose} = {size:,}: too few images for a stratified split ({classes}): images that "
            "occur more than once stay in train, and each class keeps one; choose a smaller "
            "size or remove the copies"
        )
    return shares
