"""Turns on the processor: processes that compute on all cores take turns instead of competing.

Threads of one training wait for each other many times in every step. When two trainings compete
for the cores, each of these waits lasts until the system switches between them, and both take many
times as long. With turns of a tenth of a second each has the cores for itself half of the time.

A core is a lock file, and so is the place at the head of the queue; the system releases the locks
of a process that dies.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_TURN_SECONDS = 0.1
_POLL_SECONDS = 0.002
# A process that was suspended keeps its turn. Nobody waits for it longer than this, and then
# nobody waits for a turn for a while.
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 60.0


def turns_folder() -> Path | None:
    """Return the folder of this user's locks, made if it is missing; None if it is not safe.

    Another user may have made a folder of that name.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(runtime) / "whit" if runtime else Path(tempfile.gettempdir()) / f"whit-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != user):
        return None
    return folder


class Turns:
    """Turns on `num_threads` of `num_cores` cores, shared with this user's other processes.

    As a context it takes a turn, and releases it at the end. `between_steps` is called often,
    and passes the turn on when it is over and somebody waits. `check` is called while waiting, and
    may raise. Without a folder, or where its files cannot be locked, nobody waits.
    """

    def __init__(
        self,
        num_threads: int,
        num_cores: int,
        folder: Path | None,
        check: Callable[[], None] = lambda: None,
    ):
        self.folder = folder
        self.needed = num_threads  # cores, at most all
        self._check = check
        self._cores = [self._lock(f"core-{number}") for number in range(num_cores)]
        self._queue = self._lock("queue")
        self._member = self._lock(f"process-{os.getpid()}")
        self._ends_at = 0.0

    def _lock(self, name: str) -> FileLock:
        return FileLock((self.folder or Path()) / f"{name}.lock", thread_local=False)

    def __enter__(self) -> Turns:
        if self.folder is not None:
            try:
                self._member.acquire(blocking=False)
            except (OSError, Timeout, NotImplementedError):
                self.folder = None  # a file system without locks, or one that is full
        self._take()
        return self

    def __exit__(self, *error: object) -> None:
        self._release()
        self._member.release()
        if self.folder is not None:
            with suppress(OSError):
                Path(self._member.lock_file).unlink()

    def others(self) -> list[int]:
        """Return the process numbers of the others that take turns now."""
        return [] if self.folder is None else list_members(self.folder, without=os.getpid())

    def between_steps(self) -> None:
        """Pass the turn on if it is over and somebody waits for it."""
        now = time.monotonic()
        if now < self._ends_at:
            return
        if self._is_held and not self._somebody_waits():
            self._ends_at = now + _TURN_SECONDS
            return
        self._release()
        self._take()

    @property
    def _is_held(self) -> bool:
        return any(core.is_locked for core in self._cores)

    def _somebody_waits(self) -> bool:
        try:
            self._queue.acquire(blocking=False)
        except Timeout:
            return True
        except OSError:
            return False
        self._queue.release()
        return False

    def _take(self) -> None:
        """Wait for a turn; after _PATIENCE_SECONDS go without, and do not wait for a while."""
        if self.folder is None:
            self._ends_at = float("inf")
            return
        deadline = time.monotonic() + _PATIENCE_SECONDS
        try:
            with ExitStack() as stack:
                self._wait_for(self._queue, deadline)
                stack.callback(self._queue.release)
                self._wait_for_cores(deadline)
        except (Timeout, OSError):
            self._release()
            self._ends_at = time.monotonic() + _PAUSE_SECONDS
        else:
            self._ends_at = time.monotonic() + _TURN_SECONDS

    def _wait_for(self, lock: FileLock, deadline: float) -> None:
        while True:
            with suppress(Timeout):
                lock.acquire(blocking=False)
                return
            self._sleep(deadline)

    def _wait_for_cores(self, deadline: float) -> None:
        """Lock the cores one by one. Only the head of the queue does so: nobody blocks another."""
        held, needed = 0, min(self.needed, len(self._cores))
        while True:
            for core in self._cores:
                if held < needed and not core.is_locked:
                    with suppress(Timeout):
                        core.acquire(blocking=False)
                        held += 1
            if held == needed:
                return
            self._sleep(deadline)

    def _sleep(self, deadline: float) -> None:
        self._check()
        if time.monotonic() > deadline:
            raise Timeout(self._queue.lock_file)
        time.sleep(_POLL_SECONDS)

    def _release(self) -> None:
        for core in self._cores:
            core.release()


def list_members(folder: Path, without: int | None = None) -> list[int]:
    """Return the numbers of the processes that take turns; `without` is left out.

    Files that a killed process left behind are removed.
    """
    members = []
    for path in folder.glob("process-*.lock"):
        number = path.stem.removeprefix("process-")
        if not number.isdigit() or int(number) == without:
            continue
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            members.append(int(number))
            continue
        except OSError:
            continue
        with suppress(OSError):
            path.unlink()
        lock.release()
    return sorted(members)
