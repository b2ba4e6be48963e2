"""Untrusted files: no link is followed, nothing blocks, and a limited number of bytes is read.

Opening a named pipe blocks until it has a writer, so a file is opened without blocking and its
type is checked on the descriptor, when the file can no longer be exchanged.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

# Windows has no named pipes of this kind; O_BINARY keeps its line ends as they are.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


# A file may be MAX_RATIO times as large as what it takes on disk, where the system compresses;
# only one with holes is larger. Smaller files are read quickly anyway.
_MAX_RATIO = 100
_RATIO_EXEMPT_BYTES = 4 << 20


def unreadable_reason(path: Path | str, max_bytes: int) -> str | None:
    """Return why a file should not be read: its kind or its size; None for a proper one.

    Reads nothing of it, however large it is. Raises OSError when it does not exist.
    """
    descriptor = _open(path)
    if descriptor is None:
        return "not a regular file"
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        if status.st_size > max_bytes:
            return f"larger than {max_bytes:,} bytes"
        if status.st_size > _RATIO_EXEMPT_BYTES and _is_hollow(descriptor, status):
            return f"{status.st_size:,} bytes, but most of them are holes"
        return None
    finally:
        os.close(descriptor)


def _is_hollow(descriptor: int, status: os.stat_result) -> bool:
    blocks = getattr(status, "st_blocks", 0)
    if blocks:
        return status.st_size > _MAX_RATIO * 512 * blocks
    if not hasattr(os, "SEEK_DATA"):
        return False
    try:  # without blocks: a file of one hole, or a system that does not report them
        os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        return error.errno == errno.ENXIO  # no data in it
    return False


def _open(path: Path | str) -> int | None:
    """Return a descriptor that no read of it blocks on; None for a link, a socket, a device."""
    if not hasattr(os, "O_NOFOLLOW") and os.path.islink(path):
        return None
    try:
        return os.open(path, _FLAGS)
    except OSError as error:
        # A link; a socket, or a missing device.
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            return None
        raise


def read_untrusted(path: Path | str, max_bytes: int) -> bytes | None:
    """Return the first `max_bytes` bytes of a file; None for a link, a folder, a pipe, a device.

    Raises OSError when it does not exist or cannot be read.
    """
    descriptor = _open(path)
    if descriptor is None:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        # Usually one read; the size is wrong for a growing file or one of /proc.
        parts = [os.read(descriptor, min(max_bytes, status.st_size + 1))]
        length = len(parts[0])
        while parts[-1] and length < max_bytes:
            parts.append(os.read(descriptor, min(max_bytes - length, 1 << 20)))
            length += len(parts[-1])
        return b"".join(parts)
    finally:
        os.close(descriptor)
