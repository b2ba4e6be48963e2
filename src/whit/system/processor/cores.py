"""The processor cores that this process may use, and how many of them other programs keep busy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from whit.errors import InputError

_SETTING = "WHIT_CORES"
_MIN_SECONDS = 0.1  # of a measurement; the system counts in hundredths of a second


def count_cores() -> int:
    """Return how many cores this process may use, at least 1.

    They are those of its CPU affinity, as set by `taskset` or a cpuset, and no more than its
    cgroup's quota, as set by a container or a batch system. The environment variable WHIT_CORES
    takes their place. Raises InputError when it is not a number from 1 up.
    """
    setting = os.environ.get(_SETTING)
    if setting:
        if not setting.isdecimal() or int(setting) < 1:
            raise InputError(f"{_SETTING}={setting}: expected a number of cores, at least 1.")
        return int(setting)
    quota = read_cgroup_quota()
    cores = len(_allowed_cores())
    return cores if quota is None else max(1, min(cores, int(quota)))


def count_free_cores(used: float) -> int:
    """Return how many cores are free, at least 1, when other programs use `used` of them.

    Half a core in use still counts as free.
    """
    return max(1, int(count_cores() - used + 0.5))


def resolve_threads(threads: int) -> int:
    """Return `threads` if it is allowed. Raises InputError outside 1 to 4 x cores."""
    maximum = 4 * (os.cpu_count() or 1)
    if not 1 <= threads <= maximum:
        raise InputError(f"--threads {threads}: allowed on this machine: 1 to {maximum}.")
    return threads


def read_cgroup_quota(
    membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """Return the cores that the cgroups of this process allow; None where there is no limit.

    Reads cpu.max of cgroup v2, cpu.cfs_quota_us and cpu.cfs_period_us of v1. The limit of a parent
    holds too, so the lowest counts.
    """
    quotas = [quota for folder in _cgroup_folders(membership, mount) for quota in _quotas(folder)]
    return min(quotas, default=None)


def _cgroup_folders(membership: Path, mount: Path) -> Iterator[Path]:
    """Yield the folders of the cgroups of this process that limit the processor, parents too."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mount / controllers if controllers else mount
        parts = Path(path).parts[1:]
        # A container may see its own cgroup as the root of the mount.
        for depth in range(len(parts), -1, -1):
            yield root.joinpath(*parts[:depth])


def _quotas(folder: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        yield int(quota) / int(period)  # "max": no limit, and no int
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (
            (folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
        )
        if int(quota) > 0:  # -1: no limit
            yield int(quota) / int(period)


def _allowed_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@dataclass(frozen=True)
class _Reading:
    time: float  # seconds
    busy: float  # seconds of processor time, of all programs on the allowed cores
    own: dict[int, float]  # the same of each process that is not to be counted, by its number


class LoadMeter:
    """Measures how many cores other programs use, from one `read` to the next.

    Neither this process counts, nor those whose numbers `exempt` returns. Programs of lower
    priority do not count: they yield to others. Nothing counts where WHIT_CORES says how many cores
    to use.
    """

    def __init__(self, exempt: Callable[[], Iterable[int]] = lambda: ()):
        self._exempt = exempt
        self._before = self._take()

    @property
    def seconds(self) -> float:
        """The time since the last `read`."""
        return time.monotonic() - self._before.time

    def read(self) -> float:
        """Return the cores used by other programs since the last call, 0 to all; fractions count.

        Waits until at least a tenth of a second has passed since then.
        """
        if os.environ.get(_SETTING):
            return 0.0
        time.sleep(max(0.0, _MIN_SECONDS - self.seconds))
        before, now = self._before, self._take()
        self._before = now
        own = sum(
            seconds - before.own[number]
            for number, seconds in now.own.items()
            if number in before.own
        )
        used = (now.busy - before.busy - own) / (now.time - before.time)
        return min(max(used, 0.0), float(len(_allowed_cores())))

    def _take(self) -> _Reading:
        times = psutil.cpu_times(percpu=True)
        allowed = [core for core in _allowed_cores() if core < len(times)]
        busy = sum(
            times[core].user + times[core].system
            + getattr(times[core], "irq", 0.0) + getattr(times[core], "softirq", 0.0)
            for core in allowed
        )  # fmt: skip
        own = {}
        for number in {os.getpid(), *self._exempt()}:
            with suppress(psutil.Error):
                used = psutil.Process(number).cpu_times()
                own[number] = used.user + used.system
        return _Reading(time.monotonic(), busy, own)
