"""How many threads a run takes, what it says about a busy machine; turns change no byte."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import ClassVar, cast

import pytest
import torch
from torch import Tensor, nn

import whit
from whit.errors import InputError
from whit.experiments.execution import executors
from whit.recipes.recipe import Recipe, load_recipe
from whit.runs.result import RunResult
from whit.system.processor import load
from whit.system.processor.turns import Turns
from whit.training.callback import RunCallback, RunStatus
from whit.training.hardware import threads
from whit.training.hardware.threads import SharedCores, ThreadChoice, resolve_threads
from whit.training.plan import make_plan
from whit.training.run import train_run


class _Notices(RunCallback):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_notice(self, message: str) -> None:
        self.texts.append(message)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A machine of 8 cores; `used` of them are in use by other programs."""
    state = {"used": 0.0}

    class Meter:
        seconds = 60.0

        def __init__(self, exempt: object = None):
            pass

        def read(self) -> float:
            return state["used"]

        def restart(self) -> None:
            pass

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for module in (threads, executors, load):
        monkeypatch.setattr(module, "LoadMeter", Meter)
    for module in (threads, executors):
        monkeypatch.setattr(module, "count_cores", lambda: 8)
    monkeypatch.setattr("whit.system.processor.cores.count_cores", lambda: 8)
    monkeypatch.setattr(threads, "recent_load", cache(load.RecentLoad))
    torch.set_num_threads(8)
    return state


@pytest.mark.parametrize(("used", "expected"), [(0.0, 8), (0.4, 8), (1.0, 7), (5.6, 2), (8.0, 1)])
def test_one_thread_for_each_free_core(
    used: float, expected: int, machine: dict[str, float]
) -> None:
    machine["used"] = used
    number, notice = ThreadChoice(None).choose()
    assert number == expected
    assert bool(notice) == (expected < 8)


def test_the_sentence_says_what_to_do(machine: dict[str, float]) -> None:
    machine["used"] = 7.25
    assert ThreadChoice(None).choose()[1] == (
        "Other programs use 7.2 of 8 cores: training on 1 thread. --threads 8 trains on 8."
    )


def test_given_threads_are_kept(machine: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    machine["used"] = 8.0
    assert ThreadChoice(3).choose() == (3, "")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert ThreadChoice(None).choose() == (8, "")


def test_fewer_threads_set_in_torch_are_kept(machine: dict[str, float]) -> None:
    torch.set_num_threads(2)
    assert ThreadChoice(None).choose() == (2, "")


def test_threads_out_of_range() -> None:
    for number in (0, -1, 10**6):
        with pytest.raises(InputError, match=f"--threads {number}: allowed on this machine: 1 to"):
            resolve_threads(number)


def test_a_study_divides_the_free_cores(machine: dict[str, float]) -> None:
    assert executors._count_free_jobs(2) == (4, "")
    machine["used"] = 3.9
    notice = "other programs use 3.9 of 8 cores: training 2 at a time. --jobs 4 trains 4."
    assert executors._count_free_jobs(2) == (2, notice)
    assert executors._count_free_jobs(16)[0] == 1


class _Run:
    """A run on 8 cores, as its callbacks see it."""

    def __init__(self, threads: int, is_fixed: bool):
        self.texts: list[str] = []
        self.changes: list[tuple[int, int]] = []
        self.cores = SharedCores(
            threads,
            is_fixed,
            "whit train --resume RUN",
            check=lambda: None,
            notify=self.texts.append,
            on_change=lambda before, now: self.changes.append((before, now)),
        )


def test_a_busy_machine_is_said_once_when_threads_were_chosen(machine: dict[str, float]) -> None:
    machine["used"] = 4.0
    run = _Run(8, is_fixed=True)
    with run.cores as cores:
        cores.between_steps()
        cores.between_steps()
    assert torch.get_num_threads() == 8
    assert run.texts == [
        "Other programs use 4.0 of 8 cores and slow down training on 8 threads. A single "
        "thread loses little: stop with Ctrl-C, then: whit train --resume RUN --threads 1 "
        "--allow-changes"
    ]


def test_threads_follow_the_load(machine: dict[str, float]) -> None:
    run = _Run(8, is_fixed=False)
    with run.cores as cores:
        for used, expected in [(0.2, 8), (4.0, 4), (4.0, 4), (5.5, 3), (8.0, 1), (0.0, 8)]:
            machine["used"] = used
            cores.between_steps()
            assert torch.get_num_threads() == cores.num_threads == expected
    assert run.changes == [(8, 4), (4, 3), (3, 1), (1, 8)]
    assert run.texts[0] == (
        "Other programs use 4.0 of 8 cores: training continues on 4 threads. --threads 8 keeps 8."
    )
    assert run.texts[-1].startswith("Cores are free again: training continues on 8 threads.")


class _Watched(nn.Module):
    """A network that notes on how many threads its forward passes compute."""

    seen: ClassVar[set[int]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 10)

    def forward(self, images: Tensor) -> Tensor:
        self.seen.add(torch.get_num_threads())
        return cast(Tensor, self.head(self.conv(images).amax((2, 3))))


def _watched_run(easy_recipe: Path, tmp_path: Path) -> Path:
    recipe = load_recipe(str(easy_recipe)).with_overrides(["train.epochs=1", "budget.require=[]"])
    whit.train(recipe, _Watched(), out=tmp_path / "run", threads=1, quiet=True)
    return tmp_path / "run"


@pytest.mark.parametrize(("used", "expected"), [(0.0, {8}), (5.0, {3}), (8.0, {1})])
def test_what_is_no_training_computes_on_free_cores_too(
    used: float, expected: set[int], easy_recipe: Path, tmp_path: Path, machine: dict[str, float]
) -> None:
    run = _watched_run(easy_recipe, tmp_path)
    machine["used"] = used
    images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    for work in (
        lambda: whit.plan(easy_recipe, _Watched()),
        lambda: whit.audit(_Watched()),
        lambda: whit.audit(run, model=_Watched()),
        lambda: whit.load_run(run, _Watched()).predict(images),
        lambda: whit.load_run(run, _Watched()).result,
        lambda: whit.export(run, "c", tmp_path / "c", model=_Watched()),
        lambda: whit.report(run, tmp_path / "report.html", model=_Watched()),
    ):
        _Watched.seen.clear()
        work()
        assert _Watched.seen == expected
        assert torch.get_num_threads() == 8  # as the caller set it


def test_an_evaluation_follows_the_load(
    easy_recipe: Path, tmp_path: Path, machine: dict[str, float]
) -> None:
    """Other programs begin after its first batch."""
    loaded = whit.load_run(_watched_run(easy_recipe, tmp_path), _Watched())
    loaded.model.register_forward_hook(lambda *arguments: machine.update(used=8.0))
    _Watched.seen.clear()
    loaded.predict(torch.zeros(1001, 1, 28, 28, dtype=torch.uint8))
    assert _Watched.seen == {8, 1}


def test_threads_of_the_environment_are_kept(
    machine: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine["used"] = 8.0
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    with threads.use_free_cores():
        assert torch.get_num_threads() == 8


def test_short_bursts_change_nothing(
    machine: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads.LoadMeter, "seconds", 1.0)
    run = _Run(8, is_fixed=False)
    with run.cores as cores:
        for used in (8.0, 0.0, 8.0, 0.0, 8.0):
            machine["used"] = used
            cores.between_steps()
        assert run.changes == []
        cores.between_steps()
        assert run.changes == [(8, 1)]
        machine["used"] = 0.0
        for _ in range(29):
            cores.between_steps()
        assert run.changes == [(8, 1)]
        cores.between_steps()
        assert run.changes == [(8, 1), (1, 8)]


def test_one_thread_is_not_slowed_down(machine: dict[str, float]) -> None:
    machine["used"] = 8.0
    run = _Run(1, is_fixed=True)
    with run.cores as cores:
        cores.between_steps()
    assert run.texts == []


def _train(recipe: Recipe, out: Path, callback: RunCallback | None = None) -> RunResult:
    return train_run(make_plan(recipe), out=out, threads=1, callback=callback)


def test_turns_change_no_byte(
    easy_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(easy_recipe))
    alone = _train(recipe, tmp_path / "alone")
    folder = tmp_path / "locks"
    monkeypatch.setattr(threads, "turns_folder", lambda: folder)
    monkeypatch.setattr(threads, "_READ_SECONDS", 0.0)
    monkeypatch.setattr("whit.system.processor.turns._TURN_SECONDS", 0.0)
    monkeypatch.setattr("whit.system.processor.turns._PATIENCE_SECONDS", 0.02)
    notices = _Notices()
    with Turns(8, 8, folder) as other:
        other._member.release()
        member = Turns(1, 8, folder)
        member._member = member._lock("process-1")
        with member:  # holds no turn of its own, but is there
            shared = _train(recipe, tmp_path / "shared", notices)
    assert shared.weights_sha256 == alone.weights_sha256
    assert notices.texts == ["Sharing the cores in turns with 1 other whit run."]


def test_the_run_records_its_cores(easy_recipe: Path, tmp_path: Path) -> None:
    _train(load_recipe(str(easy_recipe)), tmp_path / "run")
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["threads"] == 1
    assert environment["cores"] >= 1


def test_changed_threads_are_recorded(
    easy_recipe: Path, tmp_path: Path, machine: dict[str, float]
) -> None:
    class LoadBegins(RunCallback):
        def on_start(self, subject: RunStatus) -> None:
            machine["used"] = 8.0

    machine["used"] = 6.0
    recipe = load_recipe(str(easy_recipe))
    result = train_run(make_plan(recipe), out=tmp_path / "run", callback=LoadBegins())
    change = {"what": "threads", "before": 2, "now": 1, "by_load": True, "epoch": 1}
    assert "in epoch 1 the load of the machine changed threads: was 2, now 1." in result.notes
    assert json.loads((tmp_path / "run" / "result.json").read_text())["accepted_changes"] == [
        change
    ]
    assert result.state == "finished"
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert (environment["threads"], environment["threads_fixed"]) == (2, False)
