"""Which executor runs the jobs: a cluster, or worker processes of this machine."""

from __future__ import annotations

from typing import Any

from whit.errors import InputError
from whit.experiments.execution.local import LocalExecutor
from whit.system.console import warn
from whit.system.optional_deps import require_extra
from whit.system.processor.cores import count_cores, count_free_cores
from whit.system.processor.load import LoadMeter
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
        executor, notice = open_local_executor(jobs, threads, num_runs)
        if notice:
            warn(notice)
        return executor
    if jobs is not None:
        raise InputError("--jobs: a cluster runs as many as its workers have threads; omit it.")
    require_extra("cluster", "distributed")
    from whit.experiments.execution.dask_cluster import DaskExecutor

    with signals.interruptible():  # a scheduler may never answer
        return DaskExecutor(cluster, warn)


def open_local_executor(
    jobs: int | None, threads: int, num_runs: int | None = None
) -> tuple[LocalExecutor, str]:
    """Return the executor of `open_executor` without a cluster.

    And a sentence where it has fewer processes because other programs use the cores.
    """
    num_jobs, notice = (jobs, "") if jobs else _count_free_jobs(threads)
    return LocalExecutor(min(num_jobs, num_runs or num_jobs), threads, warn), notice


def _count_free_jobs(threads: int) -> tuple[int, str]:
    """Return how many runs of `threads` threads the free cores can hold, at least 1; a notice."""
    used, cores = LoadMeter().read(), count_cores()
    num_jobs = max(1, count_free_cores(used) // threads)
    most = max(1, cores // threads)
    if num_jobs >= most:
        return num_jobs, ""
    return num_jobs, (
        f"other programs use {used:.1f} of {cores} cores: training {num_jobs} at a time. "
        f"--jobs {most} trains {most}."
    )
