"""A real dask scheduler with real worker processes, which tests kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from distributed import Client

from harness.processes import ENVIRONMENT
from waiting import LIMIT, wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Dask:
    """A scheduler and its workers, each a process of its own that finds paths from `folder`."""

    folder: Path
    port: int
    scheduler: subprocess.Popen[bytes]
    security: tuple[str, ...] = ()  # options, where it speaks TLS
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{'tls' if self.security else 'tcp'}://127.0.0.1:{self.port}"

    def add_worker(self, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a worker with one thread and no nanny, so that killing it kills it."""
        command = ["worker", self.address, *self.security, "--host", "127.0.0.1", "--nthreads", "1"]
        command += ["--no-nanny", "--no-dashboard", "--local-directory", "dask"]
        worker = dask(command, self.folder, environment)
        self.workers.append(worker)
        return worker


def dask(
    arguments: list[str], folder: Path, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    with (folder / "dask.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**ENVIRONMENT, "TMPDIR": str(folder / "dask"), **(environment or {})},
            process_group=0,
        )


@contextmanager
def started(folder: Path, workers: int, security: tuple[str, ...] = ()) -> Iterator[Dask]:
    """A scheduler with so many workers; all are killed at the end."""
    (folder / "dask").mkdir()
    port = free_port()
    command = ["scheduler", "--host", "127.0.0.1", "--port", f"{port}", "--no-dashboard"]
    command += [*security, *(["--protocol", "tls"] if security else [])]
    scheduler = dask(command, folder)
    found = Dask(folder, port, scheduler, security)
    try:
        for _ in range(workers):
            found.add_worker()
        wait_until_it_listens(port)
        if workers and not security:
            wait_for_workers(found, workers)
        yield found
    finally:
        for process in (*found.workers, scheduler):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_it_listens(port: int) -> None:
    def listens() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), LIMIT):
            return True
        return False

    wait_until(listens)


def wait_for_workers(cluster: Dask, count: int) -> None:
    with Client(cluster.address, timeout=LIMIT, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=LIMIT)
