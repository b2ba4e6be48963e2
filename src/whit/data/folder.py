"""A folder of images per class.

Either `train/CLASS/*.png` and `test/CLASS/*.png` (and perhaps `val/CLASS/*.png`), or `CLASS/*.png`
alone; then a test split is cut (see datasets.py). Classes are the folders' names, sorted; images
are in the order of their names. All images must have one size, and be all grey or all colour.
Nothing is resized, converted or turned silently: see picture.py for what is accepted.

Files beside the folders (a README, a licence), hidden files and Thumbs.db are passed over.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whit.data.assembly import Part
from whit.data.files import MAX_BYTES, is_inside
from whit.data.picture import EXTENSIONS, read_picture, read_picture_shape
from whit.data.splits import SplitName
from whit.errors import DataError

_SPLITS: dict[str, SplitName] = {
    "train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
}  # fmt: skip
_MOST_PROBLEMS = 20  # of one kind in one message; a folder may hold thousands
_PASSED_OVER = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Listing:
    """The images of one split: the files of each class, classes in the order of their labels."""

    folder: Path
    files: dict[str, list[Path]]

    def __len__(self) -> int:
        return sum(len(paths) for paths in self.files.values())


def looks_like_images(root: Path) -> bool:
    """Whether there is an image in a folder of `root`, or in a folder of one of these."""
    classes = [inner for folder in _folders(root) for inner in (folder, *_folders(folder))]
    return any(
        os.path.splitext(name)[1].lower() in EXTENSIONS
        for folder in classes
        for name in os.listdir(folder)
    )


def list_images(root: Path) -> dict[SplitName, Listing]:
    """Return the images of each split by listing folders alone; train alone without a test.

    Raises DataError with all problems.
    """
    folders = _folders(root)
    by_split = {
        _SPLITS[path.name.lower()]: path for path in folders if path.name.lower() in _SPLITS
    }
    problems: list[str] = []
    if "train" in by_split and "test" in by_split:
        problems += [
            f"{path}: wanted only the folders train, val and test in {root}, found another; "
            "move it away"
            for path in folders
            if path not in by_split.values()
        ]
    elif folders and len(by_split) == len(folders):
        raise DataError(
            f"{root}: wanted the folders train and test, found only "
            f"{' and '.join(path.name for path in folders)}"
        )
    else:
        by_split = {"train": root}
    listings: dict[SplitName, Listing] = {}
    for split, folder in by_split.items():
        listing, found = _list_split(folder, root)
        listings[split] = listing
        problems += found
    problems += _class_problems(listings)
    if problems:
        raise DataError(problems)
    return listings


def read_image_folder(root: Path) -> tuple[dict[SplitName, Part], tuple[str, ...]]:
    """Return the splits (train alone if there is no test) and the names of the classes.

    Raises DataError with all problems, the first few of each kind.
    """
    listings = list_images(root)
    classes = tuple(listings["train"].files)
    first = next(iter(listings["train"].files.values()))[0]
    shape = read_picture_shape(first, root)
    problems: list[str] = []
    parts: dict[SplitName, Part] = {}
    for split, listing in listings.items():
        count = len(listing)
        if count * shape[0] * shape[1] * shape[2] > MAX_BYTES:
            raise DataError(
                f"{listing.folder}: {count:,} images of {_text(shape)} are more than the "
                f"{MAX_BYTES:,} bytes that whit reads; use fewer or smaller images"
            )
        images = np.empty((count, *shape), np.uint8)
        labels = np.empty(count, np.int64)
        index = 0
        for label, paths in enumerate(listing.files.values()):
            for path in paths:
                try:
                    picture = read_picture(path, root, shape, first)
                except DataError as error:
                    problems += error.problems
                    if len(problems) >= _MOST_PROBLEMS:
                        raise DataError([*problems, "and perhaps more"]) from error
                    continue
                images[index], labels[index] = picture, label
                index += 1
        parts[split] = Part(images, labels, str(listing.folder), str(listing.folder))
    if problems:
        raise DataError(problems)
    return parts, classes


def describe_image_folder(root: Path) -> tuple[tuple[int, int, int], int, int, bool]:
    """Return ((C, H, W), K, training images, whether a test split must be cut from them).

    Folders are listed, and the header of the first image is read.
    """
    listings = list_images(root)
    train = listings["train"]
    first = next(iter(train.files.values()))[0]
    return read_picture_shape(first, root), len(train.files), len(train), "test" not in listings


def _folders(root: Path) -> list[Path]:
    """Return the folders in `root`, sorted by name, hidden ones left out."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not _is_hidden(path))


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _PASSED_OVER


def _list_split(folder: Path, root: Path) -> tuple[Listing, list[str]]:
    """Return the images of one split, and what is wrong with its files."""
    files: dict[str, list[Path]] = {}
    strange: list[Path] = []
    problems = []
    outside = _link_problems(folder, root)
    if outside:
        return Listing(folder, files), outside
    for entry in sorted(folder.iterdir()):
        if _is_hidden(entry):
            continue
        if not entry.is_dir():
            if entry.suffix.lower() in EXTENSIONS:
                problems.append(
                    f"{entry}: wanted images in a folder of their class, found it in {folder}"
                )
            continue
        outside = _link_problems(entry, root)
        if outside:
            problems += outside
            continue
        images = sorted(path for path in entry.iterdir() if not _is_hidden(path))
        # Such a name could not even be shown: it may hold bytes that are no text, or commands
        # to a terminal.
        problems += [
            f"{folder}: wanted names in printable characters, found {path.name!r}; rename it"
            for path in (entry, *images)
            if not path.name.isprintable()
        ]
        strange += [path for path in images if path.suffix.lower() not in EXTENSIONS]
        files[entry.name] = [path for path in images if path.suffix.lower() in EXTENSIONS]
        if not files[entry.name]:
            problems.append(f"{entry}: wanted images of class {entry.name!r}, found none")
    if strange:
        named = ", ".join(str(path) for path in strange[:_MOST_PROBLEMS])
        problems.append(
            f"{folder}: wanted only images ({', '.join(sorted(EXTENSIONS))}) in the folder of a "
            f"class, found {len(strange):,} others: {named}; move them away"
        )
    if not files and not problems:
        problems.append(f"{folder}: wanted a folder for each class, found none")
    return Listing(folder, files), problems[:_MOST_PROBLEMS]


def _link_problems(folder: Path, root: Path) -> list[str]:
    """Return what is wrong with a folder that leads outside `root` by a link."""
    if is_inside(folder, root):
        return []
    real = os.path.realpath(folder)
    return [f"{folder}: wanted a folder inside {root}, found a link to {real}; put it there"]


def _class_problems(listings: dict[SplitName, Listing]) -> list[str]:
    """Return where the classes of another split are not those of train."""
    train = listings["train"]
    problems = []
    for listing in listings.values():
        missing = sorted(train.files.keys() - listing.files.keys())
        extra = sorted(listing.files.keys() - train.files.keys())
        for names, what in ((missing, "does not have"), (extra, "has besides")):
            if names:
                named = ", ".join(names[:_MOST_PROBLEMS])
                problems.append(
                    f"{listing.folder}: wanted the same classes as in {train.folder}, found "
                    f"that it {what} {named}"
                )
    return problems


def _text(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))
