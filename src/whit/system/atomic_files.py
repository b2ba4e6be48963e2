"""Atomic, durable writes: a file is complete or absent, whenever the process or the disk fails.

A file is written under a temporary name, synced, renamed, and its folder synced: a crash at any
step leaves the old file or the new one, never half of either.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def unwritable_reason(folder: Path, *, to_write: bool = True) -> str | None:
    """Return why `folder`, which need not exist yet, cannot be written; None where it can."""
    absolute = folder.absolute()
    nearest = next(path for path in (absolute, *absolute.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        return f"{nearest} is not a folder."
    if to_write and not os.access(nearest, os.W_OK | os.X_OK):
        return f"no permission to write in {nearest}."
    return None


def atomic_write(target: Path, content: bytes) -> None:
    """Write or replace a file as one step. Raises OSError; an earlier file then stays."""
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:  # signals, too
        temporary.unlink(missing_ok=True)  # half a file would fill the disk that is already full
        raise
    fsync_directory(target.parent)


def atomic_write_directory(target: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a new directory of a temporary name, then rename it as one step.

    Raises OSError; nothing is left then, nor when a signal ends it.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        for name, content in files.items():
            atomic_write(temporary / name, content)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_directory(target.parent)


def durable_append(target: Path, content: bytes) -> None:
    """Append to a file and sync it. Raises OSError; the file is then as it was before."""
    is_new = not target.exists()
    with target.open("ab", buffering=0) as stream:
        before = stream.tell()
        try:
            if stream.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(before)
            raise
    if is_new:
        fsync_directory(target.parent)


def fsync_directory(folder: Path) -> None:
    """Sync the names in a folder: a rename is only then safe from a power cut."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def remove_temp_files(folder: Path) -> None:
    """Remove the half-written files that a killed process left in `folder`."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def disk_error_advice(folder: Path, error: OSError, num_bytes: int) -> str:
    """Return the error and what to do about it; `num_bytes` is the size of the file."""
    reason = error.strerror or type(error).__name__
    if error.errno not in _DISK_FULL:
        return f"{reason}. Make it writable again"
    try:
        free = f"{shutil.disk_usage(folder).free / 1e6:.1f} MB"
    except OSError:
        free = "an unknown amount"
    # Twice: the old file stays until the new one is complete.
    megabytes = max(1.0, 2 * num_bytes / 1e6)
    return f"{reason}. Free {megabytes:.1f} MB or more on the disk of {folder} ({free} free there)"
