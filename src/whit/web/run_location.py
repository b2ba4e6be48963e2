"""The path of a run folder, its text on the page, and a signature of its files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from whit.errors import InputError
from whit.runs import layout
from whit.runs.reader import RunRecord, read_run

# Modification times (ns), size and inode of each file; None for a missing one.
Signature = tuple[tuple[int, int, int, int] | None, ...]


DEMO_RUNS = Path(__file__).parent / "demo_runs"  # written by records/reproduce.py


class RunDeleted(Exception):
    """A run folder that was listed is missing."""

    status = 404


@dataclass(frozen=True)
class RunLocation:
    """A run folder. `path` is as the user gives it, `root` the folder that it was found in."""

    id: str
    path: str
    root: str
    study: str | None  # the id of the folder of seeds that it is in

    @property
    def display_path(self) -> str:
        path = Path(self.path)
        if path.is_relative_to(DEMO_RUNS):
            return f"demo: {path.name}"
        return escape_path(self.path)

    def signature(self) -> Signature:
        """Return what changes whenever one of the files does; all None when the run is missing."""
        return tuple(_file_signature(f"{self.path}{os.sep}{name}") for name in layout.FILES)

    def read(self) -> RunRecord:
        """Read the run, also an edited one. Raises RunDeleted, or InputError when it is damaged."""
        try:
            return read_run(Path(self.path), allow_edited=True)
        except InputError:
            if not os.path.isdir(self.path):
                raise RunDeleted(f"{self.display_path}: deleted since it was listed.") from None
            raise


def escape_path(path: str) -> str:
    """Return a path as text that JSON can hold: bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _file_signature(path: str) -> tuple[int, int, int, int] | None:
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
