"""Searches with real worker processes: stopped, killed, resumed; what they return."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.forging import reseal
from harness.processes import Command, children_of, have_ended, whit
from waiting import wait_until
from whit.api import search
from whit.errors import InputError
from whit.experiments.execution import worker
from whit.experiments.execution.job import Job, Outcome, ProgressCallback
from whit.experiments.execution.runner import run_job
from whit.experiments.search import suggestion
from whit.experiments.search.database import redact, validate_storage_url
from whit.experiments.search.driver import SearchDriver
from whit.experiments.search.space_file import load_space
from whit.experiments.search.storage import TrialStorage
from whit.recipes.recipe import load_recipe

SPACE = """\
name = "tiny"
base = "easy.toml"
seeds = 2
[space]
"train.epochs" = [2, 3]
"train.batch_size" = 16
"model.widths" = {list_of = {low = 2, high = 8}, length = {low = 1, high = 2}}
"model.pool_after" = [[1]]
"optim.lr" = {low = 0.02, high = 0.3, log = true}
"""


@pytest.fixture
def place(workplace: Path) -> Path:
    (workplace / "tiny.toml").write_text(SPACE)
    return workplace


def found_by(place: Path, trials: int) -> dict[str, Any]:
    code, said = whit(place, "search", "tiny.toml", "--trials", f"{trials}", "--json")
    assert code == 0, said
    value: dict[str, Any] = json.loads(said)
    return value


def numbers(place: Path) -> list[int]:
    return sorted(int(path.name) for path in (place / "searches/tiny/trials").iterdir())


def test_a_search_that_is_stopped_and_killed_resumes(place: Path) -> None:
    trials = place / "searches/tiny/trials"
    command = Command.start(place, "search", "tiny.toml", "--trials", "4", "--jobs", "2")
    wait_until((trials / "0001/seed-0/log.jsonl").exists, command)
    command.signal(signal.SIGINT)
    assert command.wait() == 130, command.said
    assert not (trials / "0003/seed-0/result.json").exists()  # not waited for
    assert "Run the same command again to resume" in command.said

    command = Command.start(place, "search", "tiny.toml", "--trials", "4", "--jobs", "2")
    wait_until((trials / "0002/seed-0/log.jsonl").exists, command)
    workers = children_of(command.process.pid, worker)
    command.signal(signal.SIGKILL)
    command.wait()
    wait_until(lambda: have_ended(workers))

    value = found_by(place, 4)
    assert value["trials"] + value["pruned"] == 4
    made = numbers(place)
    assert len(made) == 4  # a number may be left out, of one that was only asked for
    assert value["failures"] == []
    assert value["pareto_front"]
    assert all(
        point["seeds"] == 2 for point in value["pareto_front"]
    )  # confirmed with several seeds
    assert (place / "searches/tiny/frontier.svg").read_text().startswith("<?xml")

    again = found_by(place, 4)
    assert again == value  # nothing is left to do, and nothing changes
    assert numbers(place) == made

    point = value["pareto_front"][0]
    recipe = load_recipe(place / point["recipe"])
    assert (recipe.eval.test, recipe.data.val_size) == (True, 100)  # as the base has it
    run = json.loads((place / point["recipe"]).parent.joinpath("seed-0", "result.json").read_text())
    assert run["test"]["evaluations"] == 0
    code, said = whit(place, "plan", str(Path(point["recipe"]).parent))
    assert code == 0, said


def test_multiply_adds_are_read_from_results_and_recomputed_for_those_of_older_versions(
    place: Path,
) -> None:
    (place / "tiny.toml").write_text('objectives = ["accuracy", "macs"]\n' + SPACE)
    value = found_by(place, 2)
    recipes = [place / point["recipe"] for point in value["pareto_front"]]
    macs = []
    for recipe in recipes:
        code, said = whit(place, "plan", str(recipe), "--json")
        assert code == 0, said
        macs.append(json.loads(said)["macs"])
    assert [point["macs"] for point in value["pareto_front"]] == macs
    for file in place.glob("searches/tiny/trials/*/seed-*/result.json"):
        result = json.loads(file.read_text())
        assert isinstance(result.pop("macs"), int)
        reseal(file.parent, result)
    assert found_by(place, 2) == value


def test_what_the_plan_refuses_costs_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget that nothing keeps is named; one that some keep lets those through."""
    monkeypatch.setattr(suggestion, "_MAX_INFEASIBLE", 12)
    monkeypatch.chdir(place)
    text = (place / "easy.toml").read_text().replace('"< 20000"', '"< 5"')
    (place / "easy.toml").write_text(text)
    with pytest.raises(InputError, match=r"12 suggestions in a row were infeasible.* allowed < 5"):
        search("tiny.toml", trials=2, quiet=True)
    assert not list(place.glob("searches/tiny/trials/*"))


def test_a_trial_only_asked_for_is_not_infeasible(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)  # its base is there
    space = load_space(place / "tiny.toml")
    storage = TrialStorage(space, place, None, 0)
    storage.reject(storage.ask())
    storage.ask()  # and here its driver is killed
    after = TrialStorage(space, place, None, 0)
    assert after.orphaned() == []
    assert (after.count("infeasible"), after.num_trials()) == (1, 0)


def test_a_finite_space_is_exhausted_and_a_cut_journal_repaired(place: Path) -> None:
    """And an edited trial is not counted; the runs are listed, and a report compares the trials."""
    (place / "tiny.toml").write_text(
        'name = "tiny"\nbase = "easy.toml"\nseeds = 1\n[space]\n'
        '"train.epochs" = [1, 2]\n"train.batch_size" = [50, 100]\n'
    )
    search = ("search", "tiny.toml", "--trials", "12", "--jobs", "2")
    code, said = whit(place, *search)
    assert code == 0, said
    assert "The space is exhausted: all 4 combinations were tried." in " ".join(said.split())
    assert len(numbers(place)) == 4
    before = found_by(place, 12)
    assert (before["trials"] + before["pruned"], before["exhausted"]) == (4, True)

    folder = place / "searches" / "tiny"
    with (folder / "journal.log").open("r+b") as journal:
        journal.truncate((folder / "journal.log").stat().st_size - 30)
    code, said = whit(place, *search)
    assert code == 0, said
    assert "bytes of incomplete records were removed" in said
    (folder / "journal.log").unlink()  # each trial is taken from its folder
    code, said = whit(place, *search)
    assert code == 0, said
    assert "4 trials taken from searches/tiny/trials" in said
    assert len(numbers(place)) == 4
    after = found_by(place, 12)
    assert after["pareto_front"] == before["pareto_front"]

    number = after["pareto_front"][0]["trial"]
    result = folder / f"trials/{number:04d}/seed-0/result.json"
    result.write_text(result.read_text().replace('"params": ', '"params": 1', 1))
    edited = found_by(place, 12)
    assert edited["trials"] == after["trials"] - 1
    assert number not in [point["trial"] for point in edited["pareto_front"]]
    assert f"trial {number:04d}: " in edited["excluded"][0]
    assert "altered after the run: result.json" in edited["excluded"][0]
    assert len(numbers(place)) == 4

    code, said = whit(place, "runs", "searches/tiny", "--json")
    assert code == 0, said
    rows = json.loads(said)
    assert sorted(row["state"] for row in rows) == ["edited", *["finished"] * 3]
    assert {"train.epochs", "train.batch_size"} <= rows[0]["differs"].keys() | {*rows[1]["differs"]}
    code, said = whit(place, "report", "searches/tiny", "--quiet")
    assert code == 0, said
    assert "altered after the run" in (folder / "report.html").read_text()


OWN_MODEL = """\
import torch
from torch import nn
class Sometimes(nn.Sequential):
    def __init__(self, num_classes=10, width=4):
        super().__init__(nn.Flatten(), nn.Linear(784, width), nn.Linear(width, num_classes))
        if torch.rand(()) > 0.5:
            nn.init.constant_(self[1].weight, float("inf"))
"""


def test_a_diverged_confirmation_run_counts_as_one(place: Path) -> None:
    """It is counted and said; the search does not ask for that seed again and again."""
    text = (place / "easy.toml").read_text()
    start, end = text.index("[model]"), text.index("[data]")
    (place / "easy.toml").write_text(
        text[:start] + '[model]\nname = "models.py:Sometimes"\n' + text[end:]
    )
    (place / "tiny.toml").write_text(
        'name = "tiny"\nbase = "easy.toml"\nseeds = 4\n[space]\n"train.epochs" = [2]\n'
    )
    (place / "models.py").write_text(OWN_MODEL)
    value = found_by(place, 1)
    (point,) = value["pareto_front"]
    assert point["diverged"] > 0
    assert point["seeds"] + point["diverged"] == 4
    code, said = whit(place, "search", "tiny.toml", "--trials", "1")
    assert code == 0, said
    assert "0000: diverged with seed" in " ".join(said.split())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[2, 3]", "[2, 4]", "was started with other choices, so"),
        ("seeds = 2", "val = 50", "was started with other val, so"),
        ("seeds = 2", 'objectives = ["epochs", "accuracy"]', "with other objectives, so"),
    ],
)
def test_trials_of_another_space_do_not_mix(
    place: Path, old: str, new: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    TrialStorage(load_space("tiny.toml"), place, None, 0)
    (place / "tiny.toml").write_text(
        "# confirmation runs of more seeds\n" + SPACE.replace("seeds = 2", "seeds = 5")
    )
    TrialStorage(load_space("tiny.toml"), place, None, 0)
    (place / "tiny.toml").write_text(SPACE.replace(old, new))
    with pytest.raises(InputError, match=said):
        TrialStorage(load_space("tiny.toml"), place, None, 0)


def test_a_space_that_fails_later_is_named(place: Path) -> None:
    """Optuna requires the same choices each time, and a user's function may fail at any."""
    text = (
        "base = 'easy.toml'\nfrom itertools import count\ncounted = count()\n"
        "def suggest(trial):\n    many = 2 if next(counted) < 41 else 3\n"
        "    return {'train.epochs': trial.suggest_categorical('epochs', [1, 1, 1][:many])}\n"
    )
    (place / "own.py").write_text(text)
    code, said = whit(place, "search", "own.py", "--trials", "3")
    assert code == 2, said
    assert "own.py: suggest(trial) fails: ValueError" in " ".join(said.split())


class FullAtFirst:
    """Does jobs here, but for the first ones, which find the disk full."""

    def __init__(self, times: int):
        self.times = times

    def run(self, jobs: Iterator[Job], look: ProgressCallback) -> Iterator[tuple[Job, Outcome]]:
        for job in jobs:
            self.times -= 1
            yield job, Outcome("failed", "no space") if self.times >= 0 else run_job(job)


def test_a_trial_that_failed_is_tried_again_by_the_next_call(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    space = load_space("tiny.toml")
    for times, failures in ((2, 2), (0, 0)):
        with SearchDriver(space, place / "searches", FullAtFirst(times)) as driver:
            found = driver.run(3)
        assert len(found.failures) == failures
        assert len(found.trials) == 3 - failures
        assert driver.storage.num_trials() == 3


OWN = """\
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 10, 5, 4), nn.BatchNorm2d(10), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten())
"""


def test_trials_trained_from_changed_inputs_are_refused(place: Path) -> None:
    (place / "net.py").write_text(OWN)
    plain_one = '"plain"\nwidths = [8, 16]\npool_after = [1, 2]'
    recipe = (place / "easy.toml").read_text().replace(plain_one, '"net.py:Net"')
    (place / "easy.toml").write_text(recipe.replace('">= 90"', '">= 0"'))
    lines = SPACE.splitlines(keepends=True)
    (place / "tiny.toml").write_text("".join(line for line in lines if "model." not in line))
    before = found_by(place, 2)

    (place / "net.py").write_text(OWN.replace("5, 4", "3, 2"))
    images = dict(np.load(place / "easy.npz"))
    np.savez(place / "easy.npz", **images | {"x_train": 255 - images["x_train"]})
    again = ("search", "tiny.toml", "--trials", "3")
    code, said = whit(place, *again)
    assert code == 2, said
    runs = len(list((place / "searches/tiny/trials").glob("*/seed-*")))
    assert runs > 2
    for what in ("the model's source", "the data"):
        assert f"searches/tiny: {what} changed since {runs} of its runs were trained. Give" in said
    assert numbers(place) == [0, 1]
    assert whit(place, "search", "tiny.toml", "--trials", "3")[0] == 2  # its folder is free again

    code, said = whit(place, *again, "--allow-changes")
    assert code == 0, said
    assert numbers(place) == [0, 1, 2]
    assert len(before["pareto_front"]) > 0


def test_a_copied_trial_folder_is_no_trial(place: Path) -> None:
    before = found_by(place, 1)
    trial = place / "searches/tiny/trials/0000"
    shutil.copytree(trial, trial.with_name("0000-old"))
    shutil.copytree(trial / "seed-0", trial / "seed-0.bak")
    (trial.parent / "0007").mkdir()
    assert found_by(place, 1) == before


def test_passwords_are_masked_wherever_they_stand() -> None:
    assert redact("postgresql://me:p@ss@host/db") == "postgresql://me:***@host/db"
    given = "postgresql://host/db?user=me&password=secret&x=1"
    assert redact(given) == "postgresql://host/db?user=me&password=***&x=1"
    assert redact("postgresql://host:5432/db") == "postgresql://host:5432/db"


@pytest.mark.parametrize(
    "address",
    ["postgresql://u:p@h:abc/db", "postgresql://h", "sqlite:///x.db", "postgresql://u:p@ss@h/db"],
)
def test_what_is_no_address_of_a_database_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="--storage"):
        validate_storage_url(address)
    validate_storage_url("postgresql://u:p%40ss@[::1]:5432/db")
    validate_storage_url("postgresql+psycopg:///db?host=/run/postgresql")


def test_one_driver_at_a_time(place: Path) -> None:
    command = Command.start(place, "search", "tiny.toml", "--trials", "3", "--jobs", "1")
    wait_until((place / "searches/tiny/trials").exists, command)
    command.signal(signal.SIGSTOP)  # it does not end meanwhile
    code, said = whit(place, "search", "tiny.toml", "--trials", "3")
    assert code == 2, said
    assert "searches/tiny: another search is running in it" in " ".join(said.split())
    command.signal(signal.SIGTERM)
    command.signal(signal.SIGCONT)
    assert command.wait() == 143, command.said
