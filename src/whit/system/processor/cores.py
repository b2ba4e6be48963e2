"""The processor cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from whit.errors import InputError

CORES_SETTING = "WHIT_CORES"


def count_cores() -> int:
    """Return how many cores this process may use, at least 1.

    They are those of its CPU affinity, as set by `taskset` or a cpuset, and no more than its
    cgroup's quota, as set by a container or a batch system. The environment variable WHIT_CORES
    takes their place. Raises InputError when it is not a number from 1 up.
    """
    setting = os.environ.get(CORES_SETTING)
    if setting:
        if not setting.isdecimal() or int(setting) < 1:
            raise InputError(f"{CORES_SETTING}={setting}: expected a number of cores, at least 1.")
        return int(setting)
    quota = read_cgroup_quota()
    cores = len(allowed_cores())
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


def allowed_cores() -> list[int]:
    """Return the numbers of the cores on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
