"""Cutting a validation (or test) split out of the training images.

The cut is a function of the images' bytes, the labels and the size alone: no seed, no random
generator, so it is the same in every run, on every machine, and for every order of the files.

1. Every class gives its share, size * n_class / n, rounded down; the places left over go to the
   classes with the largest remainders (the smaller label first among equals).
2. Within a class the images with the smallest SHA-256(purpose + SHA-256(image)) are taken.
3. An image that occurs more than once, byte for byte, is never taken: so no copy of a val image
   is ever left in train.
4. Every class keeps at least one image in train; a place left over that it cannot fill goes to
   the class with the next largest remainder.
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

# Of a data set without a test split, one image in TEST_SHARE is cut for it.
TEST_SHARE = 5


def cut_val(train: Split, size: int) -> tuple[Split, Split]:
    """Return (the rest of train, val): `size` images for val, both in the order of `train`.

    Raises DataError if there is no such cut.
    """
    return cut(train, size, "val")


def cut(train: Split, size: int, purpose: Purpose) -> tuple[Split, Split]:
    """Return (the rest of train, the split named `purpose`); raises DataError if impossible."""
    chosen = choose(train, size, purpose)
    is_left = torch.ones(len(train), dtype=torch.bool)
    is_left[chosen] = False
    left = is_left.nonzero().flatten()  # index_select is ten times faster than a mask
    return (
        Split("train", train.images.index_select(0, left), train.labels[left]),
        Split(purpose, train.images.index_select(0, chosen), train.labels[chosen]),
    )


def choose(train: Split, size: int, purpose: Purpose) -> Tensor:
    """Return the indices of the images to cut, int64 (size,), rising."""
    labels = train.labels.tolist()
    digests = train.digests
    copies = Counter(digests)
    counts = Counter(labels)
    single: dict[int, list[int]] = {label: [] for label in counts}
    for index, label in enumerate(labels):
        if copies[digests[index]] == 1:
            single[label].append(index)

    shares = _shares(size, counts, {label: len(single[label]) for label in counts}, purpose)
    salt = f"whit/{purpose}/".encode()
    chosen: list[int] = []
    for label, share in shares.items():
        ranked = sorted(single[label], key=lambda i: hashlib.sha256(salt + digests[i]).digest())
        chosen += ranked[:share]
    return torch.tensor(sorted(chosen), dtype=torch.int64)


def _shares(
    size: int, counts: Counter[int], single: dict[int, int], purpose: Purpose
) -> dict[int, int]:
    """Return how many images each class gives; `single` counts those without a copy."""
    total = sum(counts.values())
    largest = total - len(counts)
    if not 1 <= size <= largest:
        raise DataError(
            f"{purpose} = {size:,}: the cut must be between 1 and {largest:,} of the {total:,} "
            f"training images, so that each of the {len(counts)} classes keeps one; "
            "choose another size"
        )
    room = {label: min(single[label], counts[label] - 1) for label in sorted(counts)}
    shares = {label: size * counts[label] // total for label in room}
    short = [label for label in room if shares[label] > room[label]]
    by_remainder = sorted(room, key=lambda label: (-(size * counts[label] % total), label))
    for label in by_remainder:
        if sum(shares.values()) < size and shares[label] < room[label]:
            shares[label] += 1
    if sum(shares.values()) < size:
        short += [label for label in room if label not in short and shares[label] == room[label]]
    if short:
        named = ", ".join(f"class {label} can give {room[label]:,}" for label in short[:5])
        raise DataError(
            f"{purpose} = {size:,}: too few images for a stratified cut ({named}): images that "
            "occur more than once stay in train, and each class keeps one; choose a smaller "
            "size or remove the copies"
        )
    return shares
