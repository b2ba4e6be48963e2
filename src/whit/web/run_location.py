"""Where a run folder lies, how it is named to a browser, and what tells that it changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whit.errors import InputError
from whit.run_record import RunRecord, read_run


def shown_path(path: str) -> str:
    """Return a path as text that JSON can hold: bytes that are no UTF-8 as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


_FILES = ("recipe.toml", "environment.json", "log.jsonl", "result.json")
_ALL_FILES = (*_FILES, "weights.safetensors", "audit.txt")

Stamp = tuple[tuple[int, int, int, int] | None, ...]  # of each file: what changes when it does


class Deleted(Exception):
    """A run folder that was shown, and is gone."""


@dataclass(frozen=True)
class Place:
    """A run folder. `path` is how a person names it, `root` the folder that it was found in."""

    id: str
    path: str
    root: str
    study: str | None  # the id of the folder of seeds that it lies in

    @property
    def shown(self) -> str:
        return shown_path(self.path)

    def stamp(self, files: Sequence[str] = _FILES) -> Stamp:
        """Return what changes whenever one of the files does; all None when it is gone."""
        return tuple(_stamp_of(f"{self.path}{os.sep}{name}") for name in files)

    def stamp_with_weights(self) -> Stamp:
        return self.stamp(_ALL_FILES)

    def read(self) -> RunRecord:
        """Read the run. Raises Deleted, or InputError when it is damaged."""
        try:
            return read_run(Path(self.path))
        except InputError:
            if not os.path.isdir(self.path):
                raise Deleted(f"{self.shown}: deleted since it was shown.") from None
            raise


def _stamp_of(path: str) -> tuple[int, int, int, int] | None:
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
