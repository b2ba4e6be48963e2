"""Jobs on the workers of a dask cluster, behind the same `run` as the workers of this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.client import FutureCancelledError

from whit.errors import InputError, RunFailed
from whit.experiments.execution.dask_task import TOPIC, run_remote_job
from whit.experiments.execution.job import Job, Outcome, ProgressCallback
from whit.runs.code_version import compatibility_versions
from whit.runs.folder import import_run

_POLL_SECONDS = 0.1
_CONNECT_TIMEOUT = 10.0  # seconds to wait for the scheduler
_LOST_AFTER = 20.0  # seconds without the scheduler, or without a worker
_DISCOVERY_SECONDS = 1.0  # between two queries for new workers
# Evaluated by a builtin, so that even a worker without whit replies.
_QUERY = "__import__('whit.runs.code_version', fromlist=['_']).compatibility_versions()"


@dataclass
class _Task:
    job: Job
    future: Any  # distributed.Future
    workers: frozenset[str]  # that may run it


class _Client(Client):
    def __del__(self) -> None:
        """Do nothing: DaskExecutor closes it, and one never connected would block here."""


class DaskExecutor:
    """The workers of a dask scheduler that have this whit and this torch, as a context."""

    def __init__(self, address: str, warn: Callable[[str], None]):
        """Raises InputError when there is no scheduler, or no compatible worker."""
        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the messages below replace theirs
        self.address = address
        self._warn = warn  # told of each worker that is refused
        self.refused: dict[str, str] = {}  # worker to reason
        self.threads: dict[str, int] = {}  # of each compatible worker
        self._reported: set[str] = set()
        self._epochs: list[dict[str, Any]] = []
        try:
            client_type: Any = _Client  # its methods have no types
            self.client = client_type(address, timeout=_CONNECT_TIMEOUT, set_as_default=False)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(
                f"--cluster {address}: no scheduler responds: {error}. Expected an address such as "
                "tcp://host:8786, or tls://host:8786 with certificates."
            ) from None
        self._discover_workers()
        if not self.threads:
            problems = [f"worker {worker}: {why}." for worker, why in self.refused.items()]
            self.client.close(timeout=2)
            raise InputError(
                [f"--cluster {address}: none of its workers is compatible.", *problems]
                if problems
                else f"--cluster {address}: it has no workers. Start some: dask worker {address}"
            )
        self._report_refused()

    def __enter__(self) -> DaskExecutor:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close(timeout=2)

    def run(
        self, jobs: Iterator[Job], on_progress: ProgressCallback = lambda job, epochs: None
    ) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job with its outcome, in the order in which they end.

        As many jobs run at once as the compatible workers have threads. Raises RunFailed when
        the cluster is lost.
        """
        tasks: dict[str, _Task] = {}
        retries: list[Job] = []
        is_exhausted = False
        last_discovery = last_seen = time.monotonic()
        self.client.subscribe_topic(TOPIC, lambda event: self._epochs.append(event[1]))
        try:
            while True:
                if time.monotonic() - last_discovery > _DISCOVERY_SECONDS:
                    self._discover_workers()
                    self._report_refused()
                    last_discovery = time.monotonic()
                if self.threads:
                    last_seen = time.monotonic()
                elif time.monotonic() - last_seen > _LOST_AFTER or self.client.status == "closed":
                    raise RunFailed(
                        f"--cluster {self.address}: the scheduler or all of its workers are gone. "
                        "Finished runs are kept. Start the cluster again, then run the same "
                        "command to resume."
                    )
                while not is_exhausted and len(tasks) < sum(self.threads.values()):
                    job = retries.pop() if retries else next(jobs, None)
                    is_exhausted = job is None
                    if job is not None:
                        tasks[job.id] = self._submit(job)
                if is_exhausted and not tasks:
                    return
                for task in list(tasks.values()):
                    outcome = self._outcome(task)
                    if outcome is not None:
                        del tasks[task.job.id]
                        yield task.job, outcome
                    elif self._must_resubmit(task):
                        del tasks[task.job.id]
                        retries.append(task.job)
                        is_exhausted = False
                while self._epochs:
                    event = self._epochs.pop(0)
                    if event["id"] in tasks:
                        on_progress(tasks[event["id"]].job, event["epochs"])
                on_progress(None, 0)
                time.sleep(_POLL_SECONDS)
        finally:
            if tasks and self.client.status == "running":
                self.client.cancel([task.future for task in tasks.values()], force=True)

    def _submit(self, job: Job) -> _Task:
        compatible = frozenset(self.threads)
        future = self.client.submit(
            run_remote_job,
            job.to_json_line(),
            key=f"whit-{job.id}-{time.time_ns()}",
            workers=sorted(compatible),
            pure=False,
        )
        return _Task(job, future, compatible)

    def _outcome(self, task: _Task) -> Outcome | None:
        """Return how a task ended, and import its run; None while it has not."""
        if task.future.status == "error":
            error = task.future.exception()
            return Outcome("failed", f"on the cluster: {type(error).__name__}: {error}")
        if task.future.status != "finished":
            return None
        try:
            reply = task.future.result()
        except (FutureCancelledError, OSError):  # lost in transit
            return None
        if reply["files"]:
            import_run(Path(task.job.folder), reply["files"])
        return Outcome(reply["state"], reply["message"])

    def _must_resubmit(self, task: _Task) -> bool:
        """Whether the scheduler lost a task, or all workers that may run it are gone."""
        if not self.threads:
            return False
        if task.future.status in ("cancelled", "lost"):
            return True
        if task.workers & self.threads.keys():
            return False
        self.client.cancel([task.future], force=True)
        return True

    def _discover_workers(self) -> None:
        """Query the versions of new workers; those with another whit or torch are refused."""
        if self.client.status != "running":
            self.threads = {}
            return
        try:
            workers = self.client.scheduler_info(n_workers=-1)["workers"]
            new = [w for w in workers if w not in self.refused and w not in self.threads]
            answers = self.client.run(eval, _QUERY, workers=new, on_error="return") if new else {}
        except (OSError, TimeoutError):  # disconnecting at this moment
            self.threads = {}
            return
        versions = compatibility_versions()
        for worker, answer in answers.items():
            if isinstance(answer, OSError):
                continue  # it has just disconnected
            if isinstance(answer, BaseException):
                self.refused[worker] = f"whit cannot be imported there ({answer})"
            elif answer != versions:
                other = [name for name in versions if answer.get(name) != versions[name]]
                actual = ", ".join(f"{name} {answer.get(name)}" for name in other)
                expected = ", ".join(f"{name} {versions[name]}" for name in other)
                self.refused[worker] = f"it has {actual}; expected {expected}"
        self.threads = {
            worker: info["nthreads"]
            for worker, info in workers.items()
            if worker not in self.refused and (worker in self.threads or worker in answers)
        }

    def _report_refused(self) -> None:
        for worker in self.refused.keys() - self._reported:
            self._warn(f"refused worker {worker}: {self.refused[worker]}.")
        self._reported = set(self.refused)
