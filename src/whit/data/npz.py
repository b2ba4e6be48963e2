"""A data set in one .npz, under the usual names of its arrays.

Each name is a split and a role, in either order and any case: x_train, train_images,
test_labels, val_images, ... Or `images` and `labels` alone, with a `split` that says for each
image 0, 1, 2 or train, val, test; without it, a test split is cut (see datasets.py). `classes`
may name the classes. Other arrays are not read.

Which pixels are accepted: pixels.py. Images are (N, H, W), (N, C, H, W) or (N, H, W, C).
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from whit.data.assembly import (
    Labels,
    Part,
    as_labels,
    as_nchw,
    check_label_shape,
    class_names,
    nchw_shape,
)
from whit.data.files import disk_size, open_file
from whit.data.npy import BoundedFile, NpyHeader, read_npy, read_npy_header
from whit.data.pixels import Pixels, as_bytes, check_pixel_type
from whit.data.splits import SplitName
from whit.errors import DataError

_SPLITS: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_ROLES = {
    "x": "images", "image": "images", "images": "images",
    "y": "labels", "label": "labels", "labels": "labels", "targets": "labels",
}  # fmt: skip
_CLASSES = ("classes", "class_names", "label_names")
_MAX_MEMBERS = 1000


def looks_like_npz(path: Path) -> bool:
    """Whether the file begins as a zip archive does. Raises DataError if it cannot be read."""
    with open_file(path, path.parent) as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


class Archive:
    """The arrays of an open .npz by name; each is read only when asked for."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, size: int):
        self.path = path
        self._archive = archive
        self._size = size
        self._members: dict[str, zipfile.ZipInfo] = {}
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise DataError(
                f"{path}: wanted an .npz with the arrays of one data set, found a zip of "
                f"{len(members):,} members"
            )
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in self._members:
                raise DataError(f"{path}: wanted each array once, found {name!r} twice")
            self._members[name] = member
        self.keys = self._find_keys()

    def label(self, name: str) -> str:
        """What messages call an array."""
        return f"{self.path}: {name}"

    def header(self, name: str) -> NpyHeader:
        """Return the dtype and shape of an array. Raises DataError."""
        return read_npy_header(self._archive, self._members[name], self.label(name))

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return the values of an array. Raises DataError."""
        return read_npy(self._archive, self._members[name], self._size, self.label(name))

    def words(self, name: str) -> list[Any]:
        """Return an array of texts or numbers as a list. Raises DataError."""
        values = self.read(name)
        if values.dtype.kind == "U":
            characters = values.view(np.dtype(np.uint32).newbyteorder(values.dtype.byteorder))
            if characters.max(initial=0) > sys.maxunicode:
                raise DataError(f"{self.label(name)}: wanted text, found numbers beyond it")
        words: list[Any] = values.tolist()
        return words

    def images(self, name: str) -> Pixels:
        """Return images as uint8 (N, C, H, W); the shape is checked before they are read."""
        header = self.header(name)
        nchw_shape(header.shape, self.label(name))
        check_pixel_type(header.dtype, self.label(name))
        images: Pixels = as_nchw(as_bytes(self.read(name), self.label(name)), self.label(name))
        return images

    def labels(self, name: str) -> Labels:
        """Return labels as int64 (N,); shape and dtype are checked before they are read."""
        header = self.header(name)
        check_label_shape(header.shape, header.dtype, self.label(name))
        return as_labels(self.read(name), self.label(name))

    def classes(self) -> tuple[str, ...] | None:
        """Return the names of the classes if the archive has them as text."""
        for name in _CLASSES:
            if name in self._members:
                header = self.header(name)
                if header.dtype.kind == "U" and len(header.shape) == 1:
                    return tuple(self.words(name))
        return None

    def _find_keys(self) -> dict[tuple[SplitName | None, str], str]:
        """Return the arrays' names by (split, role); split is None for arrays over all splits."""
        keys: dict[tuple[SplitName | None, str], str] = {}
        problems = []
        for name in self._members:
            words = re.split(r"[_.\- ]", name.lower())
            splits = [_SPLITS[word] for word in words if word in _SPLITS]
            roles = [_ROLES[word] for word in words if word in _ROLES]
            if name.lower() == "split":
                roles = ["split"]
            if len(roles) != 1 or len(splits) + len(roles) != len(words):
                continue  # an array of something else
            key = (splits[0] if splits else None, roles[0])
            if key in keys:
                problems.append(f"{self.path}: wanted one of {keys[key]} and {name}, found both")
            keys[key] = name
        if problems:
            raise DataError(problems)
        whole = {key for key in keys if key[0] is None and key[1] != "split"}
        required: list[tuple[SplitName | None, str]]
        if whole and len(whole) == len(keys) - ((None, "split") in keys):
            required = [(None, "images"), (None, "labels")]
        else:
            required = [(s, r) for s in ("train", "test") for r in ("images", "labels")]
            if any(split == "val" for split, _ in keys):
                required += [("val", "images"), ("val", "labels")]
        missing = [f"{s}_{r}" if s else r for s, r in required if (s, r) not in keys]
        if missing:
            there = ", ".join(list(self._members)[:20]) or "none"
            raise DataError(
                f"{self.path}: wanted the arrays x_train, y_train, x_test, y_test (or "
                f"train_images, ...), missing: {', '.join(missing)}; found: {there}"
            )
        return {key: name for key, name in keys.items() if key in required or key[1] == "split"}


@contextmanager
def open_npz(path: Path) -> Iterator[Archive]:
    """Open an .npz for reading. Raises DataError if it is damaged or lacks arrays."""
    with (
        open_file(path, path.parent) as file,
        BoundedFile(file.fileno(), "rb", closefd=False) as bounded,
    ):
        try:
            archive = zipfile.ZipFile(bounded)
        # Damage to the directory shows itself as any of these.
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(
                f"{path}: wanted an .npz file, found a damaged one ({error}); fetch it again"
            ) from error
        with archive:
            yield Archive(path, archive, disk_size(file))


def read_npz(path: Path) -> tuple[dict[SplitName, Part], tuple[str, ...] | None]:
    """Return the splits (train alone if there is no test) and the class names, if given.

    Raises DataError with all problems.
    """
    with open_npz(path) as archive:
        arrays: dict[tuple[SplitName | None, str], npt.NDArray[Any]] = {}
        problems: list[str] = []
        for (split, role), name in archive.keys.items():
            try:
                if role == "images":
                    arrays[split, role] = archive.images(name)
                elif role == "labels":
                    arrays[split, role] = archive.labels(name)
                else:
                    arrays[split, role] = _split_codes(archive, name)
            except DataError as error:
                problems += error.problems
        if problems:
            raise DataError(problems)
        if (None, "images") in arrays:
            return _parts_by_code(archive, arrays), archive.classes()
        labels = {key: archive.label(name) for key, name in archive.keys.items()}
        parts: dict[SplitName, Part] = {}
        splits: tuple[SplitName, ...] = ("train", "val", "test")
        for split in splits:
            images_key, labels_key = (split, "images"), (split, "labels")
            if images_key in arrays:
                parts[split] = Part(
                    arrays[images_key],
                    arrays[labels_key],
                    labels[images_key],
                    labels[labels_key],
                )
        return parts, archive.classes()


def describe_npz(path: Path) -> tuple[tuple[int, int, int], int, int, bool]:
    """Return ((C, H, W), K, training images, whether a test split must be cut from them).

    Only headers, training labels and a `split` array are read.
    """
    with open_npz(path) as archive:
        split: SplitName | None = None if (None, "images") in archive.keys else "train"
        images, labels = archive.keys[split, "images"], archive.keys[split, "labels"]
        shape = archive.header(images).shape
        chosen = archive.labels(labels)
        must_cut = split is None
        if (None, "split") in archive.keys:
            codes = _split_codes(archive, archive.keys[None, "split"])
            if len(codes) != len(chosen):
                raise DataError(_count_problem(archive, len(codes), len(chosen)))
            chosen, must_cut = chosen[codes == 0], False
        count = len(chosen) if split is None else shape[0]
        names = archive.classes() or class_names(chosen, archive.label(labels))[0]
        return nchw_shape(shape, archive.label(images)), len(names), count, must_cut


def _split_codes(archive: Archive, name: str) -> npt.NDArray[np.int64]:
    """Return 0 (train), 1 (val) or 2 (test) for each image."""
    header = archive.header(name)
    wanted = f"{archive.label(name)}: wanted 0, 1, 2 or train, val, test for each image, found "
    if len(header.shape) != 1 or header.dtype.kind not in "iuU":
        raise DataError(f"{wanted}{header.dtype} of shape {header.shape}")
    known: dict[Any, int] = {0: 0, 1: 1, 2: 2}
    for word, split in _SPLITS.items():
        known[word] = ("train", "val", "test").index(split)
    values = [v.lower() if isinstance(v, str) else v for v in archive.words(name)]
    for value in values:
        if value not in known:
            raise DataError(f"{wanted}{value!r}")
    return np.array([known[value] for value in values], dtype=np.int64)


def _parts_by_code(
    archive: Archive, arrays: dict[tuple[SplitName | None, str], npt.NDArray[Any]]
) -> dict[SplitName, Part]:
    """Return the splits of arrays that hold all images; all are train without a `split`."""
    images, labels = arrays[None, "images"], arrays[None, "labels"]
    names = archive.label(archive.keys[None, "images"]), archive.label(archive.keys[None, "labels"])
    if (None, "split") not in arrays:
        return {"train": Part(images, labels, *names)}
    codes = arrays[None, "split"]
    if not len(codes) == len(images) == len(labels):
        raise DataError(
            [
                _count_problem(archive, len(codes), count)
                for count in {len(images), len(labels)} - {len(codes)}
            ]
        )
    splits: tuple[SplitName, ...] = ("train", "val", "test")
    parts: dict[SplitName, Part] = {}
    for code, split in enumerate(splits):
        mine = codes == code
        if mine.any() or split != "val":
            titles = [f"{name} of split {split}" for name in names]
            parts[split] = Part(images[mine], labels[mine], titles[0], titles[1])
    return parts


def _count_problem(archive: Archive, num_codes: int, count: int) -> str:
    return (
        f"{archive.label('split')}: wanted {count:,} values, as many as images and labels, "
        f"found {num_codes:,}"
    )
