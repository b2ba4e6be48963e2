"""Data sets by name or path. Each format of files is one entry of FORMATS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from whit.data.holdout import holdout_split
from whit.data.readers.idx import load_idx, probe_idx, sniff_idx
from whit.data.readers.image_folder import (
    load_image_folder,
    probe_image_folder,
    sniff_image_folder,
)
from whit.data.readers.mnist import read_mnist
from whit.data.readers.npz import load_npz, probe_npz, sniff_npz
from whit.data.splits import Dataset, DatasetShape, RawSplit, SplitName
from whit.data.validation import build_dataset
from whit.errors import DataError, did_you_mean


@dataclass(frozen=True)
class DatasetInfo:
    """A built-in data set: what is known of it without reading it, and how it is read.

    image_shape: (C, H, W); classes: the K names; source: for `Dataset.source`
    """

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    num_train: int
    num_test: int
    source: str
    read: Callable[[], dict[SplitName, RawSplit]]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)


@dataclass(frozen=True)
class Format:
    """A format of data sets. All functions take its path and raise DataError.

    name:    begins `Dataset.source`
    example: the expected files, for messages
    sniff:   whether the path has this format, by file names and first bytes
    probe:   the shape of the data set, without reading pixels
    load:    the splits (train alone if there is no test), and the names of the classes if known
    """

    name: str
    example: str
    sniff: Callable[[Path], bool]
    probe: Callable[[Path], DatasetShape]
    load: Callable[[Path], tuple[dict[SplitName, RawSplit], tuple[str, ...] | None]]


DATASETS = {
    "mnist": DatasetInfo(
        (1, 28, 28), tuple("0123456789"), 60_000, 10_000, "MNIST, shipped with whit", read_mnist
    )
}

FORMATS = (  # in the order tried
    Format(
        "IDX folder",
        "a folder with the four IDX files of a data set (train-images-idx3-ubyte, ...)",
        sniff_idx,
        probe_idx,
        load_idx,
    ),
    Format(
        "npz file", "an .npz with x_train, y_train, x_test, y_test", sniff_npz, probe_npz, load_npz
    ),
    Format(
        "image folder",
        "a folder of images (train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png)",
        sniff_image_folder,
        probe_image_folder,
        load_image_folder,
    ),
)


def load_dataset(name_or_path: str, *, val: int = 0) -> Dataset:
    """Return a data set, validated; nothing is resized, repaired or downloaded.

    `val` training images are held out as the val split, stratified and fixed (see holdout.py);
    with 0 there is no val split, unless the files have one. Raises DataError with all problems.
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
    train, held_out = holdout_split(dataset.train, val, "val")
    return replace(dataset, train=train, val=held_out)


def probe_dataset(name_or_path: str) -> DatasetShape:
    """Return the shape of a data set without reading its images.

    File headers, training labels and folder listings are read, and nothing for a built-in data
    set. Raises DataError.
    """
    if name_or_path in DATASETS:
        info = DATASETS[name_or_path]
        return DatasetShape(info.image_shape, info.num_classes, info.num_train)
    path = Path(name_or_path)
    with _os_errors_as_data_errors(path):
        return _find_format(path).probe(path)


def _load(name_or_path: str) -> Dataset:
    if name_or_path in DATASETS:
        info = DATASETS[name_or_path]
        return build_dataset(name_or_path, info.source, info.read(), info.classes)
    path = Path(name_or_path)
    name = Path(os.path.abspath(path)).stem
    with _os_errors_as_data_errors(path):
        data_format = _find_format(path)
        return build_dataset(name, f"{data_format.name} {path}", *data_format.load(path))


def _find_format(path: Path) -> Format:
    """Return the format of what is at `path`. Raises DataError if it has none of FORMATS."""
    if path.exists():
        for data_format in FORMATS:
            if data_format.sniff(path):
                return data_format
        found = "a folder without any of these" if path.is_dir() else "another kind of file"
    else:
        found = "no such file or folder." + did_you_mean(str(path), DATASETS)
    names = f"a shipped name ({', '.join(DATASETS)})"
    *examples, last = [names, *(data_format.example for data_format in FORMATS)]
    expected = f"{', '.join(examples)}, or {last}"
    raise DataError(f"data {str(path)!r}: wanted {expected}; found {found}")


@contextmanager
def _os_errors_as_data_errors(path: Path) -> Iterator[None]:
    """Turn an error of the file system, such as a missing permission, into a DataError."""
    try:
        yield
    except OSError as error:
        where = path if error.filename is None else error.filename
        raise DataError(f"{where}: cannot be read: {error.strerror}") from error
