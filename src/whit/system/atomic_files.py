"""Files that are whole or not there, whenever the process dies and whatever the disk does.

A file is written beside its name, brought to the disk, renamed, and its folder brought to the
disk: a crash at any of these leaves the old file or the new one, never half of either.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def why_no_place(folder: Path, *, to_write: bool = True) -> str | None:
    """Say why nothing can be put into `folder`, which may have to be made; None where it can."""
    whole = folder.absolute()
    nearest = next(place for place in (whole, *whole.parents) if os.path.lexists(place))
    if not nearest.is_dir():
        return f"{nearest} is not a folder."
    if to_write and not os.access(nearest, os.W_OK | os.X_OK):
        return f"no permission to write in {nearest}."
    return None


def write_whole(target: Path, content: bytes) -> None:
    """Write or replace a file as one step. Raises OSError; what was there before then stays."""
    beside = target.with_name(f".{target.name}.tmp")
    try:
        with beside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(target)
    except BaseException:  # signals, too
        beside.unlink(missing_ok=True)  # half a file would fill the disk that is already full
        raise
    sync_folder(target.parent)


def atomic_write_directory(target: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a new directory beside its name, then rename it as one step.

    Raises OSError; nothing is left then, nor when a signal ends it.
    """
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        beside.mkdir()
        for name, content in files.items():
            write_whole(beside / name, content)
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(target.parent)


def append(target: Path, content: bytes) -> None:
    """Add to the end of a file. Raises OSError; what was there before then stays alone."""
    new = not target.exists()
    with target.open("ab", buffering=0) as stream:
        before = stream.tell()
        try:
            if stream.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(before)
            raise
    if new:
        sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: a rename is only then safe from a power cut."""
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


def remove_leftovers(folder: Path) -> None:
    """Remove the half-written files that a killed process left beside its names."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def what_to_free(folder: Path, error: OSError, wanted: int) -> str:
    """Return what went wrong and what would mend it; `wanted` is the size of the file in bytes."""
    said = error.strerror or type(error).__name__
    if error.errno not in _FULL:
        return f"{said}. Make it writable again"
    try:
        free = f"{shutil.disk_usage(folder).free / 1e6:.1f} MB"
    except OSError:
        free = "an unknown amount"
    # Twice: the old file stays until the new one is whole.
    need = max(1.0, 2 * wanted / 1e6)
    return f"{said}. Free {need:.1f} MB or more on the disk of {folder} ({free} free there)"
