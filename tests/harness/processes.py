"""`whit` as real processes that are killed, stopped and starved.

A forkserver has imported whit and torch once; each command line is a fork of it, so that two
hundred killed trainings take minutes. `fresh` starts a whole new interpreter instead, for what
happens while it starts.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.injection import Fault, inject
from waiting import LIMIT

WHIT = [sys.executable, "-m", "whit"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    # torch imports the last one when it makes its first optimizer, which takes two seconds.
    [
        "whit.cli.app",
        "whit.training.run",
        "whit.training.progress",
        "harness.processes",
        "torch._dynamo",
    ]
)


def _command_line(
    arguments: list[str], folder: str, output: str, fault: Fault | None, patience: float | None
) -> None:
    os.chdir(folder)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup
    sys.argv = ["whit", *arguments]
    from whit.cli.app import main
    from whit.system import signals as stopping

    if patience is not None:
        stopping._PATIENCE = patience
    if fault:
        inject(fault)
    sys.exit(main())


@dataclass
class Command:
    """One command line under way; `said` is all that it printed."""

    process: Any
    output: Path

    @classmethod
    def start(
        cls,
        folder: Path,
        *arguments: str,
        fault: Fault | None = None,
        patience: float | None = None,
    ) -> Command:
        """`patience`: seconds that a step may continue after a signal, in place of whit's own."""
        output = folder / f"output-{time.monotonic_ns()}.txt"
        given = ([str(a) for a in arguments], str(folder), str(output), fault, patience)
        process = _context.Process(target=_command_line, args=given)
        process.start()
        return cls(process, output)

    @property
    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(self.process.pid, number)

    def is_alive(self) -> bool:
        alive: bool = self.process.is_alive()
        return alive

    def wait(self, seconds: float = LIMIT) -> int:
        self.process.join(seconds)
        assert not self.is_alive(), f"it does not end: {self.said}"
        code: int = self.process.exitcode
        return code


def children_of(pid: int, module: ModuleType) -> list[int]:
    """The process numbers of those children of a process that run `python -m module`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            number = int(entry.name)
            if parent == pid and module.__name__.encode() in _command_of(number):
                found.append(number)
    return found


def have_ended(pids: list[int]) -> bool:
    return not any(_command_of(pid) for pid in pids)


def _command_of(pid: int) -> list[bytes]:
    """The words that a process was started with; none of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []


def whit(folder: Path, *arguments: str, fault: Fault | None = None) -> tuple[int, str]:
    """Run a command line to its end; return its exit code and all that it printed."""
    command = Command.start(folder, *arguments, fault=fault)
    return command.wait(), command.said


def fresh(
    folder: Path,
    *arguments: str,
    before: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command line in a new interpreter, perhaps under another program such as strace."""
    return subprocess.run(
        [*before, *WHIT, *arguments],
        cwd=folder,
        env={**ENVIRONMENT, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


def evidence(run: Path) -> dict[str, Any]:
    """Return everything of a finished run that must not depend on how often it was killed."""
    result = json.loads((run / "result.json").read_text())
    assert result.pop("digest")
    del result["seconds"]
    result["files"] = {
        name: result["files"][name] for name in ("recipe.toml", "weights.safetensors")
    }
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for row in log:
        del row["seconds"]
        for reading in row["evaluations"]:
            del reading["seconds"]
    return {"result": result, "log": log, "files": sorted(path.name for path in run.iterdir())}
