"""A folder with the four IDX files of a data set, under any of their usual names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from whit.data.assembly import Labels, Part, as_labels, as_nchw, class_names, nchw_shape
from whit.data.idx import read_idx, read_idx_header
from whit.data.pixels import Pixels
from whit.data.splits import SplitName
from whit.errors import DataError

Role = Literal["images", "labels"]

# train-images-idx3-ubyte, t10k-labels.idx1-ubyte.gz, emnist-letters-test-images-idx3-ubyte.gz,
# qmnist-test-labels-idx2-int.gz
_NAME = re.compile(
    r"(?:(?P<set>.+)-)?(?P<split>train|t10k|test)-(?P<role>images|labels)"
    r"[-.]idx(?P<dims>[1-4])-(?:ubyte|int)(?P<gz>\.gz)?"
)
_WANTED: tuple[tuple[SplitName, Role], ...] = (
    ("train", "images"),
    ("train", "labels"),
    ("test", "images"),
    ("test", "labels"),
)
_EXAMPLES = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


@dataclass(frozen=True)
class IdxFolder:
    """Where the four files of a data set lie."""

    root: Path
    files: dict[tuple[SplitName, Role], Path]


def looks_like_idx(names: list[str]) -> bool:
    """Whether one of these file names is that of an IDX file."""
    return any(_NAME.fullmatch(name) for name in names)


def find_idx_files(root: Path) -> IdxFolder:
    """Find the four files in `root`. Raises DataError naming those missing or found twice.

    Where a file lies there both plain and gzipped, as other tools leave it, the plain one is
    taken.
    """
    found: dict[tuple[SplitName, Role], list[Path]] = {key: [] for key in _WANTED}
    sets = set()
    for name in sorted(os.listdir(root)):
        match = _NAME.fullmatch(name)
        if match is None or (match["gz"] and (root / name.removesuffix(".gz")).exists()):
            continue
        sets.add(match["set"] or "")
        split: SplitName = "train" if match["split"] == "train" else "test"
        found[split, "images" if match["role"] == "images" else "labels"].append(root / name)
    if len(sets) > 1:
        raise DataError(
            f"{root}: wanted the four IDX files of one data set, found files of {len(sets)} "
            f"({', '.join(sorted(prefix or 'no prefix' for prefix in sets))}); put each in a "
            "folder of its own"
        )
    missing = [_EXAMPLES[key] for key, paths in found.items() if not paths]
    double = [paths for paths in found.values() if len(paths) > 1]
    problems = [
        f"{root}: wanted one file, found {' and '.join(path.name for path in paths)}"
        for paths in double
    ]
    if missing:
        there = ", ".join(path.name for paths in found.values() for path in paths) or "none"
        problems.append(
            f"{root}: wanted the four IDX files of a data set, plain or .gz; missing: "
            f"{', '.join(missing)}; found: {there}"
        )
    if problems:
        raise DataError(problems)
    return IdxFolder(root, {key: paths[0] for key, paths in found.items()})


def read_idx_folder(root: Path) -> dict[SplitName, Part]:
    """Return the images and labels of train and test. Raises DataError with all problems."""
    folder = find_idx_files(root)
    problems: list[str] = []
    images: dict[SplitName, Pixels] = {}
    labels: dict[SplitName, Labels] = {}
    for (split, role), path in folder.files.items():
        try:
            if role == "images":
                images[split] = _read_images(path, root)
            else:
                labels[split] = _read_labels(path, root)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return {
        split: Part(
            images[split],
            labels[split],
            str(folder.files[split, "images"]),
            str(folder.files[split, "labels"]),
        )
        for split in images
    }


def describe_idx_folder(root: Path) -> tuple[tuple[int, int, int], int, int]:
    """Return ((C, H, W), K, training images) from headers and training labels alone."""
    files = find_idx_files(root).files
    path = files["train", "images"]
    shape = read_idx_header(path, root).shape
    labels = _read_labels(files["train", "labels"], root)
    classes, _ = class_names(labels, str(files["train", "labels"]))
    return nchw_shape(shape, str(path)), len(classes), shape[0]


def _read_images(path: Path, root: Path) -> Pixels:
    # Before the values: swapped files, and so labels, are told from images by their header.
    header = read_idx_header(path, root)
    nchw_shape(header.shape, str(path))
    if header.dtype.itemsize != 1:
        raise DataError(f"{path}: wanted images of unsigned bytes, found {header.dtype}")
    images: Pixels = as_nchw(read_idx(path, root), str(path))
    return images


def _read_labels(path: Path, root: Path) -> Labels:
    shape = read_idx_header(path, root).shape
    # QMNIST gives eight numbers for each image, of which the first is the class.
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 8):
        raise DataError(
            f"{path}: wanted labels, one number for each image, found an array of "
            f"{'x'.join(map(str, shape))}; is this a file of images?"
        )
    values = read_idx(path, root)
    return as_labels(values if values.ndim == 1 else values[:, 0], str(path))
