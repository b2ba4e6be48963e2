"""A data set in memory: splits of uint8 images and their labels.

N images, C channels, H W pixels, K classes. Images are (N, C, H, W) uint8, labels (N,) int64.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from whit.errors import DataError

# Pixels counted at once: 4096 images of 28x28 fit into the processor's cache, and the count of
# one grey level cannot overflow.
_CHUNK = 1 << 22

SplitName = Literal["train", "val", "test"]
Role = Literal["images", "labels"]
Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class DatasetShape(NamedTuple):
    """What training needs to know of a data set before it is loaded.

    image_shape: (C, H, W); num_train: training images before val is held out
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int


@dataclass(frozen=True, eq=False)
class RawSplit:
    """One split as a reader returns it.

    images: uint8 (N, C, H, W); labels: int64 (N,); the two names are used in messages. `stored`
    is the range of values in the file, `notes` are sentences on how the images were read.
    """

    images: Pixels
    labels: Labels
    images_name: str
    labels_name: str
    stored: str = "bytes"
    notes: tuple[str, ...] = ()
    is_transposed: bool = False  # known to have rows and columns swapped


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

    def transpose(self) -> Split:
        """Return the split with rows and columns of every image swapped."""
        return replace(self, images=self.images.mT.contiguous())

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """The SHA-256 of each image's bytes, so equal images have equal digests."""
        rows = self.images.reshape(len(self), -1).cpu().numpy()
        return tuple(hashlib.sha256(row).digest() for row in rows)

    @cached_property
    def grey_levels(self) -> tuple[tuple[int, ...], ...]:
        """How many pixels of each channel have each of the 256 grey levels."""
        channels = range(self.images.shape[1])
        return tuple(_count_grey_levels(self.images[:, channel]) for channel in channels)

    @cached_property
    def num_duplicates(self) -> int:
        """Count the images that occur before in this split, byte for byte."""
        return len(self) - len(set(self.digests))

    @property
    def notes(self) -> tuple[str, ...]:
        """A caveat where images occur more than once; empty otherwise."""
        if not self.num_duplicates:
            return ()
        copies = Counter(self.digests)
        name = "training" if self.name == "train" else self.name
        most = max(copies.values())
        if most == min(copies.values()):
            text = f"each of the {len(copies):,} different {name} images occurs {most:,} times"
        else:
            text = (
                f"{self.num_duplicates:,} of {len(self):,} {name} images are copies of others, "
                f"byte for byte (one occurs {most:,} times)"
            )
        labelled = set(zip(self.digests, self.labels.tolist(), strict=True))
        if len(copies) == 1:
            text = f"all {len(self):,} {name} images are equal, under {len(labelled):,} labels"
        elif conflicts := len(labelled) - len(copies):
            text += f", {conflicts:,} of them under another label"
        effect = "the accuracy counts each copy"
        if self.name == "train":
            effect = f"an epoch counts each copy, so it shows these images up to {most:,} times"
        return (f"{text}; {effect}",)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the shape, every image and every label, in order."""
        digest = hashlib.sha256(f"whit/split/{tuple(self.images.shape)}".encode())
        digest.update(b"".join(self.digests))
        digest.update(self.labels.cpu().numpy().astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """The splits of one data set, checked against each other by `build_dataset`.

    val is None unless the files have one or one was held out from train.
    classes are the K names, in the order of their labels.
    source says where it was read from; reading_notes are sentences on how the files were read.
    """

    name: str
    train: Split
    val: Split | None
    test: Split
    classes: tuple[str, ...]
    source: str
    reading_notes: tuple[str, ...] = ()
    are_files_transposed: bool = False  # known to have rows and columns swapped

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
        """The splits that exist, in the order train, val, test."""
        return tuple(split for split in (self.train, self.val, self.test) if split is not None)

    @cached_property
    def overlap(self) -> int:
        """Count the test images that occur, byte for byte, in train or val."""
        known = {digest for split in self.splits[:-1] for digest in split.digests}
        return sum(digest in known for digest in self.test.digests)

    @property
    def notes(self) -> tuple[str, ...]:
        """Caveats for any result on this data set; empty for a clean one."""
        notes = [*self.reading_notes, *(note for split in self.splits for note in split.notes)]
        if self.are_files_transposed:
            notes.append(
                f"{self.source}: EMNIST's files have rows and columns swapped, so every image "
                "lies on its side, mirrored; turn them with data.transpose = true"
            )
        if self.overlap:
            notes.append(
                f"{self.source}: {self.overlap:,} of {len(self.test):,} test images occur byte "
                "for byte in the training images; accuracy on them shows memorization, not "
                "generalization"
            )
        return tuple(notes)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over class names and all contents of all splits.

        Another val split gives another value; `test.fingerprint` stays the same.
        """
        digest = hashlib.sha256("\0".join(("whit/dataset", *self.classes)).encode())
        for split in self.splits:
            digest.update(f"\0{split.name}\0{split.fingerprint}".encode())
        return digest.hexdigest()

    def transpose(self) -> Dataset:
        """Return the data set with rows and columns of every image swapped."""
        return replace(
            self,
            train=self.train.transpose(),
            val=None if self.val is None else self.val.transpose(),
            test=self.test.transpose(),
            are_files_transposed=False,
        )

    def __repr__(self) -> str:
        channels, height, width = self.image_shape
        sizes = ", ".join(f"{split.name} {len(split):,}" for split in self.splits)
        return (
            f"Dataset({self.name}: {sizes}; {channels}x{height}x{width}, "
            f"{self.num_classes} classes)"
        )


def _count_grey_levels(images: Tensor) -> tuple[int, ...]:
    """Count each of the 256 grey levels in `images`, uint8 (N, H, W)."""
    counts = torch.zeros(256, dtype=torch.int64, device=images.device)
    step = max(1, _CHUNK // images[0].numel())
    for start in range(0, len(images), step):  # in chunks, because bincount widens its input
        counts += torch.bincount(images[start : start + step].flatten(), minlength=256)
    return tuple(counts.tolist())
