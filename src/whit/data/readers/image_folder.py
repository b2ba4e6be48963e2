"""A folder of images for each class.

Either `train/CLASS/*.png` and `test/CLASS/*.png` (and optionally `val/CLASS/*.png`), or
`CLASS/*.png` alone; then a test split is held out (see holdout.py). Classes are the names of the
folders, sorted; images are sorted by name. All images must have one size, and all be grey or all
be color. Nothing is resized, and nothing converted or turned silently: image_file.py says what is
accepted.

Files next to the folders (a README, a license), hidden files, Thumbs.db and
__MACOSX are ignored.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whit.data.holdout import TEST_DIVISOR
from whit.data.readers.arrays import format_shape
from whit.data.readers.bounded_io import MAX_BYTES, is_inside
from whit.data.readers.image_file import EXTENSIONS, read_image, read_image_shape
from whit.data.splits import DatasetShape, RawSplit, SplitName
from whit.errors import DataError

NAME = "image folder"
EXAMPLE = "a folder of images (train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png)"

_SPLITS: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_MAX_PROBLEMS = 20  # of one kind in one message; a folder may hold thousands
_IGNORED_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True)
class ImageListing:
    """The images of one split: the files of each class, classes in the order of their labels."""

    folder: Path
    files: dict[str, list[Path]]

    @property
    def paths(self) -> list[Path]:
        """All files, in the order of their labels."""
        return [path for paths in self.files.values() for path in paths]


def sniff(path: Path) -> bool:
    """Return whether there is an image in a subfolder of `path`, one or two levels down."""
    if not path.is_dir():
        return False
    folders = [inner for folder in _subfolders(path) for inner in (folder, *_subfolders(folder))]
    return any(
        os.path.splitext(name)[1].lower() in EXTENSIONS
        for folder in folders
        for name in os.listdir(folder)
    )


def list_images(root: Path) -> dict[SplitName, ImageListing]:
    """Return the unopened image files of each split. Raises DataError with all problems."""
    folders = _subfolders(root)
    if len(folders) == 1 and _subfolders(folders[0]) and folders[0].name.lower() not in _SPLITS:
        raise DataError(
            f"{root}: expected train and test, or a folder for each class, found only "
            f"{folders[0].name}, which contains folders; give {folders[0]}"
        )
    named = [path for path in folders if path.name.lower() in _SPLITS]
    by_split = {_SPLITS[path.name.lower()]: path for path in named}
    if len(by_split) < len(named):
        names = ", ".join(path.name for path in named)
        raise DataError(f"{root}: expected one folder for each split, found {names}")
    problems: list[str] = []
    if "train" in by_split and "test" in by_split:
        problems += [
            f"{path}: expected only the folders train, val and test in {root}, found another; "
            "move it elsewhere"
            for path in folders
            if path not in by_split.values()
        ]
    elif folders and len(by_split) == len(folders):
        raise DataError(
            f"{root}: expected the folders train and test, found only "
            f"{' and '.join(path.name for path in folders)}"
        )
    else:
        by_split = {"train": root}
    listings: dict[SplitName, ImageListing] = {}
    for split, folder in by_split.items():
        listings[split], split_problems = _list_split(folder, root)
        problems += split_problems
    problems += _class_problems(listings)
    if problems:
        raise DataError(problems)
    return listings


def load(root: Path) -> tuple[dict[SplitName, RawSplit], tuple[str, ...]]:
    """Return the splits and class names. Raises DataError with the first problems of each kind."""
    listings = list_images(root)
    classes = tuple(listings["train"].files)
    first = listings["train"].paths[0]
    shape = read_image_shape(first, root)
    problems: list[str] = []
    splits: dict[SplitName, RawSplit] = {}
    for split, listing in listings.items():
        count = len(listing.paths)
        if count * shape[0] * shape[1] * shape[2] > MAX_BYTES:
            raise DataError(
                f"{listing.folder}: {count:,} images of {format_shape(shape)} are more than the "
                f"{MAX_BYTES:,} bytes that whit reads; use fewer or smaller images"
            )
        images = np.empty((count, *shape), np.uint8)
        counts = [len(paths) for paths in listing.files.values()]
        labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        traits: Counter[str] = Counter()
        for index, path in enumerate(listing.paths):
            try:
                images[index] = read_image(path, root, shape, first, traits)
            except DataError as error:
                problems += error.problems
                if len(problems) >= _MAX_PROBLEMS:
                    raise DataError([*problems, "and perhaps more"]) from error
        name = str(listing.folder)
        notes = tuple(
            f"{name}: {number:,} of {count:,} images {trait}" for trait, number in traits.items()
        )
        splits[split] = RawSplit(images, labels, name, name, notes=notes)
    if problems:
        raise DataError(problems)
    return splits, classes


def probe(root: Path) -> DatasetShape:
    """Return the shape by file names and the first image's header. Raises DataError."""
    listings = list_images(root)
    files, paths = listings["train"].files, listings["train"].paths
    num_train = len(paths) if "test" in listings else len(paths) - len(paths) // TEST_DIVISOR
    return DatasetShape(read_image_shape(paths[0], root), len(files), num_train)


def _subfolders(root: Path) -> list[Path]:
    """Return the folders in `root`, sorted by name, without hidden ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not _is_hidden(path))


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _IGNORED_NAMES


def _list_split(folder: Path, root: Path) -> tuple[ImageListing, list[str]]:
    files: dict[str, list[Path]] = {}
    other_files: list[Path] = []
    problems = _link_problems(folder, root)
    if problems:
        return ImageListing(folder, files), problems
    for entry in sorted(folder.iterdir()):
        if _is_hidden(entry):
            continue
        if not entry.is_dir():
            if entry.suffix.lower() in EXTENSIONS:
                problems.append(
                    f"{entry}: expected images in a folder of their class, found it in {folder}"
                )
            continue
        if link_problems := _link_problems(entry, root):
            problems += link_problems
            continue
        images = sorted(path for path in entry.iterdir() if not _is_hidden(path))
        # A name may hold bytes that are not text, or control sequences of a terminal.
        problems += [
            f"{folder}: expected names in printable characters, found {path.name!r}; rename it"
            for path in (entry, *images)
            if not path.name.isprintable()
        ]
        other_files += [path for path in images if path.suffix.lower() not in EXTENSIONS]
        files[entry.name] = [path for path in images if path.suffix.lower() in EXTENSIONS]
        if not files[entry.name]:
            problems.append(f"{entry}: expected images of class {entry.name!r}, found none")
    if other_files:
        paths = ", ".join(str(path) for path in other_files[:_MAX_PROBLEMS])
        problems.append(
            f"{folder}: expected only images ({', '.join(sorted(EXTENSIONS))}) in the folder of a "
            f"class, found {len(other_files):,} others: {paths}; move them elsewhere"
        )
    if not files and not problems:
        problems.append(f"{folder}: expected a folder for each class, found none")
    return ImageListing(folder, files), problems[:_MAX_PROBLEMS]


def _link_problems(folder: Path, root: Path) -> list[str]:
    """Return the problem of a folder that is a link to outside `root`."""
    if is_inside(folder, root):
        return []
    real = os.path.realpath(folder)
    return [
        f"{folder}: expected a folder inside {root}, found a link to {real}; copy the folder "
        "itself there"
    ]


def _class_problems(listings: dict[SplitName, ImageListing]) -> list[str]:
    train = listings["train"]
    problems = []
    for listing in listings.values():
        missing = train.files.keys() - listing.files.keys()
        extra = listing.files.keys() - train.files.keys()
        problems += [
            f"{listing.folder}: expected the same classes as in {train.folder}, found that it "
            f"{difference} {', '.join(sorted(names)[:_MAX_PROBLEMS])}"
            for names, difference in ((missing, "does not have"), (extra, "also has"))
            if names
        ]
    return problems
