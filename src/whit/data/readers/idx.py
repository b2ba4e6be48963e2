"""A folder of IDX files, the format of MNIST and related data sets: four files, plain or gzipped.

A file is: two zero bytes, a byte for the type, a byte for the number of dimensions, each
dimension as a big-endian 32-bit number, then the values, and nothing else.
"""

from __future__ import annotations

import io
import os
import re
import struct
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from whit.data.readers import arrays, bounded_io
from whit.data.splits import DatasetShape, Labels, Pixels, RawSplit, Role, SplitName
from whit.errors import DataError

NAME = "IDX folder"
EXAMPLE = "a folder with the four IDX files of a data set (train-images-idx3-ubyte, ...)"

# Images and labels of the known sets are unsigned bytes; QMNIST's labels are 32-bit integers.
_DTYPES = {0x08: "u1", 0x0C: ">i4"}

# train-images-idx3-ubyte, t10k-labels.idx1-ubyte.gz, emnist-letters-test-images-idx3-ubyte.gz,
# qmnist-test-labels-idx2-int.gz
_FILE_NAME = re.compile(
    r"(?:(?P<set>.+)-)?(?P<split>train|t10k|test)-(?P<role>images|labels)"
    r"[-.]idx(?P<dims>[1-4])-(?:ubyte|int)(?P<gz>\.gz)?"
)
_PLACES = {"raw", "gzip", "idx"}  # folders that say nothing about the set in them
FILE_NAMES: dict[tuple[SplitName, Role], str] = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


@dataclass(frozen=True)
class IdxHeader(arrays.ArrayHeader):
    raw: bytes


def sniff(path: Path) -> bool:
    """Return whether `path` is a folder with an IDX file. Raises DataError for such a file."""
    if path.is_dir():
        return any(_FILE_NAME.fullmatch(name) for name in os.listdir(path))
    if _FILE_NAME.fullmatch(path.name):
        raise DataError(f"{path}: expected the folder of the four IDX files, found one of them")
    return False


def probe(root: Path) -> DatasetShape:
    """Return the shape of a data set from headers and training labels alone. Raises DataError."""
    files = _find_files(root)
    images, labels = files["train", "images"], files["train", "labels"]
    shape = read_idx_header(images, root).shape
    classes, _ = arrays.infer_classes(_read_labels(labels, root), str(labels))
    return DatasetShape(arrays.to_chw_shape(shape, str(images)), len(classes), shape[0])


def load(root: Path) -> tuple[dict[SplitName, RawSplit], None]:
    """Return train and test, without class names. Raises DataError with all problems."""
    files = _find_files(root)
    readers: dict[Role, arrays.ArrayReader] = {"images": _read_images, "labels": _read_labels}
    values = arrays.read_all(
        {key: partial(readers[key[1]], path, root) for key, path in files.items()}
    )
    splits = arrays.to_splits(values, {key: str(path) for key, path in files.items()})
    if _is_emnist(root, files["train", "images"]):
        splits = {name: replace(raw, is_transposed=True) for name, raw in splits.items()}
    return splits, None


def _is_emnist(root: Path, images: Path) -> bool:
    """Whether names say that a folder is a set of EMNIST: all are stored transposed, no others."""
    folder = root.absolute()
    if folder.name.lower() in _PLACES:
        folder = folder.parent
    mappings = (name for name in os.listdir(root) if name.endswith("mapping.txt"))
    return any("emnist" in name.lower() for name in (folder.name, images.name, *mappings))


def read_idx(path: Path, root: Path | None = None) -> npt.NDArray[Any]:
    """Return the values of one IDX file; gzip is recognized by its first bytes.

    Raises DataError if the file cannot be read, leads outside `root` (its folder, by default),
    or is damaged, too large, too short or too long.
    """
    with bounded_io.open_file(path, root or path.parent) as file:
        return parse_idx(file, str(path))[1]


def read_idx_header(path: Path, root: Path) -> IdxHeader:
    """Return what one IDX file declares, without reading its values. Raises DataError."""
    with bounded_io.open_file(path, root) as file:
        return _parse_header(_decompress(file, str(path)), str(path))


def parse_idx(file: BinaryIO, name: str) -> tuple[IdxHeader, npt.NDArray[Any]]:
    """Return the header and the values of an open file. Raises DataError as `read_idx` does."""
    stream = _decompress(file, name)
    header = _parse_header(stream, name)
    bounded_io.check_declared_size(
        name, header.shape, header.dtype.itemsize, bounded_io.disk_size(file)
    )
    if stream is file:  # checked by the file's size, before memory is allocated
        _check_length(name, header, bounded_io.file_size(file) - len(header.raw))
    values = np.empty(header.shape, header.dtype)
    length = bounded_io.read_into(stream, values)
    # One byte more than declared detects trailing bytes, and makes gzip verify its checksum.
    _check_length(name, header, length + len(stream.read(1)))
    return header, values


def parse_idx_bytes(content: bytearray, name: str) -> npt.NDArray[Any]:
    """Return the values of a whole IDX file in memory, which they share.

    Raises DataError if it is damaged, too short or too long.
    """
    header = _parse_header(io.BytesIO(content), name)
    _check_length(name, header, len(content) - len(header.raw))
    values: npt.NDArray[Any] = np.frombuffer(content, header.dtype, offset=len(header.raw))
    return values.reshape(header.shape)


def _find_files(root: Path) -> dict[tuple[SplitName, Role], Path]:
    """Return the four files in `root`. Raises DataError naming those missing or found twice.

    Of a file that exists both plain and gzipped, the plain one is taken.
    """
    by_key: dict[tuple[SplitName, Role], list[Path]] = {key: [] for key in FILE_NAMES}
    prefixes = set()
    for name in sorted(os.listdir(root)):
        match = _FILE_NAME.fullmatch(name)
        if match is None or (match["gz"] and (root / name.removesuffix(".gz")).exists()):
            continue
        prefixes.add(match["set"] or "")
        split: SplitName = "train" if match["split"] == "train" else "test"
        by_key[split, "images" if match["role"] == "images" else "labels"].append(root / name)
    if len(prefixes) > 1:
        raise DataError(
            f"{root}: expected the four IDX files of one data set, found files of {len(prefixes)} "
            f"({', '.join(sorted(prefix or 'no prefix' for prefix in prefixes))}); put each in a "
            "folder of its own"
        )
    missing = [FILE_NAMES[key] for key, paths in by_key.items() if not paths]
    problems = [
        f"{root}: expected one file, found {' and '.join(path.name for path in paths)}"
        for paths in by_key.values()
        if len(paths) > 1
    ]
    if missing:
        present = ", ".join(path.name for paths in by_key.values() for path in paths) or "none"
        problems.append(
            f"{root}: expected the four IDX files of a data set, plain or .gz; missing: "
            f"{', '.join(missing)}; found: {present}"
        )
    if problems:
        raise DataError(problems)
    return {key: paths[0] for key, paths in by_key.items()}


def _read_images(path: Path, root: Path) -> Pixels:
    # The header first: a file of labels under this name is recognized before it is read.
    header = read_idx_header(path, root)
    arrays.to_chw_shape(header.shape, str(path))
    if header.dtype.itemsize != 1:
        raise DataError(f"{path}: expected images of unsigned bytes, found {header.dtype}")
    return arrays.to_nchw(read_idx(path, root), str(path))


def _read_labels(path: Path, root: Path) -> Labels:
    shape = read_idx_header(path, root).shape
    # QMNIST has eight numbers for each image, of which the first is the class.
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 8):
        raise DataError(
            f"{path}: expected labels, one number for each image, found an array of "
            f"{arrays.format_shape(shape)}; is this a file of images?"
        )
    values = read_idx(path, root)
    return arrays.to_labels(values if values.ndim == 1 else values[:, 0], str(path))


def _decompress(file: BinaryIO, name: str) -> bounded_io.Stream:
    """Return a stream of the file's content: the file itself unless it is gzipped."""
    start = file.read(2)
    file.seek(0)
    return bounded_io.BoundedGzipReader(file, name) if start == b"\x1f\x8b" else file


def _parse_header(stream: bounded_io.Stream, name: str) -> IdxHeader:
    magic = _read_exactly(stream, 4, name)
    zeros, code, num_dims = struct.unpack(">HBB", magic)
    if zeros or code not in _DTYPES or not 1 <= num_dims <= 4:
        raise DataError(
            f"{name}: expected IDX data of unsigned bytes (magic 0000080n, n dimensions, 1 to 4), "
            f"found magic {magic.hex()}; is this the right file?"
        )
    raw = _read_exactly(stream, 4 * num_dims, name)
    return IdxHeader(np.dtype(_DTYPES[code]), struct.unpack(f">{num_dims}I", raw), magic + raw)


def _read_exactly(stream: bounded_io.Stream, size: int, name: str) -> bytes:
    data = np.empty(size, np.uint8)
    if bounded_io.read_into(stream, data) < size:
        raise DataError(
            f"{name}: expected an IDX header, found the end of the file in it; download it again"
        )
    return data.tobytes()


def _check_length(name: str, header: IdxHeader, length: int) -> None:
    if length == header.num_bytes:
        return
    actual = "more" if length > header.num_bytes else f"only {length:,}"
    raise DataError(
        f"{name}: its header declares {arrays.format_shape(header.shape)} values, expected "
        f"{header.num_bytes:,} bytes after it, found {actual}; download it again"
    )
