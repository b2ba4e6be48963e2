"""Worker processes on this machine, each with its own share of the cores.

They are `python -m whit.experiments.execution.worker`. A worker that is killed loses at most the
last half minute of its run; workers whose parent is killed save their runs and end.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from whit.errors import RunFailed
from whit.experiments.execution.job import Job, Outcome, ProgressCallback
from whit.system.json_worker import JsonWorker

_POLL_SECONDS = 0.5
_STOP_SECONDS = 6.0  # for workers to save; a run takes at most five
_MAX_ATTEMPTS = 3  # to run a job whose worker dies, each resuming the one before; to start a worker
_RESTART_SECONDS = 1.0  # after a worker that could not be started


class _Worker(JsonWorker):
    job: Job | None = None
    is_ready = False


class LocalExecutor:
    """`count` worker processes as a context; `run` distributes jobs to them.

    `warn` is called with a message when fewer of them can be started.
    """

    def __init__(
        self, count: int, threads: int = 1, warn: Callable[[str], None] = lambda message: None
    ):
        self.count = count
        self.threads = threads
        self._warn = warn
        self._workers: list[_Worker] = []
        self._failed_starts = 0  # in a row
        self._start_after = 0.0

    def __enter__(self) -> LocalExecutor:
        return self

    def start(self) -> None:
        """Start the workers, which import torch while this process does something else.

        What cannot be started now is started by `run`, which also reports failures.
        """
        # Not forks of a process that has imported torch: OpenMP's threads and a CUDA context do not
        # survive a fork, and forks of forks could be neither waited for nor explained.
        with suppress(OSError):
            while len(self._workers) < self.count:
                self._start_worker()

    def __exit__(self, *error: object) -> None:
        """Let every worker save its run and end; kill those that take too long or have no run."""
        for worker in self._workers:
            if worker.job is None:
                worker.kill()
            worker.disconnect()
        deadline = time.monotonic() + _STOP_SECONDS
        for worker in self._workers:
            worker.stop(max(0.0, deadline - time.monotonic()))
        self._workers = []

    def run(
        self, jobs: Iterator[Job], on_progress: ProgressCallback = lambda job, epochs: None
    ) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job with its outcome, in the order in which they end.

        A job is taken from `jobs` only when a worker is free for it. A job whose worker dies is
        retried, three attempts in all. When no more workers can be started, the existing ones
        continue. Raises RunFailed when there is none.
        """
        self._failed_starts = 0
        retries: list[Job] = []
        deaths: dict[str, int] = {}
        is_exhausted = False
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker, selectors.EVENT_READ)
            while True:
                for worker in self._workers:
                    if not worker.is_ready or worker.job is not None:
                        continue
                    job = retries.pop() if retries else next(jobs, None)
                    is_exhausted = job is None
                    if job is None:
                        break
                    worker.job = job
                    worker.send(job.to_json_line())
                while not is_exhausted and self._may_start_worker():
                    try:
                        selector.register(self._start_worker(), selectors.EVENT_READ)
                    except OSError as error:
                        self._count_failed_start(
                            f"was refused by the system: {error.strerror or error}."
                        )
                if is_exhausted and not retries and not any(w.job for w in self._workers):
                    return
                for key, _ in selector.select(_POLL_SECONDS):
                    worker = key.fileobj  # type: ignore[assignment]
                    is_alive = worker.read()
                    yield from self._take_messages(worker, on_progress)
                    if is_alive:
                        continue
                    selector.unregister(worker)
                    self._workers.remove(worker)
                    cause = worker.describe_exit()
                    worker.stop(0)
                    if not worker.is_ready and not is_exhausted:
                        self._count_failed_start(cause)
                    if worker.job is None:
                        continue
                    deaths[worker.job.folder] = deaths.get(worker.job.folder, 0) + 1
                    if deaths[worker.job.folder] < _MAX_ATTEMPTS:
                        retries.append(worker.job)
                        is_exhausted = False
                    else:
                        message = f"{_MAX_ATTEMPTS} attempts failed: its worker process {cause}"
                        yield worker.job, Outcome("failed", message)
                on_progress(None, 0)

    def _take_messages(
        self, worker: _Worker, on_progress: ProgressCallback
    ) -> Iterator[tuple[Job, Outcome]]:
        messages, worker.messages = worker.messages, []
        for message in messages:
            if "ready" in message:
                worker.is_ready = True
                self._failed_starts = 0
            elif "epochs" in message and worker.job:
                on_progress(worker.job, message["epochs"])
            elif "outcome" in message and worker.job:
                job, worker.job = worker.job, None
                yield job, Outcome(*message["outcome"])

    def _may_start_worker(self) -> bool:
        return len(self._workers) < self.count and time.monotonic() >= self._start_after

    def _count_failed_start(self, cause: str) -> None:
        """Count a worker that could not be started; after several in a row, lower `count`.

        Raises RunFailed when there is no other.
        """
        self._failed_starts += 1
        self._start_after = time.monotonic() + _RESTART_SECONDS
        if self._failed_starts < _MAX_ATTEMPTS:
            return
        if not self._workers:
            raise RunFailed(
                f"No worker process can be started: {_MAX_ATTEMPTS} attempts failed; the last "
                f"{cause}"
            )
        self._failed_starts = 0
        running = len(self._workers)
        self._warn(
            f"continuing with {running} of {self.count} workers: {_MAX_ATTEMPTS} attempts to start "
            f"another one failed; the last {cause.splitlines()[0]}"
        )
        self.count = running

    def _start_worker(self) -> _Worker:
        """Raises OSError when the system cannot start one more process."""
        threads = str(self.threads)
        env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        worker = _Worker(("-m", "whit.experiments.execution.worker"), env, capture_stderr=True)
        self._workers.append(worker)
        return worker
