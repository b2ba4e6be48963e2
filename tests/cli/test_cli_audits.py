"""`whit audit` of several targets and of folders: tables, a summary, JSON, exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from calling import Done
from workshop import EASY, MODELS

NOTEBOOK = {
    "nbformat": 4,
    "cells": [
        {"cell_type": "code", "source": "EPOCHS = 20\n" + MODELS.partition("class Talks")[0]},
        {"cell_type": "code", "source": "for epoch in range(EPOCHS):\n    train(Net())"},
    ],
}


@pytest.fixture
def folder(workshop: Path, tmp_path: Path) -> Path:
    """A class's hand-ins: a run, a recipe, a notebook, a file with two models, and odd ones."""
    root = tmp_path / "hand-ins"
    for name in ("ada", "bob", ".cache", "__pycache__", "venv"):
        (root / name).mkdir(parents=True)
    shutil.copytree(workshop / "runs" / "easy-0", root / "ada" / "run")
    (root / "ada" / "run" / "net.py").write_text("raise SystemExit('executed')")
    shutil.copy(workshop / "easy.npz", tmp_path)
    (root / "ada" / "over.toml").write_text(EASY.replace('"< 20000"', '"< 100"'))
    (root / "bob" / "net.ipynb").write_text(json.dumps(NOTEBOOK))
    small = MODELS.partition("class Sleeps")[0].replace("(Net)", "(nn.Module)")
    (root / "bob" / "two.py").write_text(small)
    (root / "bob" / "util.py").write_text("x = 3\n")
    (root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (root / "venv" / "pyvenv.cfg").write_text("")
    for hidden in (".cache", "__pycache__", "venv"):
        (root / hidden / "hidden.py").write_text(MODELS)
    return tmp_path


TARGETS = {
    "hand-ins/ada/over.toml": "missed",
    "hand-ins/ada/run": "met",
    "hand-ins/bob/net.ipynb:Net": "pending",
    "hand-ins/bob/two.py:Net": "pending",
    "hand-ins/bob/two.py:Talks": "pending",
}


def test_a_folder_gives_a_table_each_and_a_summary(folder: Path, whit: Callable[..., Done]) -> None:
    done = whit("audit hand-ins", folder)
    assert (done.code, "executed" in done.err) == (1, False)
    summary = done.out[done.out.index("\nname ") :]
    rows = [line.split() for line in summary.splitlines()[3:8]]
    assert {row[0]: row[-1] for row in rows} == TARGETS
    assert rows[1][1:] == ["1,570", "382,752", "36", "met"]
    assert summary.endswith(
        "Not audited, without a model: hand-ins/bob/util.py, hand-ins/pyproject.toml.\n"
    )
    for number, target in enumerate(TARGETS, start=1):
        assert f"{target} ({number} of {len(TARGETS)})\n====" in done.out
    assert "pending (not trained yet; planned epochs unknown)" in done.out
    assert "only the model Net was read" in done.out


def test_one_bad_target_does_not_hide_the_others(folder: Path, whit: Callable[..., Done]) -> None:
    (folder / "hand-ins" / "bob" / "cut.py").write_text("class Net(:\n")
    (folder / "hand-ins" / "bob" / "broken.toml").write_text("[model\n")
    (folder / "hand-ins" / "empty").mkdir()
    (folder / "hand-ins" / "carl" / "stopped").mkdir(parents=True)
    shutil.copy(folder / "hand-ins/ada/run/recipe.toml", folder / "hand-ins/carl/stopped")
    shutil.copy(folder / "hand-ins/ada/run/log.jsonl", folder / "hand-ins/carl/stopped")
    gone = EASY.replace("easy.npz", "gone.npz")
    (folder / "hand-ins" / "bob" / "gone.toml").write_text(gone)
    done = whit("audit hand-ins hand-ins/empty nowhere.py --json", folder)
    assert done.code == 2
    value = json.loads(done.out)
    assert {each["target"]: each["verdict"] for each in value if "verdict" in each} == TARGETS
    errors = {each["target"]: each["error"] for each in value if "error" in each}
    assert list(errors) == ["hand-ins/bob/broken.toml", "hand-ins/bob/cut.py",
                            "hand-ins/bob/gone.toml",
                            "hand-ins/carl/stopped", "hand-ins/empty", "nowhere.py"]  # fmt: skip
    assert "line 1: syntax error" in errors["hand-ins/bob/cut.py"]
    assert errors["hand-ins/bob/gone.toml"].startswith("hand-ins/bob/gone.toml: data 'gone.npz': ")
    assert "nothing to audit in this folder" in errors["hand-ins/empty"]
    assert all(f"whit: {error}" in done.err for error in errors.values())


def test_json_is_a_list_for_several_and_an_object_for_one(
    folder: Path, whit: Callable[..., Done]
) -> None:
    one = json.loads(whit("audit hand-ins/bob/net.ipynb --json", folder).out)
    assert (one["target"], one["verdict"]) == ("hand-ins/bob/net.ipynb", "pending")
    assert isinstance(json.loads(whit("audit hand-ins/ada/run --json", folder).out), dict)
    assert len(json.loads(whit("audit hand-ins/ada --json", folder).out)) == 2
    several = json.loads(whit("audit sprint hand-ins/bob/net.ipynb:Net --json", folder).out)
    assert [each["target"] for each in several] == ["sprint", "hand-ins/bob/net.ipynb:Net"]


def test_a_recipe_is_for_the_files_that_have_none(folder: Path, whit: Callable[..., Done]) -> None:
    line = "audit hand-ins --recipe tiniest --set budget.params='< 900' --json"
    value = {each["target"]: each for each in json.loads(whit(line, folder).out)}
    limits = {name: {row["rule"]: row["limit"] for row in value[name]["budget"]} for name in value}
    assert limits["hand-ins/bob/two.py:Net"]["params"] == "< 900"
    assert limits["hand-ins/ada/run"]["params"] == "< 20000"
    done = whit("audit hand-ins/ada/run sprint --recipe tiniest", folder)
    assert (done.code, done.out) == (2, "")
    assert "each of the targets has its own recipe" in done.err


def test_an_empty_folder(folder: Path, whit: Callable[..., Done]) -> None:
    (folder / "empty").mkdir()
    done = whit("audit empty", folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("whit: empty: nothing to audit in this folder: ")
    assert done.err.count("\n") == 1
