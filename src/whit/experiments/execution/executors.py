"""Which executor runs the jobs: a cluster, or worker processes of this machine."""

from __future__ import annotations

from typing import Any

from whit.errors import InputError
from whit.experiments.execution.local import LocalExecutor
from whit.system.console import warn
from whit.system.optional_deps import require_extra
from whit.system.processor.cores import LoadMeter, count_cores, count_free_cores
from whit.system.signals import SignalHandler


def open_executor(
    cluster: str | None,
    jobs: int | None,
    threads: int,
    signals: SignalHandler,
    num_runs: int | None = None,
) -> Any:
    """Return an executor: a cluster, or up to `jobs` processes of this machine.

    Without `jobs`, as many as the cores that are free allow. `num_runs` is how many runs there
    are in all, where that is known.
    """
    if cluster is None:
        num_jobs = jobs or _count_free_jobs(threads)
        return LocalExecutor(min(num_jobs, num_runs or num_jobs), threads, warn)
    if jobs is not None:
        raise InputError("--jobs: a cluster runs as many as its workers have threads; omit it.")
    require_extra("cluster", "distributed")
    from whit.experiments.execution.dask_cluster import DaskExecutor

    with signals.interruptible():  # a scheduler may never answer
        return DaskExecutor(cluster, warn)


def _count_free_jobs(threads: int) -> int:
    """Return how many runs of `threads` threads the free cores can hold, at least 1."""
    used, cores = LoadMeter().read(), count_cores()
    num_jobs = max(1, count_free_cores(used) // threads)
    most = max(1, cores // threads)
    if num_jobs < most:
        warn(
            f"other programs use {used:.1f} of {cores} cores: training {num_jobs} at a time. "
            f"--jobs {most} trains {most}."
        )
    return num_jobs
