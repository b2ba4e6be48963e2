"""The folder of a run, and the only writer of it; `layout` names its files.

A folder appears with its recipe, environment and first checkpoint in it, or not at all.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from whit.durable import (
    append,
    remove_leftovers,
    sync_folder,
    what_to_free,
    why_no_place,
    write_whole,
)
from whit.errors import InputError, RunFailed
from whit.ownership import Ownership, is_running, owner_of
from whit.record import EpochRecord
from whit.runs import layout

_LONGEST_NAME = 255  # bytes; what file systems allow for one folder
_NEW = ".whit-new"  # begins the name of a folder in the making


class RunFolder:
    """A run folder that this process owns. As a context it gives the folder back at its end."""

    def __init__(self, path: Path, *, take_over: bool = False):
        """Own a folder that is there. Raises RunOwned when somebody else does."""
        self.path = path
        self.checkpoints = path / layout.CHECKPOINTS
        if self.checkpoints.is_symlink():
            raise InputError(f"{self.checkpoints}: a link; a run holds no links.")
        with self._failing_in_words(layout.CHECKPOINTS):
            self.checkpoints.mkdir(exist_ok=True)
            self.ownership = Ownership(self.checkpoints, take_over=take_over)
            remove_leftovers(path)
            remove_leftovers(self.checkpoints)

    @staticmethod
    def check_creatable(out: Path) -> None:
        """Raise InputError if no new folder can be made at `out`; makes nothing itself."""
        if os.path.lexists(out):
            raise _already_there(out)
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in out.parts):
            raise InputError(f"--out {out}: a name in it is longer than {_LONGEST_NAME} bytes.")
        if problem := why_no_place(out.absolute().parent):
            raise InputError(f"--out {out}: {problem}")

    @classmethod
    def create(
        cls, out: Path | None, name: str, seed: int, files: Mapping[str, bytes]
    ) -> RunFolder:
        """Make `out`, or a new folder under `runs/`, with `files` in it, as one step.

        Raises InputError when it is there or may not be made, RunFailed when the disk is full.
        """
        path = out or Path("runs") / f"{name}-{seed}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        if out or not os.path.lexists(path):  # a second run in one second gets a number
            cls.check_creatable(path)
        return cls(_made_whole(path, files, again=out is None))

    @property
    def resume_command(self) -> str:
        return _resume_command(self.path)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a whole file or none. Raises RunFailed naming the file."""
        with self.writing(name, len(content)):
            write_whole(self.path / name, content)

    def append_log(self, record: EpochRecord) -> None:
        line = _log_line(record)
        with self.writing(layout.LOG, len(line)):
            append(self.path / layout.LOG, line)

    def rewrite_log(self, records: Sequence[EpochRecord]) -> None:
        """Make the log say what the checkpoint knows, unless it does."""
        content = b"".join(map(_log_line, records))
        log = self.path / layout.LOG
        if content != (log.read_bytes() if log.is_file() else b""):
            self.write_bytes(layout.LOG, content)

    @contextmanager
    def writing(self, name: str, size: int = 0) -> Iterator[None]:
        """Around everything that writes `name`: only as the owner, and failing in plain words.

        Raises LostLock when somebody took the folder over, RunFailed naming the file.
        """
        self.ownership.check()
        with self._failing_in_words(name, size):
            yield

    @contextmanager
    def _failing_in_words(self, name: str, size: int = 0) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFailed(
                f"{self.path / name}: cannot be written: "
                f"{what_to_free(self.path, error, size)}, then go on with: {self.resume_command}"
            ) from None

    def finish(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.ownership.give_back()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.ownership.give_back()


def import_run(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder of a run that was made elsewhere, unless it is there already.

    What a process that is gone left unfinished there gives way to it. Raises RunFailed when it
    cannot be written, or holds what no run does.
    """
    strange = sorted(name for name in files if not layout.is_run_file(name))
    if strange:
        raise RunFailed(f"{path}: not the files of a run: {', '.join(map(repr, strange))}.")
    if os.path.lexists(path) and not os.path.lexists(path / layout.RESULT):
        owner = owner_of(path / layout.CHECKPOINTS)
        if owner is None or owner.is_alive() is False:
            shutil.rmtree(path, ignore_errors=True)
    if not os.path.lexists(path):
        try:
            _made_whole(path, files, again=False)
        except InputError as error:
            if not os.path.lexists(path):  # else another driver was quicker
                raise RunFailed(str(error)) from None


def as_json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _log_line(record: EpochRecord) -> bytes:
    return json.dumps(record.to_json()).encode() + b"\n"


def _already_there(out: Path) -> InputError:
    more = ""
    if (out / layout.CHECKPOINTS).is_dir() and not (out / layout.RESULT).exists():
        more = f" It holds an unfinished run, which {_resume_command(out)} goes on with."
    return InputError(
        f"--out {out}: already there, and a run never overwrites: "
        f"name a folder that does not exist, or leave --out away.{more}"
    )


def _resume_command(path: Path) -> str:
    return f"whit train --resume {shlex.quote(str(path))}"


def _made_whole(path: Path, files: Mapping[str, bytes], *, again: bool) -> Path:
    """Make a folder with its files as one step; return its name, another one if `again`."""
    above = path.absolute().parent
    # Its own host and process in the name, so that what a killed process left can be told.
    making = above / f"{_NEW}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        above.mkdir(parents=True, exist_ok=True)
        _sweep(above)
        for file, content in files.items():
            (making / file).parent.mkdir(parents=True, exist_ok=True)
            write_whole(making / file, content)
        sync_folder(making)
        path = _renamed(making, path, again=again)
        sync_folder(above)
    except OSError as error:
        wanted = sum(map(len, files.values()))
        said = f"{path}: cannot be made: {what_to_free(above, error, wanted)}"
        if isinstance(error, PermissionError):
            raise InputError(f"--out {said}.") from None
        raise RunFailed(f"{said}, and start again. Nothing was begun.") from None
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return path


def _renamed(making: Path, path: Path, *, again: bool) -> Path:
    """Give a finished folder its name; of several processes that want it, one gets it."""
    stem, number = path, 1
    while True:
        try:
            if os.path.lexists(path):  # an empty folder would be replaced
                raise FileExistsError
            making.rename(path)
            return path
        except OSError:
            if not os.path.lexists(path):
                raise
            if not again:
                raise _already_there(path) from None
        number += 1
        path = stem.with_name(f"{stem.name}-{number}")


def _sweep(above: Path) -> None:
    """Remove folders in the making whose maker on this machine was killed."""
    for path in above.glob(f"{_NEW}-{socket.gethostname()}-*"):
        pid = path.name.split("-")[-2]
        if pid.isdigit() and not is_running(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
