"""Small data sets written to disk, for the tests to read and to damage."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from whit.data.splits import Split
from whit.errors import DataError

IDX_NAMES = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


def make_images(count: int, *shape: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random pixels (count, *shape), so that no two images are equal."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def make_labels(count: int, num_classes: int = 3) -> npt.NDArray[np.uint8]:
    """0, 1, ..., K-1, 0, 1, ..."""
    return (np.arange(count) % num_classes).astype(np.uint8)


def make_split(labels: list[int], *, copies_of_first: int = 0) -> Split:
    """A train split of 1x5x4 images; the first `copies_of_first` of them are equal."""
    images = make_images(len(labels), 1, 5, 4)
    images[:copies_of_first] = images[0]
    return Split("train", torch.from_numpy(images), torch.tensor(labels))


def arrays(num_train: int = 30, num_test: int = 9) -> dict[tuple[str, str], npt.NDArray[np.uint8]]:
    """A data set of 3 classes and 5x4 images by (split, role)."""
    return {
        ("train", "images"): make_images(num_train, 5, 4, seed=1),
        ("train", "labels"): make_labels(num_train),
        ("test", "images"): make_images(num_test, 5, 4, seed=2),
        ("test", "labels"): make_labels(num_test),
    }


def idx_bytes(values: npt.NDArray[Any]) -> bytes:
    """The content of an IDX file; the type is that of the array."""
    code = {"u1": 0x08, "i4": 0x0C, "f4": 0x0D}[values.dtype.str[1:]]
    header = struct.pack(f">HBB{values.ndim}I", 0, code, values.ndim, *values.shape)
    return header + values.astype(values.dtype.newbyteorder(">")).tobytes()


def write_idx(
    root: Path,
    parts: dict[tuple[str, str], npt.NDArray[Any]] | None = None,
    *,
    packed: bool = False,
    names: dict[tuple[str, str], str] | None = None,
) -> Path:
    """Write a folder of IDX files; return it."""
    root.mkdir(parents=True, exist_ok=True)
    for key, values in (parts or arrays()).items():
        data, name = idx_bytes(values), (names or IDX_NAMES)[key]
        if packed:
            (root / f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))
        else:
            (root / name).write_bytes(data)
    return root


def npz_arrays() -> dict[str, npt.NDArray[Any]]:
    """The same data set under the names of an .npz."""
    short = {"images": "x", "labels": "y"}
    return {f"{short[role]}_{split}": values for (split, role), values in arrays().items()}


def write_npz(path: Path, **values: npt.NDArray[Any]) -> Path:
    """Write an .npz; return its path."""
    np.savez(path, **values)  # type: ignore[arg-type]
    return path


def write_folder(root: Path, parts: tuple[str, ...] = ("train", "test"), count: int = 4) -> Path:
    """Write `count` grey 5x4 PNG images for each of three classes and each part; return `root`."""
    for number, part in enumerate(parts or ("",)):
        for label, name in enumerate(("ant", "bee", "cat")):
            folder = root / part / name
            folder.mkdir(parents=True)
            images = make_images(count, 5, 4, seed=100 * number + label)
            for index, image in enumerate(images):
                Image.fromarray(image).save(folder / f"{index:02}.png")
    return root


def problems(error: DataError) -> str:
    """All of an error's problems, one to a line."""
    return "\n".join(error.problems)
