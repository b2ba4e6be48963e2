"""Worker processes on this machine, each with its own share of the cores.

They are `python -m whit.worker`, spoken to by lines of JSON: nothing is pickled, a worker that is
killed takes nothing with it but its run's last half minute, and workers whose driver is killed see
their standard input close, save, and end.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from whit.errors import RunFailed
from whit.job import Job, Outcome

# Told of each running job's epochs, and called at least twice a second with nothing new.
Look = Callable[[Job | None, int], None]

_TICK = 0.5  # seconds
_PATIENCE = 6.0  # seconds that workers get to save; a run takes at most five
_ATTEMPTS = 3  # of a job whose worker dies, each where the one before was; and of a worker to start
_PAUSE = 1.0  # seconds after a worker that could not be started
_TAIL = 2000  # characters of what a dead worker said


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    job: Job | None = None
    buffer: bytes = b""
    is_ready: bool = False
    found: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> bool:
        """Take in what the worker says; False when it has ended."""
        assert self.process.stdout is not None
        chunk = os.read(self.process.stdout.fileno(), 1 << 16)
        *lines, self.buffer = (self.buffer + chunk).split(b"\n")
        self.found += [json.loads(line) for line in lines]
        return bool(chunk)

    def give(self, job: Job) -> None:
        assert self.process.stdin is not None
        self.job = job
        with suppress(BrokenPipeError):  # it has died; its standard output says so too
            self.process.stdin.write(job.to_line().encode() + b"\n")

    def how_it_died(self) -> str:
        code = self.process.wait()
        self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, self.errors.tell() - _TAIL))
        said = self.errors.read().decode(errors="replace").strip()
        if code == -signal.SIGKILL:
            how = "was killed by SIGKILL, as the system does when memory runs out"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        return f"{how}{': ' if said else '.'}{said}"


class Workers:
    """So many worker processes as a context; `run` hands jobs out to them.

    `say` is told when fewer of them than asked for can be started.
    """

    def __init__(
        self, count: int, threads: int = 1, say: Callable[[str], None] = lambda said: None
    ):
        self.count = count
        self.threads = threads
        self._say = say
        self._workers: list[_Worker] = []
        self._not_started = 0  # in a row
        self._start_after = 0.0

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        """Let every worker save its run and end; whoever does not in time is killed."""
        for worker in self._workers:
            assert worker.process.stdin is not None
            worker.process.stdin.close()
        limit = time.monotonic() + _PATIENCE
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            self._close(worker)
        self._workers = []

    def run(
        self, jobs: Iterator[Job], look: Look = lambda job, epochs: None
    ) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job with its outcome, in the order in which they end.

        A job is taken from `jobs` only when a worker is free for it. A job whose worker dies is
        handed out again, three times in all. Where no more workers can be started, those that
        there are go on. Raises RunFailed when there is none.
        """
        self._not_started = 0
        again: list[Job] = []
        deaths: dict[str, int] = {}
        exhausted = False
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
            while True:
                for worker in self._free():
                    job = again.pop() if again else next(jobs, None)
                    exhausted = job is None
                    if job is None:
                        break
                    worker.give(job)
                if not exhausted and self._wants_one_more():
                    try:
                        started = self._start()
                    except OSError as error:
                        self._go_on_without(f"was refused: {error.strerror or error}.")
                    else:
                        selector.register(started.process.stdout, selectors.EVENT_READ, started)  # type: ignore[arg-type]
                busy = [worker for worker in self._workers if worker.job]
                if exhausted and not busy and not again:
                    return
                for key, _ in selector.select(_TICK):
                    worker = key.data
                    is_alive = worker.read()
                    yield from self._taken_in(worker, look)
                    if is_alive:
                        continue
                    selector.unregister(key.fileobj)
                    self._workers.remove(worker)
                    how = worker.how_it_died()
                    self._close(worker)
                    if not worker.is_ready and not exhausted:
                        self._go_on_without(how)
                    if worker.job is None:
                        continue
                    deaths[worker.job.folder] = deaths.get(worker.job.folder, 0) + 1
                    if deaths[worker.job.folder] < _ATTEMPTS:
                        again.append(worker.job)
                        exhausted = False
                    else:
                        said = f"{_ATTEMPTS} times its worker process {how}"
                        yield worker.job, Outcome("failed", said)
                look(None, 0)

    def _free(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.is_ready and worker.job is None]

    def _taken_in(self, worker: _Worker, look: Look) -> Iterator[tuple[Job, Outcome]]:
        for message in worker.found:
            if "ready" in message:
                worker.is_ready = True
                self._not_started = 0
            elif "epochs" in message and worker.job:
                look(worker.job, message["epochs"])
            elif "outcome" in message and worker.job:
                job, worker.job = worker.job, None
                yield job, Outcome(*message["outcome"])
        worker.found = []

    def _wants_one_more(self) -> bool:
        return len(self._workers) < self.count and time.monotonic() >= self._start_after

    def _go_on_without(self, how: str) -> None:
        """Note a worker that could not be started; after several in a row, want no more of them.

        Raises RunFailed when there is no other.
        """
        self._not_started += 1
        self._start_after = time.monotonic() + _PAUSE
        if self._not_started < _ATTEMPTS:
            return
        if not self._workers:
            raise RunFailed(f"No worker can be started: {_ATTEMPTS} times in a row one {how}")
        self._not_started = 0
        there = len(self._workers)
        self._say(
            f"going on with {there} of {self.count} workers, as no more can be started: "
            f"{_ATTEMPTS} times in a row one {how.splitlines()[0]}"
        )
        self.count = there

    def _start(self) -> _Worker:
        """Raises OSError where the system has no room for one more."""
        threads = str(self.threads)
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with its worker
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "whit.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
                process_group=0,  # Ctrl-C in a terminal reaches the driver alone
            )
        except OSError:
            errors.close()
            raise
        worker = _Worker(process, errors)
        self._workers.append(worker)
        return worker

    @staticmethod
    def _close(worker: _Worker) -> None:
        assert worker.process.stdin is not None
        assert worker.process.stdout is not None
        for stream in (worker.process.stdin, worker.process.stdout, worker.errors):
            stream.close()
