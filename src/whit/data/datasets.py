"""Data sets by name or path: a shipped one, a folder of IDX files, an .npz, a folder of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from whit.data.assembly import assemble
from whit.data.cut import TEST_SHARE, cut_val
from whit.data.folder import describe_image_folder, looks_like_images, read_image_folder
from whit.data.idx_folder import describe_idx_folder, looks_like_idx, read_idx_folder
from whit.data.mnist import read_mnist
from whit.data.npz import describe_npz, looks_like_npz, read_npz
from whit.data.splits import Dataset
from whit.errors import DataError, did_you_mean

Kind = Literal["idx", "npz", "images"]
Description = tuple[tuple[int, int, int], int, int]


@dataclass(frozen=True)
class Facts:
    """What is known of a shipped data set without reading it; image_shape is (C, H, W)."""

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    num_train: int
    num_test: int

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)


DATASETS = {"mnist": Facts((1, 28, 28), tuple("0123456789"), 60_000, 10_000)}

ACCEPTED = (
    f"a shipped name ({', '.join(DATASETS)}), a folder with the four IDX files of a data set "
    "(train-images-idx3-ubyte, ...), an .npz with x_train, y_train, x_test, y_test, or a folder "
    "of images (train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png)"
)


def load_dataset(name_or_path: str, *, val: int = 0) -> Dataset:
    """Return a data set, checked as a whole; nothing is resized, repaired or fetched.

    val images are cut from train, stratified and fixed (see cut.py); with 0 there is no val
    split, unless the files bring one. Raises DataError with all problems found.
    """
    if val < 0:
        raise DataError(f"val = {val}: wanted 0 or the number of images to cut from train")
    dataset = _load(name_or_path)
    if not val or (dataset.val is not None and len(dataset.val) == val):
        return dataset
    if dataset.val is not None:
        raise DataError(
            f"{dataset.source}: brings {len(dataset.val):,} val images of its own; wanted "
            f"val = 0 or {len(dataset.val)}, found {val}"
        )
    train, validation = cut_val(dataset.train, val)
    return replace(dataset, train=train, val=validation)


def describe_dataset(name_or_path: str) -> Description:
    """Return ((C, H, W), K, number of training images before val is cut), without the images.

    A shipped set is known; else file headers, training labels and folder listings are read.
    Raises DataError.
    """
    if name_or_path in DATASETS:
        facts = DATASETS[name_or_path]
        return facts.image_shape, facts.num_classes, facts.num_train
    path = Path(name_or_path)
    with _readable(path):
        match _kind(path):
            case "idx":
                return describe_idx_folder(path)
            case "npz":
                shape, num_classes, num_train, must_cut = describe_npz(path)
            case "images":
                shape, num_classes, num_train, must_cut = describe_image_folder(path)
    return shape, num_classes, num_train - (num_train // TEST_SHARE if must_cut else 0)


def _load(name_or_path: str) -> Dataset:
    if name_or_path in DATASETS:
        classes = DATASETS[name_or_path].classes
        return assemble(name_or_path, "MNIST, shipped with whit", read_mnist(), classes)
    path = Path(name_or_path)
    name = Path(os.path.abspath(path)).stem
    with _readable(path):
        match _kind(path):
            case "idx":
                return assemble(name, f"IDX folder {path}", read_idx_folder(path))
            case "npz":
                return assemble(name, f"npz file {path}", *read_npz(path))
            case "images":
                return assemble(name, f"image folder {path}", *read_image_folder(path))


def _kind(path: Path) -> Kind:
    """Return what a path holds, told from its content. Raises DataError if it is nothing known."""
    if path.is_dir():
        if looks_like_idx(os.listdir(path)):
            return "idx"
        if looks_like_images(path):
            return "images"
        found = "a folder without any of these"
    elif path.exists():
        if looks_like_npz(path):
            return "npz"
        if looks_like_idx([path.name]):
            raise DataError(f"{path}: wanted the folder of the four IDX files, found one of them")
        found = "another kind of file"
    else:
        found = "no such file or folder." + did_you_mean(str(path), DATASETS)
    raise DataError(f"data {str(path)!r}: wanted {ACCEPTED}; found {found}")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn an error of the file system, as for a folder without permission, into a DataError."""
    try:
        yield
    except OSError as error:
        where = path if error.filename is None else error.filename
        raise DataError(f"{where}: cannot be read: {error.strerror}") from error
