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


def read_untrusted(path: Path | str, max_bytes: int) -> bytes | None:
    """Return the first `max_bytes` bytes of a file; None for a link, a folder, a pipe, a device.

    Raises OSError when it does not exist or cannot be read.
    """
    if not hasattr(os, "O_NOFOLLOW") and os.path.islink(path):
        return None
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        # A link; a socket, or a missing device.
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            return None
        raise
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
