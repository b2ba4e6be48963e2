"""A real PostgreSQL of its own in a folder, which tests stop."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.clusters import free_port, wait_until_it_listens
from waiting import LIMIT

_FOUND = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PROGRAMS = _FOUND[-1] if _FOUND else None
# PostgreSQL does not run as root.
_AS = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []


@dataclass
class Postgres:
    """A server on this machine's loopback."""

    folder: Path
    port: int

    @property
    def address(self) -> str:
        return f"postgresql://whit@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._control("start", "-o", options, "-l", "/dev/null")
        wait_until_it_listens(self.port)

    def stop(self) -> None:
        self._control("stop", "-m", "immediate")

    def _control(self, *arguments: str) -> None:
        """Run pg_ctl, which waits until it is done."""
        call("pg_ctl", "-D", f"{self.folder}/data", "-w", "-t", f"{LIMIT:.0f}", *arguments)


def call(program: str, *arguments: str) -> None:
    assert PROGRAMS is not None
    subprocess.run(
        [*_AS, str(PROGRAMS / program), *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    )


@contextmanager
def started() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="whit-postgres-"))
    try:
        if _AS:
            shutil.chown(folder, "postgres", "postgres")
        call("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "whit")
        server = Postgres(folder, free_port())
        server.start()
        try:
            yield server
        finally:
            with suppress(subprocess.CalledProcessError):  # a test has stopped it
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
