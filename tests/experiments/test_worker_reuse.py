"""What a worker process keeps from run to run, and what it reads again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from easy_data import easy_images
from harness.processes import children_of, have_ended, whit
from whit.experiments.execution import worker
from whit.experiments.execution.job import Job, Outcome
from whit.experiments.execution.local import LocalExecutor
from whit.experiments.execution.runner import run_job
from whit.recipes.recipe import load_recipe
from whit.training import plan

MODEL = """\
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))
"""


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks that were audited, in a process that has kept no plan yet."""
    names: list[str] = []
    audit = plan.audit_model

    def audit_model(*arguments: Any, name: str) -> Any:
        names.append(name)
        return audit(*arguments, name=name)

    monkeypatch.setattr(plan, "audit_model", audit_model)
    monkeypatch.setattr(plan, "_plans", {})
    return names


def train(folder: Path, workplace: Path, *changes: str) -> dict[str, Any]:
    """Train a job in this process; return its environment and result."""
    recipe = load_recipe(workplace / "easy.toml").with_overrides(["train.epochs=1", *changes])
    outcome = run_job(Job(recipe.to_toml(), 0, str(folder)))
    assert outcome == Outcome("finished")
    return {
        **json.loads((folder / "environment.json").read_text()),
        **json.loads((folder / "result.json").read_text()),
    }


def test_a_recipe_without_files_is_planned_once(workplace: Path, planned: list[str]) -> None:
    mnist = load_recipe("sprint").with_overrides(["data.val_size=100"])
    plans = [plan.make_kept_plan(mnist) for _ in range(2)]
    assert plans[0] is plans[1]
    assert planned == ["plain"]
    other = plan.make_kept_plan(mnist.with_overrides(["train.epochs=3"]))
    assert other.num_steps == 3 * plans[0].steps_per_epoch
    assert planned == ["plain"] * 2
    assert str(plan.make_plan(mnist)) == str(plans[0])


def test_a_model_file_that_is_edited_between_two_runs_is_seen(
    workplace: Path, planned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    model = workplace / "net.py"
    model.write_text(MODEL)
    table = 'model={name = "net.py:Net"}'
    first = train(workplace / "first", workplace, table)
    model.write_text(MODEL.replace("nn.Linear(784, 10)", "nn.Linear(784, 10, bias=False)"))
    second = train(workplace / "second", workplace, table)
    assert (first["params"], second["params"]) == (7850, 7840)
    assert first["model_sha256"] != second["model_sha256"]
    assert len(planned) == 2


def test_data_that_is_replaced_between_two_runs_is_seen(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    first = train(workplace / "first", workplace)
    with np.load("easy.npz") as arrays:
        changed = dict(arrays)
    changed["x_train"], changed["y_train"] = easy_images(300, 3)
    np.savez("easy.npz", **changed)
    second = train(workplace / "second", workplace)
    assert (first["images_seen"], second["images_seen"]) == (300, 200)
    assert first["data_sha256"] != second["data_sha256"]


def test_workers_start_before_there_are_jobs_and_all_of_them_at_once(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    recipe = load_recipe("easy.toml").with_overrides(["train.epochs=1"]).to_toml()
    jobs = [Job(recipe, seed, f"seed-{seed}") for seed in range(4)]
    with LocalExecutor(2) as workers:
        workers.start()
        started = children_of(os.getpid(), worker)
        assert len(started) == 2
        outcomes = [outcome.state for _, outcome in workers.run(iter(jobs))]
        assert children_of(os.getpid(), worker) == started
    assert outcomes == ["finished"] * 4
    assert have_ended(started)


def test_without_a_start_all_begin_together_too(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    recipe = load_recipe("easy.toml").with_overrides(["train.epochs=1"]).to_toml()
    seen: list[int] = []

    def look(job: Job | None, epochs: int) -> None:
        seen.append(len(children_of(os.getpid(), worker)))

    with LocalExecutor(3) as workers:
        list(workers.run(iter([Job(recipe, 0, "seed-0")]), look))
    assert seen[0] == 3


def test_workers_that_were_started_for_a_refused_study_end(workplace: Path) -> None:
    code, said = whit(
        workplace, "study", "easy.toml", "--seeds", "2", "--jobs", "2", "--set", "budget.params=< 1"
    )
    assert code != 0
    assert "cannot be met" in said
    folder = os.path.realpath(workplace)
    processes = psutil.process_iter(["cwd"])
    assert [process for process in processes if process.info["cwd"] == folder] == []
