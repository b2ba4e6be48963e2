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

from whit.errors import InputError, RunFailed
from whit.runs import layout
from whit.runs.lock import RunLock, is_running, read_lock_holder
from whit.runs.result import EpochRecord
from whit.system import atomic_files
from whit.system.file_names import name_problem

_MAX_NAME_BYTES = 255  # bytes; what file systems allow for one folder
_TEMPORARY = ".whit-new"  # prefix of a folder that is not complete


class RunFolder:
    """A run folder that this process has locked; as a context manager it releases the lock."""

    def __init__(self, path: Path, *, steal_lock: bool = False):
        """Lock an existing folder. Raises RunLocked when another process has locked it."""
        self.path = path
        self.checkpoints = path / layout.CHECKPOINTS
        if self.checkpoints.is_symlink():
            raise InputError(f"{self.checkpoints}: a link; run folders contain no links.")
        with self._translate_errors(layout.CHECKPOINTS):
            self.checkpoints.mkdir(exist_ok=True)
            self.lock = RunLock(self.checkpoints, steal=steal_lock)
            atomic_files.remove_temp_files(path)
            atomic_files.remove_temp_files(self.checkpoints)

    @staticmethod
    def check_creatable(out: Path) -> None:
        """Raise InputError if no new folder can be created at `out`; creates nothing."""
        if problem := name_problem(out):
            raise InputError(f"--out {str(out)!r}: {problem}; give another path.")
        if os.path.lexists(out):
            raise _exists_error(out)
        if any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in out.parts):
            raise InputError(f"--out {out}: a name in it is longer than {_MAX_NAME_BYTES} bytes.")
        if problem := atomic_files.unwritable_reason(out.absolute().parent):
            raise InputError(f"--out {out}: {problem}")

    @classmethod
    def create(
        cls, out: Path | None, name: str, seed: int, files: Mapping[str, bytes]
    ) -> RunFolder:
        """Create `out`, or a new folder in `runs/`, with `files` in it, as one step.

        Raises InputError when it exists or may not be created, RunFailed when the disk is full.
        """
        path = out or Path("runs") / f"{name}-{seed}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        if out or not os.path.lexists(path):  # a second run in one second gets a number
            cls.check_creatable(path)
        return cls(_create(path, files, numbered=out is None))

    @property
    def resume_command(self) -> str:
        return _resume_command(self.path)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file atomically. Raises RunFailed naming the file."""
        with self.writing(name, len(content)):
            atomic_files.atomic_write(self.path / name, content)

    def append_log(self, record: EpochRecord) -> None:
        line = _format_log_line(record)
        with self.writing(layout.LOG, len(line)):
            atomic_files.durable_append(self.path / layout.LOG, line)

    def rewrite_log(self, records: Sequence[EpochRecord]) -> None:
        """Make the log equal to the records of the checkpoint, unless it is."""
        content = b"".join(map(_format_log_line, records))
        log = self.path / layout.LOG
        if content != (log.read_bytes() if log.is_file() else b""):
            self.write_bytes(layout.LOG, content)

    @contextmanager
    def writing(self, name: str, size: int = 0) -> Iterator[None]:
        """Guard whatever writes `name`, of `size` bytes.

        Raises LockLost when this process no longer holds the lock, RunFailed naming the file.
        """
        self.lock.check()
        with self._translate_errors(name, size):
            try:
                yield
            except FileNotFoundError:
                self.lock.check()  # the folder may have been removed since
                raise

    @contextmanager
    def _translate_errors(self, name: str, size: int = 0) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFailed(
                f"{self.path / name}: cannot be written: "
                f"{atomic_files.disk_error_advice(self.path, error, size)}, then resume with: "
                f"{self.resume_command}"
            ) from None

    def finish(self) -> None:
        """Remove what only an unfinished run needs, and release the lock."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.lock.release()


def import_run(path: Path, files: Mapping[str, bytes]) -> None:
    """Create the folder of a run that was trained elsewhere, unless it exists.

    An unfinished run of a process that has ended is replaced. Raises RunFailed when it cannot be
    written, or when `files` has names that no run has.
    """
    unexpected = sorted(name for name in files if not layout.is_run_file(name))
    if unexpected:
        raise RunFailed(f"{path}: unexpected files in a run: {', '.join(map(repr, unexpected))}.")
    if os.path.lexists(path) and not os.path.lexists(path / layout.RESULT):
        holder = read_lock_holder(path / layout.CHECKPOINTS)
        if holder is None or holder.is_alive() is False:
            shutil.rmtree(path, ignore_errors=True)
    if not os.path.lexists(path):
        try:
            _create(path, files, numbered=False)
        except InputError as error:
            if not os.path.lexists(path):  # else another driver was faster
                raise RunFailed(str(error)) from None


def encode_json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _format_log_line(record: EpochRecord) -> bytes:
    return json.dumps(record.to_json()).encode() + b"\n"


def _exists_error(out: Path) -> InputError:
    hint = ""
    if (out / layout.CHECKPOINTS).is_dir() and not (out / layout.RESULT).exists():
        hint = f" It contains an unfinished run; to resume it: {_resume_command(out)}"
    return InputError(
        f"--out {out}: already exists, and a run never overwrites: "
        f"give a folder that does not exist, or omit --out.{hint}"
    )


def _resume_command(path: Path) -> str:
    return f"whit train --resume {shlex.quote(str(path))}"


def _create(path: Path, files: Mapping[str, bytes], *, numbered: bool) -> Path:
    """Create a folder with its files as one step; return its path, with a number if `numbered`."""
    parent = path.absolute().parent
    # Host and process are in the name, so that folders of killed processes can be recognized.
    temporary = parent / f"{_TEMPORARY}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        for file, content in files.items():
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            atomic_files.atomic_write(temporary / file, content)
        atomic_files.fsync_directory(temporary)
        path = _rename(temporary, path, numbered=numbered)
        atomic_files.fsync_directory(parent)
    except OSError as error:
        advice = atomic_files.disk_error_advice(parent, error, sum(map(len, files.values())))
        message = f"cannot create {path}: {advice}"
        if isinstance(error, PermissionError):
            raise InputError(f"{message}.") from None
        raise RunFailed(f"{message}. Nothing was started.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _rename(temporary: Path, path: Path, *, numbered: bool) -> Path:
    """Rename a complete folder; of several processes that try, one succeeds."""
    target, number = path, 1
    while True:
        try:
            if os.path.lexists(target):  # an empty folder would be replaced
                raise FileExistsError
            temporary.rename(target)
            return target
        except OSError:
            if not os.path.lexists(target):
                raise
            if not numbered:
                raise _exists_error(target) from None
        number += 1
        target = path.with_name(f"{path.name}-{number}")


def _remove_abandoned(parent: Path) -> None:
    """Remove the temporary folders of processes of this machine that were killed."""
    for path in parent.glob(f"{_TEMPORARY}-{socket.gethostname()}-*"):
        pid = path.name.split("-")[-2]
        if pid.isdigit() and not is_running(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
