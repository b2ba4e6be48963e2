"""Files that a stranger may have made: no link is followed, nothing is waited for, little is read.

To open a pipe with a name is to wait for whoever writes into it, so a file is opened without
waiting and its kind is asked afterwards, when nobody can exchange it any more.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

# Windows has no such pipes; it keeps line ends as they are only when told to.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def read_untrusted(path: Path | str, max_bytes: int) -> bytes | None:
    """Return the first `most` bytes of a file; None for a link, a folder, a pipe, a device.

    Raises OSError when it is not there or cannot be read.
    """
    if not hasattr(os, "O_NOFOLLOW") and os.path.islink(path):
        return None
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        # A link; a socket, or a device that is not there.
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            return None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        # In one piece where the size is true; it is not of a file that grows, or of the system's.
        parts = [os.read(descriptor, min(max_bytes, status.st_size + 1))]
        length = len(parts[0])
        while parts[-1] and length < max_bytes:
            parts.append(os.read(descriptor, min(max_bytes - length, 1 << 20)))
            length += len(parts[-1])
        return b"".join(parts)
    finally:
        os.close(descriptor)
