"""Which executor runs the jobs: a cluster, or worker processes of this machine."""

from __future__ import annotations

import os
from typing import Any

from whit.errors import InputError
from whit.experiments.execution.local import LocalExecutor
from whit.system.console import warn
from whit.system.optional_deps import require_extra
from whit.system.signals import SignalHandler


def open_executor(
    cluster: str | None,
    jobs: int | None,
    threads: int,
    signals: SignalHandler,
    num_runs: int | None = None,
) -> Any:
    """Return an executor: a cluster, or up to `jobs` processes of this machine.

    `num_runs` is how many runs there are in all, where that is known.
    """
    if cluster is None:
        num_jobs = jobs or max(1, (os.cpu_count() or 1) // threads)
        return LocalExecutor(min(num_jobs, num_runs or num_jobs), threads, warn)
    if jobs is not None:
        raise InputError("--jobs: a cluster runs as many as its workers have threads; omit it.")
    require_extra("cluster", "distributed")
    from whit.experiments.execution.dask_cluster import DaskExecutor

    with signals.interruptible():  # a scheduler may never answer
        return DaskExecutor(cluster, warn)
