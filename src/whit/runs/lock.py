"""The lock of a run folder: one process at a time may write.

The lock is one of the operating system (filelock: flock, or its equivalent there), so a killed
holder loses it immediately, and two processes can never both acquire it. Its holder is also named
in `owner.json`, for messages and for file systems that several machines share, where the lock of
another machine may not be visible.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from whit.errors import LockLost, RunLocked
from whit.runs import layout
from whit.system.atomic_files import atomic_write
from whit.system.untrusted_files import read_untrusted

_MAX_BYTES = 10_000  # bytes of owner.json; a normal one has about 300


@dataclass(frozen=True)
class LockHolder:
    """A process, distinct from others with the same number: earlier ones, or on other hosts."""

    host: str
    boot_id: str | None  # of the kernel, where it names each boot
    pid: int
    start_time: str | None  # when the process started, in clock ticks since boot
    since: str  # when it locked the run, ISO 8601
    token: str  # no two holders share it

    @classmethod
    def this_process(cls) -> LockHolder:
        return cls(
            host=socket.gethostname(),
            boot_id=_boot_id(),
            pid=os.getpid(),
            start_time=_process_start_time(os.getpid()),
            since=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            token=secrets.token_hex(8),
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def is_alive(self) -> bool | None:
        """Whether the process still runs; None when it is on another machine."""
        if self.host != socket.gethostname():
            return None
        start = (_boot_id(), _process_start_time(self.pid))
        return is_running(self.pid) and (self.boot_id, self.start_time) == start


class RunLock:
    """The right to write in one folder, from construction to `release`."""

    def __init__(self, folder: Path, *, steal: bool = False):
        """Lock the folder. Raises RunLocked, naming the holder, when another process has it.

        `steal` takes it from a holder on another machine, of which this machine cannot tell whether
        it still runs. Raises OSError when the folder is not writable.
        """
        self.folder = folder
        self.holder = LockHolder.this_process()
        self._lock = FileLock(folder / layout.LOCK, timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            holder = read_lock_holder(folder) or "another process"
            raise RunLocked(f"{folder.parent}: locked by {holder}, which is training it.") from None
        before = read_lock_holder(folder)
        if before and before.host != self.holder.host and not steal:
            self._lock.release()
            raise RunLocked(
                f"{folder.parent}: locked by {before}, which has not released it. This machine "
                "cannot tell whether that process still runs: if you know that it does not, add "
                "--steal-lock."
            )
        try:
            atomic_write(folder / layout.LOCK_HOLDER, json.dumps(asdict(self.holder)).encode())
        except OSError:
            self._lock.release()
            raise

    def check(self) -> None:
        """Raise LockLost if the lock was stolen, or the folder is missing."""
        now = read_lock_holder(self.folder)
        if now is None or now.token != self.holder.token:
            raise LockLost(
                f"{self.folder.parent}: the lock was stolen by {now}; this process stops writing."
                if now
                else f"{self.folder.parent}: the folder, or a part of it, was removed during "
                "training; this process stops writing."
            )

    def release(self) -> None:
        now = read_lock_holder(self.folder)
        if now and now.token == self.holder.token:
            (self.folder / layout.LOCK_HOLDER).unlink(missing_ok=True)
        self._lock.release()


def read_lock_holder(folder: Path) -> LockHolder | None:
    """Return who locked the folder and did not release it, dead or alive."""
    try:
        value: Any = json.loads(read_untrusted(folder / layout.LOCK_HOLDER, _MAX_BYTES) or b"")
        holder = LockHolder(**value)
        is_pid = isinstance(holder.pid, int) and 0 < holder.pid < 1 << 31
        names = (holder.host, holder.since, holder.token)
        return holder if is_pid and all(isinstance(name, str) for name in names) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None  # never locked, or not written by whit


def is_running(pid: int) -> bool:
    """Whether a process with this number runs on this machine, of any user."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True


@cache
def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _process_start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since the kernel did; distinguishes reused numbers.

    None for a zombie process.
    """
    try:
        # The second field, the program's name, may contain spaces and brackets: count after it.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except (OSError, IndexError, ValueError):
        return None
