"""What plan, run and audit say of a network that judges images together, or hides numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import whit
from whit.recipes.budget import BudgetInfeasible
from whit.recipes.recipe import load_recipe

MODELS = """
import torch
from torch import nn
from torch.nn import functional as F


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, 2)
        self.head = nn.Linear(8, 10)

    def body(self, x):
        return self.head(F.relu(self.conv(x)).mean((2, 3)))


class Together(Base):
    def forward(self, x):
        logits = self.body(x)
        return logits - logits.mean(0)


class OnceTrained(Base):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        logits = self.body(x) * self.scale
        return logits if self.scale.item() == 1.0 else logits - logits.mean(0)


class FromFile(Base):
    def forward(self, x):
        with open(__file__) as file:
            return self.body(x) * float(len(file.read()) > 0)


class Created(Base):
    def forward(self, x):
        if not hasattr(self, "grid"):
            self.register_buffer("grid", torch.linspace(-1, 1, x.shape[3]))
        return self.body(x + self.grid)


class Probabilities(Base):
    def forward(self, x):
        return self.body(x).softmax(1)
"""


@pytest.fixture
def make_recipe(easy_recipe: Path, tmp_path: Path):
    models = tmp_path / "models.py"
    models.write_text(MODELS)
    header = f'[model]\nname = "{models}:'
    text = easy_recipe.read_text()
    start, end = text.index("[model]"), text.index("[data]")
    budget = text.index("[budget]")

    def make(name: str) -> Path:
        path = tmp_path / f"{name}.toml"
        limits = '[budget]\nparams = "< 20000"\nepochs = "< 20"\naccuracy = ">= 1"\n'
        path.write_text(f'{text[:start]}{header}{name}"\n{text[end:budget]}{limits}')
        return path

    return make


RULE = "each image judged alone"


def test_a_dependence_is_refused_before_training(make_recipe, tmp_path: Path) -> None:
    recipe = make_recipe("Together")
    plan = whit.plan(recipe)
    assert plan.verdict == "missed"
    (violation,) = plan.violations
    assert violation.rule == RULE
    assert "models.py, line" in violation.message
    assert plan.to_json()["violations"][0]["rule"] == RULE
    with pytest.raises(BudgetInfeasible, match="other images of its batch"):
        whit.train(recipe, out=tmp_path / "run", quiet=True)


def test_a_dependence_that_training_opens_is_found_after_it(make_recipe, tmp_path: Path) -> None:
    recipe = make_recipe("OnceTrained")
    assert whit.plan(recipe).verdict == "pending"
    folder = tmp_path / "run"
    result = whit.train(recipe, out=folder, quiet=True)
    assert result.verdict == "missed"
    assert "each image must be judged alone" in str(result)
    stored = json.loads((folder / "result.json").read_text())
    assert stored["verdict"] == "missed"
    assert [violation["rule"] for violation in stored["violations"]] == [RULE]
    found = whit.audit(folder)
    assert [violation.rule for violation in found.violations] == [RULE]
    assert RULE in found._repr_html_()


def test_what_is_read_from_a_file_leaves_the_verdict_pending(make_recipe, tmp_path: Path) -> None:
    recipe = make_recipe("FromFile")
    folder = tmp_path / "run"
    result = whit.train(recipe, out=folder, quiet=True)
    assert result.verdict == "pending"
    assert result.violations == ()
    assert "models.py" in "".join(result.notes)
    assert "could be counted" in str(result)
    found = whit.audit(folder)
    assert found.verdict == "pending"
    assert found.mismatches == ()
    assert "reads the file 'models.py'" in str(found)
    assert found.to_json()["unverified"]


def test_weights_with_a_created_buffer_load_again(make_recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = whit.train(make_recipe("Created"), out=folder, quiet=True)
    found = whit.audit(folder)
    assert found.mismatches == ()
    assert found.audit.params.buffers > 0
    assert result.params == found.audit.params.total
    assert load_recipe(folder / "recipe.toml").model.name.endswith("Created")


def test_softmax_before_the_loss_is_noted(make_recipe, tmp_path: Path) -> None:
    recipe = make_recipe("Probabilities")
    assert "ends in softmax" in str(whit.plan(recipe))
    result = whit.train(recipe, out=tmp_path / "run", quiet=True)
    assert "ends in softmax" in str(result)
    assert str(whit.audit(tmp_path / "run")).count("ends in softmax") == 1
