"""A model file in place of a recipe: `whit train net.py:Net`, in Python and on the command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import whit
from whit.errors import InputError
from whit.recipes.recipe import load_recipe, parse_recipe
from whit.training.target import load_target

NET = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 5)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


class _Wide(Net):
    def __init__(self, width=32):
        super().__init__(width)
"""

OWN = """\
schema = 2
name = "own"
description = "mine"
[model]
name = "net.py:Net"
width = 4
[train]
epochs = 7
"""


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    Path("own.toml").write_text(OWN)


def test_the_default_recipe_with_another_model() -> None:
    recipe, default = load_target("net.py:Net"), load_recipe("sprint")
    assert (recipe.name, recipe.model.name, recipe.model.arguments) == ("Net", "net.py:Net", {})
    same = {"name": "sprint", "description": default.description, "model": default.model}
    assert recipe.model_copy(update=same) == default
    # Complete: what a run stores gives the same recipe again.
    assert parse_recipe(recipe.to_toml(), "stored") == recipe


def test_a_class_that_is_omitted_is_written_into_the_recipe() -> None:
    assert load_target("net.py").model.name == "net.py:_Wide"
    assert load_target("net.py").name == "Wide"


def test_another_recipe_and_overrides_on_top() -> None:
    recipe = load_target("net.py:Net", "smallest", ["model.width=4", "train.epochs=5"])
    smallest = load_recipe("smallest")
    assert recipe.model.arguments == {"width": 4}
    assert (recipe.train.epochs, recipe.optim, recipe.budget) == (
        5,
        smallest.optim,
        smallest.budget,
    )


def test_arguments_are_kept_for_the_same_class_only() -> None:
    assert load_target("net.py:Net", "own.toml").model.arguments == {"width": 4}
    assert load_target("net.py:_Wide", "own.toml").model.arguments == {}
    assert load_target("net.py:_Wide", "own.toml").train.epochs == 7


def test_all_problems_at_once() -> None:
    with pytest.raises(InputError) as caught:
        load_target("net.py:Nett", "sprnt", ["model.name=plain"])
    first, second, third = caught.value.problems
    assert "--set model.name: the model is net.py:Nett" in first
    assert "has no class 'Nett'. Did you mean 'Net'?" in second
    assert "No recipe 'sprnt'" in third
    with pytest.raises(InputError, match="--recipe smallest: trains a model file"):
        load_target("sprint", "smallest")


@pytest.mark.parametrize(("given", "meant"), [("net:Net", "net.py:Net"), ("net", "net.py")])
def test_a_module_is_answered_with_its_file(given: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"Did you mean '{meant}'"):
        load_target(given)


def test_a_name_that_no_text_can_hold_is_refused() -> None:
    name = os.fsdecode(b"n\xfc.py")
    Path(name).write_text(NET)
    for target in (name, f"{name}:Net"):
        with pytest.raises(InputError, match="bytes that are not UTF-8; rename the file"):
            load_target(target)


def test_wrong_keys_of_a_built_in_model_are_found_with_those_of_tables() -> None:
    with pytest.raises(InputError) as caught:
        load_target("sprint", None, ["model.widht=[8]", "model.dropout=2", "train.epoch=3"])
    text = str(caught.value)
    for part in ("unknown key train.epoch.", "unknown key model.widht. Did you mean 'widths'?",
                 "model.dropout = 2"):  # fmt: skip
        assert part in text
    with pytest.raises(InputError) as caught:
        load_target("sprint", None, ["model.name=plian", "train.epoch=3"])
    assert "no such model. Did you mean 'plain'?" in str(caught.value)


@pytest.mark.parametrize("form", ["path", "model", "pathlib"])
def test_in_python(form: str) -> None:
    if form == "model":
        planned = whit.plan("smallest", model="net.py:Net")
        assert planned.recipe == load_target("net.py:Net", "smallest")
        return
    target = "net.py:Net" if form == "path" else Path("net.py:Net")
    assert whit.plan(target).recipe == load_target("net.py:Net")


def test_in_python_two_models_are_refused() -> None:
    with pytest.raises(InputError, match="Two models"):
        whit.plan("net.py:Net", model="net.py:_Wide")
    with pytest.raises(InputError, match=r"file\.py:Class"):
        whit.plan("sprint", model="plain")
    with pytest.raises(InputError, match="found int"):
        whit.plan("sprint", model=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="found int"):
        whit.plan(3)  # type: ignore[arg-type]
