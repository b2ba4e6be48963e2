"""A fault at the n-th call that writes: the process is killed there, or the disk is full.

Called inside a process of its own before it begins (see processes.py). `strace` does the same from
outside, at every system call, but takes twenty seconds for each: `make slow`.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
from dataclasses import dataclass
from typing import Any, Literal

Call = Literal["open", "write", "flush", "fsync", "rename", "folder fsync"]


@dataclass(frozen=True)
class Fault:
    """What happens at the `place`-th `call` on files whose path ends in `name`."""

    call: Call
    place: int = 1
    name: str = ""
    # "interrupt": the process gets SIGINT there, and finds no space from the next such call on.
    deed: Literal["kill", "no space", "interrupt"] = "kill"


class _Stream:
    """A file that is open for writing."""

    def __init__(self, stream: Any, name: str, strike: Any):
        self._stream, self._name, self._strike = stream, name, strike

    def write(self, content: bytes) -> int:
        half = len(content) // 2
        self._stream.write(content[:half])
        self._strike("write", self._name)  # half of it is written
        return half + int(self._stream.write(content[half:]))

    def flush(self) -> None:
        self._strike("flush", self._name)
        self._stream.flush()

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def inject(fault: Fault) -> None:
    """Make this process fail as `fault` says."""
    seen = 0
    real_open, real_fsync, real_replace = io.open, os.fsync, os.replace

    def strike(call: str, name: str) -> None:
        nonlocal seen
        if call != fault.call or not name.endswith(fault.name):
            return
        seen += 1
        if seen >= fault.place + (fault.deed == "interrupt") and fault.deed != "kill":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if seen == fault.place:
            os.kill(os.getpid(), signal.SIGKILL if fault.deed == "kill" else signal.SIGINT)

    def open_file(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if mode not in ("wb", "ab"):
            return real_open(file, mode, *rest, **named)
        strike("open", str(file))
        return _Stream(real_open(file, mode, *rest, **named), str(file), strike)

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        name = "" if is_folder else os.readlink(f"/proc/self/fd/{descriptor}")
        strike("folder fsync" if is_folder else "fsync", name)
        real_fsync(descriptor)

    def replace(source: Any, target: Any, **named: Any) -> None:
        strike("rename", str(target))
        real_replace(source, target, **named)

    io.open, os.fsync, os.replace = open_file, fsync, replace  # type: ignore[assignment]
