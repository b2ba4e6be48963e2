"""Schema 1: recipes are refused with every new spelling at once, old runs stay readable.

pytest tests/recipes/test_schema1.py
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from harness.records import first_runs
from whit.errors import RecipeError
from whit.recipes.recipe import load_recipe, parse_recipe, parse_run_recipe
from whit.recipes.schema1 import upgrade_recipe, upgrade_result, upgrade_weight_name

SCHEMA_1 = """
name = "old"

[model]
name = "plain"
widths = [8, 8, 8]
deskew = "both"
kinds = ["conv", "separable", "conv"]
shares = [0, 0, 0]
pools = [1]
pooling = "avg"
norm = "shift"
views = 9

[data]
val = 5000

[augment]
rotate = 10.0
shift = 1.5
until = 0.9

[train]
epochs = 3
evaluate = "val"
test = false
dropout_until = 0.8

[optim]
bias_lr = 2.0

[schedule]
progress = [0.0, 1.0]
scale = [1.0, 0.0]

[average]
decay = 0.99
start = 0.5

[quantise]
bits = 4
start = 0.25
"""
NEW_SPELLINGS = [
    'model.columns = ["raw", "deskewed"]',
    'model.conv_types = ["conv", "separable", "conv"]',
    "model.weight_groups = [0, 0, 0]",
    "model.pool_after = [1]",
    'model.pool_type = "avg"',
    'model.batchnorm_affine = "bias"',
    "eval.tta_shifts = 8",
    "data.val_size = 5000",
    "augment.degrees = 10.0",
    "augment.translate = 1.5",
    "augment.end = 0.9",
    'eval.each_epoch = "val"',
    "eval.test = false",
    "train.dropout_end = 0.8",
    "optim.bn_bias_lr_scale = 2.0",
    "schedule.at = [0.0, 1.0]",
    "schedule.factor = [1.0, 0.0]",
    "ema.decay = 0.99",
    "ema.start = 0.5",
    "qat.bits = 4",
    "qat.start = 0.25",
]


def test_every_key_is_refused_with_its_new_spelling_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(SCHEMA_1, "old.toml")
    first, *rest = caught.value.problems
    assert first.startswith("old.toml: written in recipe schema 1")
    assert "schema = 2" in first
    assert len(rest) == len(NEW_SPELLINGS)
    for spelling in NEW_SPELLINGS:
        assert any(f"write {spelling}." in problem for problem in rest), spelling


def test_the_new_spellings_together_are_the_recipe() -> None:
    tables: dict[str, dict[str, object]] = {"model": {"name": "plain", "widths": [8, 8, 8]}}
    for spelling in NEW_SPELLINGS:
        path, value = spelling.split(" = ", 1)
        table, key = path.split(".")
        tables.setdefault(table, {})[key] = tomllib.loads(f"x = {value}")["x"]
    tables.setdefault("train", {})["epochs"] = 3
    tables["data"]["val_by"] = "digest"  # as the val split was always selected
    assert upgrade_recipe(tomllib.loads(SCHEMA_1)) == {"name": "old", **tables}


def test_old_keys_are_named_beside_other_mistakes() -> None:
    text = SCHEMA_1.replace("epochs = 3", "epochs = 0\nlearning = 1")
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "old.toml")
    text = "\n".join(caught.value.problems)
    assert "eval.tta_shifts = 8" in text
    assert "unknown key train.learning" in text
    assert "train.epochs = 0" in text


def test_an_override_in_schema_1_is_refused_with_its_new_spelling() -> None:
    recipe = load_recipe("sprint")
    with pytest.raises(RecipeError) as caught:
        recipe.with_overrides(["model.views=5", "augment.rotate=3", "quantise.bits=4"])
    assert list(caught.value.problems) == [
        "--set: model.views is now eval.tta_shifts: write eval.tta_shifts = 4.",
        "--set: augment.rotate is now augment.degrees: write augment.degrees = 3.",
        "--set: quantise.bits is now qat.bits: write qat.bits = 4.",
    ]


def test_old_keys_are_named_beside_overrides_that_are_no_override() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("sprint").with_overrides(["foo", "model.views=9", "name.x=1"])
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    assert "write eval.tta_shifts = 8" in text
    assert "foo: expected key=value" in text


@pytest.mark.parametrize("schema", ["1", "3", "true", '"2"'])
def test_other_schemas_are_refused(schema: str) -> None:
    text = f'schema = {schema}\nname = "x"\n[model]\nname = "plain"\nwidths = [8]\n'
    with pytest.raises(RecipeError, match="schema"):
        parse_recipe(text, "r.toml")


def test_arguments_of_a_users_model_are_its_own() -> None:
    """`views` may be an argument of a constructor."""
    text = 'schema = 2\nname = "x"\n[model]\nname = "net.py:Net"\nviews = 9\nnorm = "shift"\n'
    assert parse_recipe(text, "r.toml").model.arguments == {"views": 9, "norm": "shift"}
    assert parse_run_recipe(text.replace("schema = 2\n", ""), "r").model.arguments["views"] == 9


def test_a_damaged_recipe_of_a_run_is_refused() -> None:
    for line in ("views = [1]", "views = 3", 'norm = ["x"]'):
        with pytest.raises(RecipeError, match=r"damaged|model"):
            parse_run_recipe(
                f'name = "x"\n[model]\nname = "plain"\nwidths = [8]\n{line}\n', "r.toml"
            )


@pytest.mark.parametrize("run", first_runs(), ids=lambda run: run.parent.name)
def test_recipes_of_records_are_read(run: Path) -> None:
    recipe = load_recipe(run)
    assert parse_recipe(recipe.to_toml(), "again") == recipe


def test_results_are_translated() -> None:
    old = {
        "verdict": "open",
        "test": {"correct": 9, "wrong": [3], "reads": 1},
        "changes": [],
        "seal": "abc",
    }
    assert upgrade_result(old) == {
        "verdict": "pending",
        "test": {"correct": 9, "misclassified": [3], "evaluations": 1},
        "accepted_changes": [],
        "digest": "abc",
    }
    assert old["verdict"] == "open"


def test_names_of_weights_are_translated() -> None:
    names = {
        "network.as_is.conv1.weight": "raw.conv1.weight",
        "upright.norm2.bias": "deskewed.norm2.bias",
        "network.conv1.weight": "conv1.weight",
        "conv1.weight": "conv1.weight",
    }
    assert {old: upgrade_weight_name(old) for old in names} == names
