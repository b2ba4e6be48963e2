"""Worker processes that cannot be started, or die before they are ready."""

from __future__ import annotations

import gc
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from harness.processes import children_of
from whit.errors import RunFailed
from whit.experiments.execution import worker
from whit.experiments.execution.job import Job
from whit.experiments.execution.local import LocalExecutor
from whit.recipes.recipe import load_recipe


@pytest.fixture
def jobs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    monkeypatch.chdir(workplace)
    recipe = load_recipe("easy.toml").with_overrides(["train.epochs=1"]).to_toml()
    return [Job(recipe, seed, f"seed-{seed}") for seed in range(2)]


def test_one_that_dies_while_it_starts_is_started_again(jobs: list[Job]) -> None:
    killed: list[int] = []

    def look(job: Job | None, epochs: int) -> None:
        if len(killed) < 2 and (found := children_of(os.getpid(), worker)):
            os.kill(found[0], signal.SIGKILL)
            killed.append(found[0])

    with LocalExecutor(1) as workers:
        outcomes = [outcome.state for _, outcome in workers.run(iter(jobs), look)]
    assert outcomes == ["finished", "finished"]
    assert len(killed) == 2


def test_when_there_is_room_for_one_alone_that_one_does_all(jobs: list[Job]) -> None:
    said: list[str] = []

    def until_it_is_said() -> Iterator[Job]:
        for seed in count():  # it may be said before the one is ready, which does one all the same
            yield replace(jobs[0], seed=seed, folder=f"seed-{seed}")
            if said:
                return

    # One for the driver, and seven to start a worker, which keeps three.
    with files_to_open(9), LocalExecutor(2, warn=said.append) as workers:
        outcomes = {outcome.state for _, outcome in workers.run(until_it_is_said())}
    assert outcomes == {"finished"}
    assert said == [
        "continuing with 1 of 2 workers: 3 attempts to start another one failed; the last was "
        "refused by the system: Too many open files."
    ]


@contextmanager
def files_to_open(number: int) -> Iterator[None]:
    """Let this process open so many files more; those that it starts can open enough."""
    gc.collect()  # what earlier tests left open may not be closed while these are counted
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(number):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("program", "how"),
    [("/bin/false", "ended with exit code 1."), ("/nowhere", "was refused by the system: No such")],
)
def test_when_none_can_be_started_that_is_said(
    program: str, how: str, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", program)
    with LocalExecutor(2) as workers, pytest.raises(RunFailed) as caught:
        list(workers.run(iter(jobs)))
    message = f"No worker process can be started: 3 attempts failed; the last {how}"
    assert str(caught.value).startswith(message)
