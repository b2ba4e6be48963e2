"""Studies with real worker processes: stopped, killed, starved, and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from harness.processes import Command, children_of, evidence, have_ended, whit
from waiting import wait_until
from whit.errors import RunFailed
from whit.experiments.execution import worker
from whit.experiments.execution.job import Job, Outcome, ProgressCallback
from whit.experiments.study import plan_variants, run_study
from whit.experiments.study_progress import make_study_callback
from whit.recipes.recipe import load_recipe
from whit.runs.folder import import_run

STUDY = ("study", "easy.toml", "--seeds", "3", "--jobs", "2", "--out", "st")


def folder_of(workplace: Path) -> Path:
    (found,) = (workplace / "st").glob("easy-*")
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, easy_npz: Path, undisturbed: Path) -> Path:
    """A folder with the three seeds as `whit train` makes them, one after another."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copy(easy_npz, folder / "easy.npz")
    shutil.copy(undisturbed.parent / "easy.toml", folder / "easy.toml")
    for seed in range(3):
        code, said = whit(
            folder,
            *("train", "easy.toml", "--seed", f"{seed}", "--out", f"seed-{seed}"),
            *("--threads", "1", "--quiet"),
        )
        assert code == 0, said
    return folder


def same_as_alone(workplace: Path, alone: Path, seeds: int = 3) -> None:
    for seed in range(seeds):
        assert evidence(folder_of(workplace) / f"seed-{seed}") == evidence(alone / f"seed-{seed}")


def test_a_study_makes_the_runs_that_training_one_by_one_makes(
    workplace: Path, alone: Path
) -> None:
    code, said = whit(workplace, *STUDY[:3], "1", *STUDY[4:])
    assert code == 0, said
    first = folder_of(workplace) / "seed-0" / "result.json"
    made = first.stat().st_mtime_ns
    code, said = whit(workplace, *STUDY, "--json")
    assert code == 0, said
    assert first.stat().st_mtime_ns == made  # finished seeds are not trained again
    same_as_alone(workplace, alone)
    code, last_two = whit(workplace, *STUDY[:3], "1-2", *STUDY[4:], "--json")
    assert code == 0, last_two
    assert [row["seed"] for row in json.loads(last_two)["recipes"]] == [[1, 2]]
    value = json.loads(said)
    (row,) = value["recipes"]
    results = [
        json.loads((alone / f"seed-{seed}" / "result.json").read_text()) for seed in range(3)
    ]
    correct = [result["test"]["correct"] for result in results]
    assert (row["seed"], row["correct"]) == ([0, 1, 2], correct)
    assert row["accuracy"] == pytest.approx(100 * sum(correct) / 3 / row["total"])
    assert row["met"] == sum(result["verdict"] == "met" for result in results)
    environment = json.loads((first.parent / "environment.json").read_text())
    assert environment["threads"] == 1
    assert environment["command"][:3] == ["whit", "study", "easy.toml"]


def test_ctrl_c_saves_all_and_the_same_command_resumes(workplace: Path, alone: Path) -> None:
    command = Command.start(workplace, *STUDY)
    wait_until(lambda: list(workplace.glob("st/easy-*/seed-0/log.jsonl")), command)
    command.signal(signal.SIGINT)
    assert command.wait() == 130, command.said
    assert "Run the same command again to resume" in command.said
    assert (folder_of(workplace) / "seed-0").exists()
    assert not (folder_of(workplace) / "seed-2/result.json").exists()  # not waited for
    code, said = whit(workplace, *STUDY)
    assert code == 0, said
    same_as_alone(workplace, alone)


def test_killed_workers_and_a_killed_driver_lose_nothing(workplace: Path, alone: Path) -> None:
    command = Command.start(workplace, *STUDY)
    wait_until(lambda: list(workplace.glob("st/easy-*/seed-0/log.jsonl")), command)
    workers = children_of(command.process.pid, worker)
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    # The driver starts another one.
    wait_until(lambda: set(children_of(command.process.pid, worker)) - set(workers), command)
    workers = children_of(command.process.pid, worker)
    command.signal(signal.SIGKILL)
    command.wait()
    wait_until(lambda: have_ended(workers))  # without a driver they save and end
    code, said = whit(workplace, *STUDY)
    assert code == 0, said
    same_as_alone(workplace, alone)


MODELS = """\
import os, signal
from torch import nn

class Dies(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 10, 5, 4), nn.BatchNorm2d(10), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten())

    def forward(self, x):
        if self.training and x.shape[0] == 4:
            os.write(2, b"asked for more than there is")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

class Wild(Dies):
    def forward(self, x):
        if self.training and x.shape[0] == 4:
            x = x * float("inf")
        return nn.Sequential.forward(self, x)
"""


def test_what_fails_holds_nothing_up(workplace: Path) -> None:
    """A recipe whose worker always dies, one that diverges, and one that is good."""
    (workplace / "models.py").write_text(MODELS)
    text = (workplace / "easy.toml").read_text()
    for name in ("Dies", "Wild"):
        own = text.replace('"plain"\nwidths = [8, 16]\npool_after = [1, 2]', f'"models.py:{name}"')
        (workplace / f"{name}.toml").write_text(own.replace('"easy"', f'"{name}"'))
    recipes = ("Dies.toml", "Wild.toml", "easy.toml")
    code, said = whit(workplace, "study", *recipes, "--seeds", "1", "--jobs", "2", "--out", "st")
    assert code == 3, said
    flat = " ".join(said.split())
    assert (
        "Dies, seed 0: 3 attempts failed: its worker process was killed by SIGKILL, as the system "
        "does when memory runs out: asked for more than there is" in flat
    )
    assert "Wild, seed 0: diverged. The loss is nan at step 1" in flat
    assert "Wild: every seed diverged" in flat
    assert "(3 of 3)" in said
    assert json.loads((folder_of(workplace) / "seed-0" / "result.json").read_text())
    code, again = whit(workplace, "study", "easy.toml", "--seeds", "1", "--out", "st")
    assert code == 0, again


NET = """\
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 10, 5, 4), nn.BatchNorm2d(10), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten())
"""
OWN = ('"plain"\nwidths = [8, 16]\npool_after = [1, 2]', '"net.py:Net"')


def test_seeds_that_ended_are_of_what_is_there_now(workplace: Path) -> None:
    """The model's file is edited, then the teacher and the data are others; all is refused."""
    (workplace / "net.py").write_text(NET)
    recipe = (workplace / "easy.toml").read_text().replace(*OWN).replace("epochs = 4", "epochs = 1")
    (workplace / "easy.toml").write_text(recipe.replace('">= 90"', '">= 0"'))
    for seed in range(2):
        teach = ("train", "easy.toml", "--seed", f"{seed}", "--out", f"teacher-{seed}", "--quiet")
        assert whit(workplace, *teach)[0] == 0
    shutil.copytree(workplace / "teacher-0", workplace / "teacher")
    with (workplace / "easy.toml").open("a") as file:
        file.write('[distill]\nteacher = "teacher"\n')
    again = ("study", "easy.toml", "--out", "st", "--seeds")
    code, said = whit(workplace, *again, "1")
    assert code == 0, said
    folder = folder_of(workplace).relative_to(workplace)
    first = (workplace / folder / "seed-0" / "result.json").read_bytes()

    (workplace / "net.py").write_text(NET.replace("5, 4", "3, 2"))
    code, said = whit(workplace, *again, "2")
    assert code == 2, said
    assert said == (
        f"whit: {folder}: the model's source changed since 1 of its seeds was trained. Give "
        "another --out, remove the folder, or add --allow-changes to use them anyway.\n"
    )
    assert not (workplace / folder / "seed-1").exists()

    (workplace / "net.py").write_text(NET)
    shutil.rmtree(workplace / "teacher")
    shutil.copytree(workplace / "teacher-1", workplace / "teacher")
    images = dict(np.load(workplace / "easy.npz"))
    np.savez(workplace / "easy.npz", **images | {"x_test": 255 - images["x_test"]})
    code, said = whit(workplace, *again, "2")
    assert code == 2, said
    assert f"{folder}: the teacher's weights changed since 1 of its seeds was trained" in said
    assert f"{folder}: the data changed since 1 of its seeds was trained" in said
    assert not (workplace / folder / "seed-1").exists()

    code, said = whit(workplace, *again, "2", "--allow-changes")
    assert code == 0, said
    for what in ("data", "teacher"):
        assert f"Note: easy: runs differ in {what}:" in " ".join(said.split())
    assert (workplace / folder / "seed-0" / "result.json").read_bytes() == first


class Loses:
    """An executor whose runs never come back."""

    def run(self, jobs: Iterator[Job], look: ProgressCallback) -> Iterator[tuple[Job, Outcome]]:
        for job in jobs:
            yield job, Outcome("finished")


def test_a_seed_without_a_result_is_a_failure(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    (arm,) = plan_variants([load_recipe("easy.toml")], Path("st"))
    callback = make_study_callback(Console(quiet=True), False)
    found = run_study([arm], range(2), Loses(), callback=callback)
    assert found.comparison is None
    assert found.failures == tuple(
        f"easy, seed {seed}: its run ended, but {arm.run_folder(seed)} has no result. "
        "Run the same command again to resume it."
        for seed in range(2)
    )


def test_a_run_that_comes_back_is_kept_or_it_is_said_why_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        with pytest.raises(RunFailed, match=r"cannot create .*seed-0: Permission denied"):
            import_run(tmp_path / "easy" / "seed-0", {"result.json": b"{}"})
    finally:
        os.seteuid(mine)
        tmp_path.chmod(0o700)
    import_run(tmp_path / "easy" / "seed-0", {"result.json": b"{}"})
    assert (tmp_path / "easy" / "seed-0" / "result.json").read_bytes() == b"{}"
