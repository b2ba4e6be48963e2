"""The runs that are shown: found in their folders, read with suspicion, and kept while unchanged.

Nothing is indexed: each look walks the folders again, and reads only the runs whose files have
changed since. A look at a thousand unchanged runs is a few thousand `stat`s.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whit.errors import InputError
from whit.ownership import Owner
from whit.run_record import RunRecord
from whit.web.payloads import damaged_row, details, run_row, study_rows
from whit.web.run_location import _ALL_FILES, _FILES, Deleted, Place, Stamp, shown_path

FOLDERS = ("runs", "studies", "records", "searches")
_DEPTH = 4  # searches/<name>/trials/<number>/seed-<n> lies four below its root
_MOST_FOLDERS = 20_000  # that are looked into, for somebody who names /
_MOST_RUNS = 5_000
_MOST_DETAILS = 32  # runs whose whole log is kept
_MOST_KNOWN = 20_000  # ids, those of deleted runs too
_ID = re.compile(r"[0-9a-f]{16}")
_SEED = re.compile(r"seed-[0-9]+")


@dataclass
class _Read:
    """A run's row as it was when its files had this stamp."""

    stamp: Stamp
    row: dict[str, Any]
    run: RunRecord | None = None  # of an unfinished one, whose owner may die any time


@dataclass(frozen=True)
class _Details:
    """All of a run as it was when its files had this stamp, and its owner this life."""

    stamp: Stamp
    run: RunRecord
    owner: tuple[Owner | None, bool | None]
    value: dict[str, Any]


@dataclass
class Shelf:
    """All run folders in `folders`; without any, in those of the usual ones that are there."""

    folders: Sequence[Path] | None = None
    _places: dict[str, Place] = field(default_factory=dict)  # by path, of the last look
    _known: OrderedDict[str, Place] = field(default_factory=OrderedDict)  # by id, for ever
    _reads: dict[str, _Read] = field(default_factory=dict)  # by path
    _details: OrderedDict[str, _Details] = field(default_factory=OrderedDict)
    _look: tuple[object, dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        """Raise InputError for a folder that was named and is not there."""
        missing = [folder for folder in self.folders or [] if not os.path.isdir(folder)]
        if missing:
            said = {True: "not a folder", False: "no such folder"}
            raise InputError([f"{f}: {said[os.path.exists(f)]}." for f in missing])
        self.base = os.path.realpath(".")  # somebody may change to another folder meanwhile

    def roots(self) -> list[str]:
        if self.folders:
            return [str(folder) for folder in self.folders]
        return [name for name in FOLDERS if os.path.isdir(name)]

    def look(self) -> dict[str, Any]:
        """Return what /api/runs says: the same object as before when nothing has changed."""
        roots = self.roots()
        places, is_whole = self._found(roots)
        reads: dict[str, _Read] = {}
        for path, place in places.items():
            read = self._row_of(place)
            if read:
                reads[path] = read
        self._places = {path: places[path] for path in reads}
        self._reads = reads
        for place in self._places.values():
            self._known[place.id] = place
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        now = (roots, is_whole, [(read.stamp, read.row) for read in reads.values()])
        if self._look is None or self._look[0] != now:
            rows = [read.row for read in reads.values()]
            value = {"roots": [shown_path(root) for root in roots], "is_whole": is_whole}
            studies = study_rows([(places[path], read.row) for path, read in reads.items()])
            self._look = now, {**value, "runs": rows, "studies": studies}
        return self._look[1]

    def known(self, id: str) -> Place | None:
        """Return a run that was found at some time, by its id."""
        return self._known.get(id)

    def details(self, place: Place) -> dict[str, Any]:
        """Return what /api/runs/{id} says, the same object while nothing has changed.

        Raises Deleted, or InputError when the run is damaged.
        """
        stamp = place.stamp_with_weights()
        kept = self._details.get(place.id)
        if kept is None or kept.stamp != stamp:
            kept = None
        run = kept.run if kept else place.read()
        owner = run.owner if run.result is None else None
        alive = owner.is_alive() if owner else None
        if kept is None or kept.owner != (owner, alive):
            value = details(place, run, owner, alive, _changed(stamp[: len(_FILES)]))
            kept = self._details[place.id] = _Details(stamp, run, (owner, alive), value)
        with suppress(KeyError):  # another thread has just dropped it
            self._details.move_to_end(place.id)
        while len(self._details) > _MOST_DETAILS:
            self._details.popitem(last=False)
        return kept.value

    def _row_of(self, place: Place) -> _Read | None:
        stamp = place.stamp()
        if not any(stamp):
            return None
        read = self._reads.get(place.path)
        if read and read.stamp == stamp:
            if read.run is not None and read.row["state"] != read.run.state:
                return _Read(stamp, {**read.row, "state": read.run.state}, read.run)
            return read
        try:
            run = place.read()
        except Deleted:
            return None
        except InputError as error:
            return _Read(stamp, damaged_row(place, error, _changed(stamp)))
        row = run_row(place, run, _changed(stamp))
        return _Read(stamp, row, run if run.result is None else None)

    def _found(self, roots: Sequence[str]) -> tuple[dict[str, Place], bool]:
        """Return the run folders below all roots by path, and whether those are all."""
        found: dict[str, Place] = {}
        taken: set[str] = set()
        budget = [_MOST_FOLDERS]
        for root in roots:
            real = os.path.relpath(os.path.realpath(root), self.base)
            for path in _walk(root, _DEPTH, self._places, budget):
                place = self._places.get(path) or _place(path, root, real)
                if place.id not in taken:  # one root may lie in another
                    taken.add(place.id)
                    found[path] = place
                if len(found) >= _MOST_RUNS:
                    return found, False
        return found, budget[0] >= 0


def _place(path: str, root: str, real_root: str) -> Place:
    """Name a folder that was found below a root; no link lies between them."""
    real = os.path.normpath(real_root + path.removeprefix(root))
    above, name = os.path.split(real)
    study = _id_of(above) if _SEED.fullmatch(name) else None
    return Place(_id_of(real), path, root, study)


def _id_of(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def _walk(path: str, depth: int, known: Mapping[str, object], budget: list[int]) -> Iterator[str]:
    """Yield the run folders at or below a folder, by name. Follows no links, goes into no run.

    A folder that was known as one is believed to be one: its files will tell.
    """
    if path in known:
        yield path
        return
    budget[0] -= 1
    if budget[0] < 0:
        return
    files, folders = set(), []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    files.add(entry.name)
    except OSError:
        return  # gone meanwhile, or not ours to list
    if _looks_like_run(path, files, folders):
        yield path
        return
    if depth == 0:
        return
    for name in sorted(folders):
        if not name.startswith("."):  # a run in the making, or no folder of ours
            inside = f"{path}{os.sep}{name}"
            if inside in known:
                yield inside
            else:
                yield from _walk(inside, depth - 1, known, budget)


def _looks_like_run(path: str, files: set[str], folders: list[str]) -> bool:
    """Tell a run from the folder of a trial, which holds a recipe and the runs of it."""
    if len(files & set(_ALL_FILES)) > 1 or (files & set(_ALL_FILES) and "checkpoint" in folders):
        return True
    is_trial = folders or os.path.basename(os.path.dirname(path)) == "trials"
    return "recipe.toml" in files and not is_trial


def _changed(stamp: Stamp) -> float | None:
    """Return when a file of the run was last written, in seconds since 1970."""
    return max((round(file[0] / 1e9, 3) for file in stamp if file), default=None)
