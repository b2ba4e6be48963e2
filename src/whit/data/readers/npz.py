"""A data set in one .npz, under the usual names of its arrays.

Each name is a split and a role, in either order and any case: x_train, train_images,
test_labels, val_images, ... Or `images` and `labels` alone, with a `split` of 0, 1, 2 or train,
val, test for each image; without it, a test split is held out (see holdout.py). `classes` may name
the classes. Other arrays are not read.

arrays.py says which pixels and shapes of images are accepted.
"""

from __future__ import annotations

import re
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from whit.data.holdout import TEST_DIVISOR
from whit.data.readers import arrays
from whit.data.readers.bounded_io import BoundedFile, disk_size, open_file
from whit.data.readers.npy import NpyHeader, read_npy, read_npy_header
from whit.data.splits import DatasetShape, Labels, Pixels, RawSplit, SplitName
from whit.errors import DataError

NAME = "npz file"
EXAMPLE = "an .npz with x_train, y_train, x_test, y_test"

_SPLIT_NAMES: tuple[SplitName, ...] = ("train", "val", "test")  # their codes are 0, 1 and 2
_SPLITS: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_ROLES = {
    "x": "images", "image": "images", "images": "images",
    "y": "labels", "label": "labels", "labels": "labels", "targets": "labels",
}  # fmt: skip
_CLASS_KEYS = ("classes", "class_names", "label_names")
_MAX_MEMBERS = 1000


def sniff(path: Path) -> bool:
    """Return whether a file begins as a zip archive. Raises DataError if it cannot be read."""
    if path.is_dir():
        return False
    with open_file(path, path.parent) as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


class NpzArchive:
    """The arrays of an open .npz by name, each read on request.

    on_disk: bytes of the archive file
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, on_disk: int):
        self.path = path
        self._archive = archive
        self._on_disk = on_disk
        self._members: dict[str, zipfile.ZipInfo] = {}
        self.stored: dict[str, str] = {}  # the range of values of each array of images read
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise DataError(
                f"{path}: expected an .npz with the arrays of one data set, found a zip of "
                f"{len(members):,} members"
            )
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in self._members:
                raise DataError(f"{path}: expected each array once, found {name!r} twice")
            self._members[name] = member
        self.keys = self._find_keys()

    def title(self, name: str) -> str:
        """Return how messages call an array."""
        return f"{self.path}: {name}"

    def read_header(self, name: str) -> NpyHeader:
        """Return the dtype and shape of an array. Raises DataError."""
        with self._open(name) as stream:
            return read_npy_header(stream, self.title(name))

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return the values of an array. Raises DataError."""
        member, on_disk = self._members[name], self._on_disk
        if member.compress_type != zipfile.ZIP_STORED:
            on_disk = min(member.compress_size, on_disk)
        with self._open(name) as stream:
            return read_npy(stream, on_disk, self.title(name))

    def read_list(self, name: str) -> list[Any]:
        """Return an array of texts or numbers as a list. Raises DataError."""
        values = self.read(name)
        if values.dtype.kind == "U":
            characters = values.view(np.dtype(np.uint32).newbyteorder(values.dtype.byteorder))
            if characters.max(initial=0) > sys.maxunicode:
                raise DataError(f"{self.title(name)}: expected text, found values outside Unicode")
        return list(values.tolist())

    def read_images(self, name: str) -> Pixels:
        """Return images as uint8 (N, C, H, W); the shape is checked before they are read."""
        header = self.read_header(name)
        arrays.to_chw_shape(header.shape, self.title(name))
        arrays.check_pixel_type(header.dtype, self.title(name))
        values = self.read(name)
        pixels = arrays.to_uint8(values, self.title(name))
        self.stored[name] = arrays.describe_range(values)
        return arrays.to_nchw(pixels, self.title(name))

    def read_labels(self, name: str) -> Labels:
        """Return labels as int64 (N,); shape and dtype are checked before they are read."""
        header = self.read_header(name)
        arrays.check_label_shape(header.shape, header.dtype, self.title(name))
        return arrays.to_labels(self.read(name), self.title(name))

    def read_codes(self, name: str) -> npt.NDArray[np.int64]:
        """Return 0 (train), 1 (val) or 2 (test) for each image. Raises DataError."""
        header = self.read_header(name)
        prefix = f"{self.title(name)}: expected 0, 1, 2 or train, val, test for each image, found "
        if len(header.shape) != 1 or header.dtype.kind not in "iuU":
            raise DataError(f"{prefix}{header.dtype} of shape {header.shape}")
        codes: dict[Any, int] = {0: 0, 1: 1, 2: 2}
        codes |= {word: _SPLIT_NAMES.index(split) for word, split in _SPLITS.items()}
        values = [v.lower() if isinstance(v, str) else v for v in self.read_list(name)]
        if unknown := [value for value in values if value not in codes]:
            raise DataError(f"{prefix}{unknown[0]!r}")
        return np.array([codes[value] for value in values], dtype=np.int64)

    def read_classes(self) -> tuple[str, ...] | None:
        """Return the names of the classes, or None if the archive has none as text."""
        for name in _CLASS_KEYS:
            if name in self._members:
                header = self.read_header(name)
                if header.dtype.kind == "U" and len(header.shape) == 1:
                    return tuple(self.read_list(name))
        return None

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        member = self._members[name]
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{self.title(name)}: expected a stored or deflated member, found compression "
                f"method {member.compress_type}; save it with numpy.savez_compressed"
            )
        try:
            with self._archive.open(member) as stream:
                yield stream
        # What zipfile and zlib raise for damaged, encrypted or unsupported members.
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as e:
            raise DataError(
                f"{self.title(name)}: expected a complete array, found damage ({e}); create it "
                "again"
            ) from e

    def _find_keys(self) -> dict[tuple[SplitName | None, str], str]:
        """Return the arrays' names by (split, role); split is None for arrays of all splits."""
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
                problems.append(f"{self.path}: expected one of {keys[key]} and {name}, found both")
            keys[key] = name
        if problems:
            raise DataError(problems)
        found_splits = {split for split, role in keys if role != "split"}
        required_splits: list[SplitName | None] = ["train", "test"]
        if found_splits == {None}:
            required_splits = [None]
        elif "val" in found_splits:
            required_splits.append("val")
        required = [(s, r) for s in required_splits for r in ("images", "labels")]
        missing = [f"{s}_{r}" if s else r for s, r in required if (s, r) not in keys]
        if missing:
            present = ", ".join(list(self._members)[:20]) or "none"
            raise DataError(
                f"{self.path}: expected the arrays x_train, y_train, x_test, y_test (or "
                f"train_images, ...), missing: {', '.join(missing)}; found: {present}"
            )
        return {key: name for key, name in keys.items() if key in required or key[1] == "split"}


@contextmanager
def open_npz(path: Path) -> Iterator[NpzArchive]:
    """Open an .npz for reading. Raises DataError if it is damaged or lacks arrays."""
    with (
        open_file(path, path.parent) as file,
        BoundedFile(file.fileno(), "rb", closefd=False) as bounded,
    ):
        try:
            archive = zipfile.ZipFile(bounded)
        # A damaged directory can raise any of these.
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(
                f"{path}: expected an .npz file, found a damaged one ({error}); download it again"
            ) from error
        with archive:
            yield NpzArchive(path, archive, disk_size(file))


def load(path: Path) -> tuple[dict[SplitName, RawSplit], tuple[str, ...] | None]:
    """Return the splits and, if any, the class names. Raises DataError with all problems."""
    with open_npz(path) as archive:
        readers: dict[str, arrays.ArrayReader] = {
            "images": archive.read_images,
            "labels": archive.read_labels,
            "split": archive.read_codes,
        }
        keys = archive.keys
        values = arrays.read_all(
            {key: partial(readers[key[1]], name) for key, name in keys.items()}
        )
        if (None, "images") in values:
            return _split_by_code(archive, values), archive.read_classes()
        names = {key: archive.title(name) for key, name in keys.items()}
        stored = {key: archive.stored.get(name, "") for key, name in keys.items()}
        return arrays.to_splits(values, names, stored), archive.read_classes()  # type: ignore[arg-type]


def probe(path: Path) -> DatasetShape:
    """Return the shape by headers, training labels and a `split` array. Raises DataError."""
    with open_npz(path) as archive:
        split: SplitName | None = None if (None, "images") in archive.keys else "train"
        images, labels = archive.keys[split, "images"], archive.keys[split, "labels"]
        shape = archive.read_header(images).shape
        train_labels = archive.read_labels(labels)
        has_test = split is not None
        if (None, "split") in archive.keys:
            codes = archive.read_codes(archive.keys[None, "split"])
            _check_codes(archive, codes, len(train_labels))
            train_labels, has_test = train_labels[codes == 0], True
        num_train = len(train_labels) if split is None else shape[0]
        if not has_test:
            num_train -= num_train // TEST_DIVISOR
        names = archive.read_classes()
        classes = names or arrays.infer_classes(train_labels, archive.title(labels))[0]
        image_shape = arrays.to_chw_shape(shape, archive.title(images))
        return DatasetShape(image_shape, len(classes), num_train)


def _split_by_code(
    archive: NpzArchive, values: dict[tuple[SplitName | None, str], npt.NDArray[Any]]
) -> dict[SplitName, RawSplit]:
    """Split the arrays of all images by their codes; without codes, all images are train."""
    images, labels = values[None, "images"], values[None, "labels"]
    images_name, labels_name = (
        archive.title(archive.keys[None, role]) for role in ("images", "labels")
    )
    if (None, "split") not in values:
        return {"train": RawSplit(images, labels, images_name, labels_name)}
    codes = values[None, "split"]
    _check_codes(archive, codes, len(images), len(labels))
    splits = {}
    for code, split in enumerate(_SPLIT_NAMES):
        mask = codes == code
        if mask.any() or split != "val":
            suffix = f" of split {split}"
            splits[split] = RawSplit(
                images[mask], labels[mask], images_name + suffix, labels_name + suffix
            )
    return splits


def _check_codes(archive: NpzArchive, codes: npt.NDArray[Any], *counts: int) -> None:
    problems = [
        f"{archive.title('split')}: expected {count:,} values, as many as images and labels, "
        f"found {len(codes):,}"
        for count in {*counts} - {len(codes)}
    ]
    if problems:
        raise DataError(problems)
