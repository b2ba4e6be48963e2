"""A data set in memory: splits of uint8 images and their labels.

N images, C channels, H W pixels, K classes. Images are (N, C, H, W) uint8, labels (N,) int64.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from whit.errors import DataError

SplitName = Literal["train", "val", "test"]
ChannelStatistics = tuple[float, ...]

# A tenth of a grey level: only a channel that is constant, or constant but for some few
# pixels of a whole data set, has less spread; dividing by it would blow up its noise.
SMALLEST_STD = 0.1 / 255

# 4096 images of 28x28 fit a processor's cache level 2 or 3; and a count of one such piece can
# never overflow.
_PIECE = 1 << 22


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels in the order of their files.

    name:   "train", "val" or "test"
    images: uint8 (N, C, H, W), contiguous
    labels: int64 (N,), each in 0..K-1

    Raises DataError if the tensors are not of this form.
    """

    name: SplitName
    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        problems = []
        if images.dtype != torch.uint8 or images.ndim != 4 or not images.is_contiguous():
            problems.append(
                f"split {self.name!r}: images must be a contiguous uint8 tensor (N, C, H, W); "
                f"found {images.dtype} {tuple(images.shape)}"
            )
        if labels.dtype != torch.int64 or labels.ndim != 1:
            problems.append(
                f"split {self.name!r}: labels must be an int64 tensor (N,); "
                f"found {labels.dtype} {tuple(labels.shape)}"
            )
        if not problems and len(images) != len(labels):
            problems.append(
                f"split {self.name!r}: {len(images):,} images but {len(labels):,} labels; "
                "each image needs one label"
            )
        if problems:
            raise DataError(problems)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        channels, height, width = self.images.shape[1:]
        return f"Split({self.name}: {len(self):,} images {channels}x{height}x{width})"

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """The SHA-256 of each image's bytes: equal images, and only those, have equal digests."""
        rows = self.images.reshape(len(self), -1).cpu().numpy()
        return tuple(hashlib.sha256(row).digest() for row in rows)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the shape, every image and every label, in their order."""
        whole = hashlib.sha256(f"whit/split/{tuple(self.images.shape)}".encode())
        whole.update(b"".join(self.digests))
        whole.update(self.labels.cpu().numpy().astype("<i8").tobytes())
        return whole.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """The splits of one data set, checked against each other by whoever built it.

    val is None unless the files bring one or one was cut from train.
    classes are the K names, in the order of their labels.
    source says where it came from; left_out says what was not taken over, and why.
    """

    name: str
    train: Split
    val: Split | None
    test: Split
    classes: tuple[str, ...]
    source: str
    left_out: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those there are, in the order train, val, test."""
        return tuple(split for split in (self.train, self.val, self.test) if split is not None)

    @cached_property
    def overlap(self) -> int:
        """How many test images occur, byte for byte, among the images of train and val."""
        known = {digest for split in self.splits[:-1] for digest in split.digests}
        return sum(digest in known for digest in self.test.digests)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what a reader of results should know; empty for a clean data set."""
        if not self.overlap:
            return self.left_out
        return (
            *self.left_out,
            f"{self.source}: {self.overlap:,} of {len(self.test):,} test images occur byte for "
            "byte in the training images; accuracy on them shows memory, not generalisation",
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over class names and all contents of all splits.

        Another val cut gives another value; `test.fingerprint` stays the same.
        """
        whole = hashlib.sha256("\0".join(("whit/dataset", *self.classes)).encode())
        for split in self.splits:
            whole.update(f"\0{split.name}\0{split.fingerprint}".encode())
        return whole.hexdigest()

    def __repr__(self) -> str:
        channels, height, width = self.image_shape
        sizes = ", ".join(f"{split.name} {len(split):,}" for split in self.splits)
        return (
            f"Dataset({self.name}: {sizes}; {channels}x{height}x{width}, "
            f"{self.num_classes} classes)"
        )


def normalisation(split: Split) -> tuple[ChannelStatistics, ChannelStatistics]:
    """Return (mean, std) of each channel, in units of pixel / 255.

    Exact: grey levels are counted as integers and the two moments are fractions until the last
    step, so the result depends neither on the order of the images nor on the machine. std is the
    population's (divided by the number of pixels), and at least SMALLEST_STD.
    """
    means, stds = [], []
    for channel in range(split.images.shape[1]):
        counts = _grey_level_counts(split.images[:, channel])
        total = sum(counts)
        first = Fraction(sum(level * count for level, count in enumerate(counts)), total)
        second = Fraction(sum(level**2 * count for level, count in enumerate(counts)), total)
        means.append(float(first / 255))
        stds.append(max(sqrt((second - first**2) / 255**2), SMALLEST_STD))
    return tuple(means), tuple(stds)


def _grey_level_counts(images: Tensor) -> list[int]:
    """Count each of the 256 grey levels in `images`, uint8 (N, H, W)."""
    counts = torch.zeros(256, dtype=torch.int64, device=images.device)
    step = max(1, _PIECE // images[0].numel())
    for start in range(0, len(images), step):  # in pieces, for bincount widens its input
        counts += torch.bincount(images[start : start + step].flatten(), minlength=256)
    return [int(count) for count in counts]
