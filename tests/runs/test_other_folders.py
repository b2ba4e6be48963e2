"""A run names data, model file and teacher by relative paths, and is used from any folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from harness.processes import Command, evidence, whit
from training.test_kill_and_resume import epochs_of
from waiting import wait_until
from whit.data.datasets import DATASETS
from whit.experiments.search.space_file import load_space
from whit.recipes.recipe import Recipe
from whit.recipes.recipe_tables import BUILTIN_DATA
from whit.runs.input_paths import (
    is_same_input,
    load_local_recipe,
    locate_inputs,
    record_paths,
)
from whit.runs.reader import read_run

MODEL = """\
from torch import nn
class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 10, 5, 4), nn.BatchNorm2d(10), nn.Dropout(0.1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
QUICK = ("--threads", "1", "--quiet", "--set", "train.epochs=1", "--set", "budget.accuracy=>= 0")


def test_built_in_data_sets_are_those_of_the_registry() -> None:
    assert frozenset(DATASETS) == BUILTIN_DATA


@pytest.fixture
def project(workplace: Path) -> Path:
    """A folder `a` with data, model file, a teacher and a student, all named by relative paths."""
    folder = workplace / "a"
    folder.mkdir()
    for name in ("easy.npz", "easy.toml"):
        shutil.move(workplace / name, folder / name)
    (folder / "nets").mkdir()
    (folder / "nets" / "net.py").write_text(MODEL)
    for arguments in (
        ("--out", "runs/teacher"),
        ("--out", "student", "--set", "model.name=nets/net.py:Net", "--set",
         "distill.teacher=runs/teacher"),
    ):  # fmt: skip
        code, said = whit(folder, "train", "easy.toml", *QUICK, *arguments)
        assert code == 0, said
    return folder


def check(folder: Path, run: str) -> None:
    """Use a run from a folder in every way that needs its inputs."""
    for line in (f"audit {run}", f"report {run}", f"plan {run}", f"export {run} --format html"):
        code, said = whit(folder, *line.split())
        assert code == 0, said
        assert "found no such file" not in said
    report = (folder / run / "report.html").read_text()
    assert "not available" not in report


def test_from_another_folder(project: Path) -> None:
    other = project.parent / "b" / "deep"
    other.mkdir(parents=True)
    check(other, "../../a/student")
    # The recipe of the run is not changed by where it is read.
    assert read_run(project / "student").recipe.data.name == "easy.npz"
    assert read_run(project / "student").local_recipe.data.name.endswith("a/student/../easy.npz")


def test_moved_together_with_the_inputs(project: Path) -> None:
    moved = Path(shutil.move(project, project.parent / "moved"))
    check(project.parent, "moved/student")
    check(moved, "student")


def test_a_recipe_file_finds_the_inputs_beside_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any folder, also as the base of a search; what is in this folder comes first."""
    changed = (project / "easy.toml").read_text().replace('"plain"', '"nets/net.py:Net"')
    lines = [line for line in changed.splitlines() if not line.startswith(("widths", "pool_"))]
    (project / "mine.toml").write_text("\n".join(lines))
    space = 'base = "mine.toml"\nobjectives = ["params", "accuracy"]\n[space]\n"optim.lr" = [0.1]\n'
    (project / "space.toml").write_text(space)
    other = project.parent / "b"
    other.mkdir()
    monkeypatch.chdir(other)
    for recipe in (load_local_recipe("../a/mine.toml"), load_space("../a/space.toml").base):
        assert recipe.data.name == "../a/easy.npz"
        assert recipe.model.name == "../a/nets/net.py:Net"
    code, said = whit(other, "train", "../a/mine.toml", *QUICK, "--out", "run")
    assert code == 0, said
    check(project.parent, "b/run")
    (other / "easy.npz").write_bytes(b"")
    assert load_local_recipe("../a/mine.toml").data.name == "easy.npz"


def test_moved_alone(project: Path) -> None:
    shutil.move(project / "student", project.parent / "student")
    check(project.parent, "student")


def test_a_file_that_happens_to_have_the_name_is_not_taken(project: Path) -> None:
    (project.parent / "easy.npz").write_bytes(b"another file")
    check(project.parent, "a/student")


def test_through_links(project: Path, tmp_path: Path) -> None:
    """Runs on another disk, by a link."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (project / "linked").symlink_to(disk)
    code, said = whit(project, "train", "easy.toml", *QUICK, "--out", "linked/run")
    assert code == 0, said
    check(tmp_path, "disk/run")


def test_resumed_from_another_folder_it_is_the_same_run(workplace: Path, undisturbed: Path) -> None:
    command = Command.start(workplace, "train", "easy.toml", "--out", "run", "--threads", "1")
    wait_until(lambda: epochs_of(workplace / "run") >= 1, command)
    command.signal(signal.SIGTERM)
    assert command.wait() == 143, command.said
    other = workplace / "other"
    other.mkdir()
    code, said = whit(other, "train", "--resume", "../run", "--quiet")
    assert code == 0, said
    assert evidence(workplace / "run") == evidence(undisturbed)


def test_the_page_finds_the_data(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from whit.web.worker import handle_request

    other = project.parent / "b"
    other.mkdir()
    monkeypatch.chdir(other)
    for what in ("network", "errors", "report"):
        reply = handle_request(what, "../a/runs/teacher", False)
        assert "body" in reply, reply


def recipe(**tables: object) -> Recipe:
    values = {"name": "x", "model": {"name": "plain"}, "data": {"name": "d.npz"}, **tables}
    return Recipe.model_validate(values)


@pytest.mark.parametrize(
    "recorded",
    [
        None, [], "x", {}, {"data.name": None}, {"data.name": []}, {"data.name": {}},
        {"data.name": {"from_run": 3, "absolute": None}},
        {"data.name": {"from_run": "", "absolute": "\0"}},
        {"data.name": {"from_run": "a" * 10_000, "absolute": "\ud800" * 5000}},
        {"data.name": {"from_run": "../nothing", "absolute": "/nothing"}},
        {"other": {"from_run": "..", "absolute": "/"}},
    ],
)  # fmt: skip
def test_records_without_a_place_change_nothing(recorded: object, tmp_path: Path) -> None:
    """environment.json is untrusted."""
    assert locate_inputs(recipe(), tmp_path, recorded) == recipe()


def test_a_built_in_data_set_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    built_in = recipe(data={"name": "mnist"})
    recorded = {"data.name": {"from_run": ".", "absolute": str(tmp_path / "mnist")}}
    assert locate_inputs(built_in, tmp_path, recorded) == built_in
    assert record_paths(built_in, tmp_path / "run") == {}
    assert not is_same_input("mnist", str(tmp_path / "mnist"))


def test_code_in_a_run_folder_is_not_executed_by_its_record(project: Path) -> None:
    """The recorded place of a model file may not lead into the run."""
    run = project / "student"
    (run / "net.py").write_text("open('canary', 'w')\n" + MODEL)
    environment = json.loads((run / "environment.json").read_text())
    environment["paths"]["model.name"] = {"from_run": "net.py", "absolute": "/nothing"}
    (run / "environment.json").write_text(json.dumps(environment))
    code, said = whit(project, "audit", "student")
    assert code == 2, said
    assert "code in a run folder is never executed" in " ".join(said.split())
    assert not (project / "canary").exists()


def test_a_recipe_from_a_run_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(project.parent / "b")
    monkeypatch.chdir(project.parent / "b")
    loaded = load_local_recipe("../a/student")
    assert Path(loaded.data.name).samefile(project / "easy.npz")
    assert loaded.model.name.endswith("nets/net.py:Net")
    assert loaded.distill
    assert Path(loaded.distill.teacher).samefile(project / "runs" / "teacher")
    monkeypatch.chdir(project)
    assert load_local_recipe("student").data.name == "easy.npz"
