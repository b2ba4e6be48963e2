"""MNIST, distributed with whit; every byte is verified at every load.

The SHA-256 are those of the decompressed files, as published by Yann LeCun, Corinna Cortes and
Christopher J.C. Burges; credit and license: mnist/LICENSE.md.
"""

from __future__ import annotations

import hashlib
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy.typing as npt

from whit.data.prefetch import take_unpacked
from whit.data.readers.arrays import read_all, to_labels, to_nchw, to_splits
from whit.data.readers.bounded_io import CHUNK_BYTES, open_file
from whit.data.readers.idx import FILE_NAMES, parse_idx, parse_idx_bytes
from whit.data.splits import RawSplit, SplitName
from whit.errors import DataError

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def read_mnist(folder: Path | None = None) -> dict[SplitName, RawSplit]:
    """Return train (60,000 images) and test (10,000) from whit's own files, or from `folder`.

    Raises DataError if any decompressed byte differs from the published files.
    """
    if folder is None:
        with as_file(files("whit.data") / "mnist") as packaged:
            return read_mnist(packaged)
    arrays = read_all(
        {
            key: partial(_read_verified, folder / f"{name}.gz", SHA256[name])
            for key, name in FILE_NAMES.items()
        }
    )
    return to_splits(arrays, FILE_NAMES)


def digest_mnist(folder: Path | None = None) -> str:
    """Return the SHA-256 of the packed files that `read_mnist` reads, as they are now.

    Raises DataError if one cannot be read.
    """
    if folder is None:
        with as_file(files("whit.data") / "mnist") as packaged:
            return digest_mnist(packaged)
    digest = hashlib.sha256()
    for name in FILE_NAMES.values():
        path = folder / f"{name}.gz"
        packed = hashlib.sha256()
        with open_file(path, folder) as file:
            while chunk := file.read(CHUNK_BYTES):
                packed.update(chunk)
        digest.update(packed.digest())
    return digest.hexdigest()


def _read_verified(path: Path, expected: str) -> npt.NDArray[Any]:
    """Return images (N, C, H, W) or labels (N,) whose file has the `expected` SHA-256."""
    unpacked = take_unpacked(path)
    if unpacked and unpacked.sha256 == expected:
        return _to_array(parse_idx_bytes(unpacked.content, str(path)), path.name)
    try:
        with open_file(path, path.parent) as file:
            header, values = parse_idx(file, str(path))
        digest = hashlib.sha256(header.raw)
        digest.update(values.data)
        if (actual := digest.hexdigest()) != expected:
            raise DataError(
                f"{path}: expected SHA-256 {expected} of the unpacked file, found {actual}"
            )
    except DataError as error:
        problems = [f"{problem}; reinstall whit to repair it" for problem in error.problems]
        raise DataError(problems) from error
    return _to_array(values, path.name)


def _to_array(values: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    return to_nchw(values, name) if values.ndim > 1 else to_labels(values, name)
