"""Data sets by name or path. Each format of files is one entry of FORMATS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from whit.data.holdout import holdout_block, holdout_split
from whit.data.readers import idx, image_folder, npz
from whit.data.readers.mnist import digest_mnist, read_mnist
from whit.data.splits import Dataset, DatasetShape, RawSplit, SplitName
from whit.data.validation import build_dataset
from whit.errors import DataError, did_you_mean
from whit.recipes.recipe_tables import DataSpec, default_val_by


@dataclass(frozen=True)
class DatasetInfo:
    """A built-in data set: its shape, known without reading it, its source, and how it is read."""

    shape: DatasetShape
    source: str
    read: Callable[[], dict[SplitName, RawSplit]]
    digest_files: Callable[[], str]  # SHA-256 of the files as they are now; raises DataError


class Format(Protocol):
    """A format of data sets: a module of `readers`, whose functions raise DataError.

    NAME begins `Dataset.source`; EXAMPLE is the expected files, for messages.
    """

    NAME: str
    EXAMPLE: str

    def sniff(self, path: Path, /) -> bool:
        """Return whether `path` has this format, by file names and first bytes."""

    def probe(self, path: Path, /) -> DatasetShape:
        """Return the shape of the data set without reading pixels."""

    def load(self, path: Path, /) -> tuple[dict[SplitName, RawSplit], tuple[str, ...] | None]:
        """Return the splits (train alone if there is no test), and the class names if known."""


DATASETS = {
    "mnist": DatasetInfo(
        DatasetShape((1, 28, 28), 10, 60_000), "MNIST, included in whit", read_mnist, digest_mnist
    )
}

_MAX_INNER = 100  # entries of each level of a folder that are looked at for advice

FORMATS: tuple[Format, ...] = (idx, npz, image_folder)  # in the order tried


def load_dataset(data: str | DataSpec, *, val: int = 0) -> Dataset:
    """Return a data set, validated; nothing is resized, repaired or downloaded.

    `data` is a built-in name, a path, or the `[data]` table of a recipe. `val` training images, or
    those of the table, are held out as the val split, which is fixed: the last ones of MNIST, and
    of other data sets a stratified sample (see holdout.py). With 0 there is no val split, unless
    the files have one. Raises DataError with all problems.
    """
    if val < 0:
        raise DataError(f"val = {val}: expected 0 or the number of training images to hold out")
    spec = data
    if isinstance(spec, str):
        spec = DataSpec.model_construct(name=spec, val_size=val, val_by=default_val_by(spec))
    return hold_out(_load(spec.name), spec)


def hold_out(dataset: Dataset, spec: DataSpec) -> Dataset:
    """Return the data set with the val split of `spec`, transposed where `spec` says so.

    `dataset` is not changed; images that stay together share its memory. Raises DataError.
    """
    if spec.val_size and (dataset.val is None or len(dataset.val) != spec.val_size):
        if dataset.val is not None:
            raise DataError(
                f"{dataset.source}: has {len(dataset.val):,} val images of its own; expected "
                f"val = 0 or {len(dataset.val)}, found {spec.val_size}"
            )
        if spec.val_by == "block":
            train, held_out = holdout_block(dataset.train, spec.val_size, spec.val_block)
        else:
            train, held_out = holdout_split(dataset.train, spec.val_size, "val")
        dataset = replace(dataset, train=train, val=held_out)
    if spec.transpose:  # after the splits are made, which are then the same images
        return dataset.transpose()
    return dataset


def probe_dataset(data: str | DataSpec) -> DatasetShape:
    """Return the shape of a data set, named as for `load_dataset`, without reading its images.

    File headers, training labels and folder listings are read, and nothing for a built-in data
    set. Raises DataError.
    """
    if isinstance(data, str):
        data = DataSpec.model_construct(name=data)
    if data.name in DATASETS:
        shape = DATASETS[data.name].shape
    else:
        path = Path(data.name)
        with _detect_format(path) as data_format:
            shape = data_format.probe(path)
    channels, height, width = shape.image_shape
    return shape._replace(image_shape=(channels, width, height)) if data.transpose else shape


def _load(name_or_path: str) -> Dataset:
    if name_or_path in DATASETS:
        info = DATASETS[name_or_path]
        return build_dataset(name_or_path, info.source, info.read())
    path = Path(name_or_path)
    name = Path(os.path.abspath(path)).stem
    with _detect_format(path) as data_format:
        return build_dataset(name, f"{data_format.NAME} {path}", *data_format.load(path))


def _find_format(path: Path) -> Format:
    if path.exists():
        for data_format in FORMATS:
            if data_format.sniff(path):
                return data_format
        actual = "a folder without any of these" if path.is_dir() else "another kind of file"
        with suppress(OSError):
            if inner := _find_inner(path):
                actual += f"; did you mean {str(inner)!r}?"
    else:
        actual = "no such file or folder." + did_you_mean(str(path), DATASETS)
    *examples, last = [data_format.EXAMPLE for data_format in FORMATS]
    expected = ", ".join([f"a built-in name ({', '.join(DATASETS)})", *examples, f"or {last}"])
    raise DataError(f"data {str(path)!r}: expected {expected}; found {actual}")


def _find_inner(path: Path) -> Path | None:
    """Return a folder up to three levels below that has a format, such as torchvision's raw."""
    folders = [path] if path.is_dir() else []
    for _ in range(3):
        inner = [each for folder in folders for each in sorted(folder.iterdir())]
        folders = [each for each in inner[:_MAX_INNER] if each.is_dir() and each.name[:1] != "."]
        for folder in folders:
            if any(data_format.sniff(folder) for data_format in FORMATS):
                return folder
    return None


@contextmanager
def _detect_format(path: Path) -> Iterator[Format]:
    """Yield the format of what is at `path`; an OSError inside becomes a DataError."""
    try:
        yield _find_format(path)
    except OSError as error:
        where = path if error.filename is None else error.filename
        raise DataError(f"{where}: cannot be read: {error.strerror}") from error
