"""The runs that the page lists: found in their folders, parsed defensively, cached while unchanged.

There is no database: each refresh walks the folders again, and reads only the runs whose files have
changed since. A refresh of a thousand unchanged runs is a few thousand `stat`s.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whit.errors import InputError
from whit.runs import layout
from whit.runs.listing import check_folders, comparable_values
from whit.runs.lock import LockHolder
from whit.runs.reader import RunRecord
from whit.web.payloads import (
    damaged_row,
    run_details,
    run_row,
    study_rows,
    with_differences,
)
from whit.web.run_location import DEMO_RUNS, RunDeleted, RunLocation, Signature, escape_path

FOLDERS = ("runs", "studies", "records", "searches")
_DEPTH = 4  # searches/<name>/trials/<number>/seed-<n> is four below its root
_MAX_RUNS = 5_000
_MAX_DETAILS = 32  # runs whose complete log is cached
_MAX_IDS = 20_000  # those of deleted runs too
_ID = re.compile(r"[0-9a-f]{16}")
_SEED = re.compile(r"seed-[0-9]+")


@dataclass
class _CachedRow:
    """A run's row as it was when its files had this signature."""

    signature: Signature
    row: dict[str, Any]
    run: RunRecord | None = None  # of an unfinished one, whose process may die at any time
    values: dict[str, Any] = field(default_factory=dict)  # in which it may differ from others


@dataclass(frozen=True)
class _CachedDetails:
    """All of a run as it was when its files had this signature and its lock this holder."""

    signature: Signature
    run: RunRecord
    lock: tuple[LockHolder | None, bool | None]
    value: dict[str, Any]


@dataclass
class RunIndex:
    """All run folders in `folders`; by default in those of FOLDERS that exist.

    Where these hold no run yet, the runs in DEMO_RUNS, so that there are networks to draw for.
    """

    folders: Sequence[Path] | None = None
    _locations: dict[str, RunLocation] = field(default_factory=dict)  # by path, of the last refresh
    _by_id: OrderedDict[str, RunLocation] = field(default_factory=OrderedDict)  # deleted ones too
    _rows: dict[str, _CachedRow] = field(default_factory=dict)  # by path
    _details: OrderedDict[str, _CachedDetails] = field(default_factory=OrderedDict)
    _list: tuple[object, dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        """Raise InputError for a given folder that does not exist."""
        check_folders(self.folders or [])
        self.base = os.path.realpath(".")  # the working directory may change meanwhile

    def roots(self) -> list[str]:
        if self.folders:
            return [str(folder) for folder in self.folders]
        return [name for name in FOLDERS if os.path.isdir(name)]

    def refresh(self) -> dict[str, Any]:
        """Return the value of /api/runs: the same object as before when nothing has changed."""
        roots = self.roots()
        locations, is_complete = self._find(roots)
        if not locations and not self.folders:
            locations, is_complete = self._find([str(DEMO_RUNS)])
        read = ((path, self._read_row(location)) for path, location in locations.items())
        rows = {path: row for path, row in read if row}
        self._locations = {path: locations[path] for path in rows}
        self._rows = rows
        for location in self._locations.values():
            self._by_id[location.id] = location
        while len(self._by_id) > _MAX_IDS:
            self._by_id.popitem(last=False)
        state = (roots, is_complete, [(row.signature, row.row) for row in rows.values()])
        if self._list is None or self._list[0] != state:
            value = {
                "roots": [escape_path(root) for root in roots],
                "is_complete": is_complete,
                "runs": with_differences(
                    [row.row for row in rows.values()], [row.values for row in rows.values()]
                ),
                "studies": study_rows([(locations[path], row.row) for path, row in rows.items()]),
            }
            self._list = state, value
        return self._list[1]

    def lookup(self, id: str) -> RunLocation | None:
        """Return a run that was found at any time, by its id."""
        return self._by_id.get(id)

    def details(self, location: RunLocation) -> dict[str, Any]:
        """Return the value of /api/runs/{id}, the same object while nothing has changed.

        Raises RunDeleted, or InputError when the run is damaged. Thread-safe.
        """
        signature = location.signature()
        cached = self._details.get(location.id)
        if cached is not None and cached.signature != signature:
            cached = None
        run = cached.run if cached else location.read()
        holder = run.lock_holder if run.result is None else None
        is_alive = holder.is_alive() if holder else None
        if cached is None or cached.lock != (holder, is_alive):
            changed = _last_change(signature)
            value = run_details(location, run, holder, is_alive, changed)
            cached = _CachedDetails(signature, run, (holder, is_alive), value)
            self._details[location.id] = cached
        with suppress(KeyError):  # another thread has just removed it
            self._details.move_to_end(location.id)
        while len(self._details) > _MAX_DETAILS:
            self._details.popitem(last=False)
        return cached.value

    def _read_row(self, location: RunLocation) -> _CachedRow | None:
        signature = location.signature()
        if not any(signature):
            return None
        cached = self._rows.get(location.path)
        if cached and cached.signature == signature:
            if cached.run is None or cached.row["state"] == cached.run.state:
                return cached
            row = {**cached.row, "state": cached.run.state}
            return _CachedRow(signature, row, cached.run, cached.values)
        try:
            run = location.read()
        except RunDeleted:
            return None
        except InputError as error:
            return _CachedRow(signature, damaged_row(location, error, _last_change(signature)))
        row = run_row(location, run, _last_change(signature))
        return _CachedRow(
            signature, row, run if run.result is None else None, comparable_values(run)
        )

    def _find(self, roots: Sequence[str]) -> tuple[dict[str, RunLocation], bool]:
        """Return the run folders below all roots by path, and whether those are all."""
        locations: dict[str, RunLocation] = {}
        ids: set[str] = set()
        remaining = [layout.MAX_FOLDERS]
        for root in roots:
            real_root = os.path.relpath(os.path.realpath(root), self.base)
            for path in layout.walk_runs(root, _DEPTH, remaining, self._locations):
                location = self._locations.get(path) or _locate(path, root, real_root)
                if location.id not in ids:  # one root may be inside another
                    ids.add(location.id)
                    locations[path] = location
                if len(locations) >= _MAX_RUNS:
                    return locations, False
        return locations, remaining[0] >= 0


def _locate(path: str, root: str, real_root: str) -> RunLocation:
    """Return the location of a folder below a root, without a link between them."""
    real = os.path.normpath(real_root + path.removeprefix(root))
    parent, name = os.path.split(real)
    study = _make_id(parent) if _SEED.fullmatch(name) else None
    return RunLocation(_make_id(real), path, root, study)


def _make_id(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def _last_change(signature: Signature) -> float | None:
    """Return when a file of the run was last written, in seconds since 1970."""
    times = [file[0] for file in signature[: len(layout.RECORD_FILES)] if file]
    return round(max(times) / 1e9, 3) if times else None
