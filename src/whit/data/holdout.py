"""Holding out a validation (or test) split from the training images.

The split is a function of the images' bytes, the labels and the size alone, or also of their order.
It uses no random numbers, so it is the same in every run and on every machine. An image that occurs
more than once, byte for byte, is never taken, so train has no copy of a val image.

By digest, for every order of the files:

1. Each class gives its share, size * n_class / n, rounded down. The images still missing come
   from the classes with the largest remainders (the smaller label first among equals).
2. Within a class the images with the smallest SHA-256(purpose + SHA-256(image)) are taken.
3. Each class keeps at least one image in train. What a class cannot give comes from the class
   with the next largest remainder.

By block: `size` consecutive images. Where images lie in the order of those who made them, as the
writers of MNIST, train and val have different writers then, as train and test do. Block 0 begins
with the first image; block 1 follows it. The last block ends with the last image.
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
# A class of which a block should have so many images by its share has some, in a random order.
_EXPECTED = 20


def holdout_split(train: Split, size: int, purpose: Purpose) -> tuple[Split, Split]:
    """Return (the rest of train, the new split of `size` images), both in the order of `train`.

    The split is by digest. Raises DataError if there is no such split.
    """
    return _split_at(train, select_indices(train, size, purpose), purpose)


def holdout_block(train: Split, size: int, block: int | None = None) -> tuple[Split, Split]:
    """Return (the rest of train, a val split of `size` consecutive images), in the same order.

    `block` is the number of the block, from 0; None is the last one. Raises DataError if there is
    no such block, or if it and the rest do not both have images of each class.
    """
    return _split_at(train, select_block(train, size, block), "val")


def _split_at(train: Split, held_out: Tensor, purpose: Purpose) -> tuple[Split, Split]:
    is_kept = torch.ones(len(train), dtype=torch.bool).index_fill(0, held_out, False)
    kept = is_kept.nonzero().flatten()  # index_select is ten times faster than a mask
    return (
        Split("train", train.images.index_select(0, kept), train.labels[kept]),
        Split(purpose, train.images.index_select(0, held_out), train.labels[held_out]),
    )


def select_block(train: Split, size: int, block: int | None = None) -> Tensor:
    """Return the sorted indices of a block, int64 (size,). Raises DataError if impossible."""
    copies = Counter(train.digests)
    unique = [index for index, digest in enumerate(train.digests) if copies[digest] == 1]
    num_blocks = len(unique) // size
    if not num_blocks or size == len(train):
        raise DataError(
            f"val = {size:,}: the training split has {len(unique):,} images that occur once; "
            "choose a smaller size"
        )
    if block is not None and block >= num_blocks:
        raise DataError(
            f"val_block = {block}: {len(unique):,} training images have {num_blocks} blocks of "
            f"{size:,}; allowed: 0 to {num_blocks - 1}"
        )
    start = len(unique) - size if block is None else block * size
    selected = torch.tensor(unique[start : start + size], dtype=torch.int64)
    _check_classes(train, selected)
    return selected


def _check_classes(train: Split, selected: Tensor) -> None:
    """Raise DataError where the order of the images is that of their classes."""
    counts = Counter(train.labels.tolist())
    held_out = Counter(train.labels[selected].tolist())
    for label, count in sorted(counts.items()):
        expected = len(selected) * count / len(train)
        if held_out[label] == count:
            problem = f"has all {count:,} images of class {label}"
        elif expected >= _EXPECTED and not held_out[label]:
            problem = f"has no image of class {label}, and {expected:,.0f} were expected"
        else:
            continue
        raise DataError(
            f"val by block: the block of {len(selected):,} consecutive images {problem}: the "
            'images are in the order of their classes; use val_by = "digest"'
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
