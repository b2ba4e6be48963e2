"""Recipes: complete, exact in and out of TOML, and refused with every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whit.errors import RecipeError
from whit.recipes.model_ref import IN_MEMORY, is_model_path
from whit.recipes.recipe import Recipe, builtin_recipes, load_recipe, parse_recipe
from whit.system.rng import derive_seed

DESIGN_EXAMPLE = """
schema = 2
name = "sprint"
[model]
name = "plain"
widths = [16, 24, 24, 32]
[data]
name = "mnist"
[train]
epochs = 3
batch_size = 128
[budget]
params   = "< 20000"
epochs   = "< 20"
accuracy = ">= 99.40"       # percent, test split, last epoch
require  = ["batchnorm", "dropout", "gap"]
forbid   = []               # e.g. ["linear"]
"""


def problems(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r.toml")
    return list(caught.value.problems)


def test_the_name_of_a_model_in_memory_is_no_path() -> None:
    """So no file is run because of it, whatever comes behind the prefix."""
    for name in ("Net", "x.py:Net", "x.py", "folder/x.ipynb:Net", "../x:Net"):
        assert not is_model_path(IN_MEMORY + name)
    assert is_model_path("x.py:Net")


def test_the_design_example_is_a_recipe() -> None:
    recipe = parse_recipe(DESIGN_EXAMPLE, "example")
    assert recipe.model.arguments == {"widths": [16, 24, 24, 32]}
    assert recipe.budget.to_budget().limits.get("params") is not None


@pytest.mark.parametrize("name", builtin_recipes())
def test_builtin_recipes_round_trip(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert parse_recipe(recipe.to_toml(), name) == recipe


@given(
    st.text(max_size=30),
    st.floats(0, 180),
    st.lists(st.one_of(st.integers(-(2**60), 2**60), st.booleans(), st.text(max_size=5))),
)
def test_any_value_survives_toml(text: str, degrees: float, sizes: list[object]) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "description": text,
            "model": {"name": "plain", "sizes": sizes, "deep": {"a b": 1.5e-9}},
            "augment": {"degrees": degrees},
        }
    )
    assert parse_recipe(recipe.to_toml(), "x") == recipe


def test_all_problems_at_once_with_the_nearest_name() -> None:
    found = problems(
        DESIGN_EXAMPLE.replace("epochs = 3", "epcohs = 3")
        .replace("batch_size = 128", 'batch_size = "big"')
        .replace('"< 20000"', "20000")
        .replace('"gap"', '"gapp"')
    )
    assert len(found) == 4
    text = "\n".join(found)
    assert "unknown key train.epcohs. Did you mean 'epochs'?" in text
    assert 'train.batch_size = "big"' in text
    assert 'such as "< 20000"' in text
    assert "Did you mean 'gap'?" in text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[train]\nepochs = 0", "must be >= 1"),
        ("[train]\nepochs = 2.5", "must be an integer"),
        ("[train]\nepochs = true", "must be an integer"),
        ("[optim]\nlr = nan", "finite"),
        ("[optim]\nlr = -1.0", "must be > 0"),
        ('[optim]\nlr = "0.1"', "must be a number"),
        ("[optim]\nmomentum = 0.0\nnesterov = true", "nesterov needs a momentum"),
        ("[schedule]\nat = [0.0, 0.0]\nfactor = [1.0, 0.0]", "must increase"),
        ("[schedule]\nat = [0.0]\nfactor = [1.0, 0.0]", "same length"),
        ("[data]\nmean = [0.1]", "given together"),
        ("[data]\nval_size = -1", "must be >= 0"),
        ('[eval]\neach_epoch = "val"', "needs data.val_size above 0"),
        ('[eval]\neach_epoch = "test"\ntest = false', "contradict each other"),
        ("[augment]\nscale = 1.0", "must be < 1"),
        ('[budget]\naccuracy = ">= 100.5"', "at most 100"),
        ('[budget]\nparams = "> 5"', "comparison must be <"),
        ('[budget]\nrequire = ["gap"]\nforbid = ["gap"]', "both required and forbidden"),
    ],
)
def test_a_wrong_value_says_what_is_allowed(line: str, said: str) -> None:
    (problem,) = problems(f'schema = 2\nname = "x"\n[model]\nname = "plain"\nwidths = [8]\n{line}')
    assert said in problem
    assert problem.startswith("r.toml: ")


def test_set_changes_and_refuses() -> None:
    recipe = parse_recipe(DESIGN_EXAMPLE, "example")
    changed = recipe.with_overrides(
        ["train.epochs=5", "model.widths=[8, 8]", "data.name=other.npz"]
    )
    assert changed.train.epochs == 5
    assert changed.model.arguments == {"widths": [8, 8]}
    assert changed.data.name == "other.npz"
    with pytest.raises(RecipeError) as caught:
        recipe.with_overrides(["train.epochs=0", "tran.x=2", "foo", "name.x=3"])
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("epochs=3", "unknown key epochs. Did you mean 'train.epochs' or 'budget.epochs'?"),
        ("train.lr=3", "unknown key train.lr. Did you mean 'optim.lr'?"),
        ("schedule.lr=3", "unknown key schedule.lr. Did you mean 'optim.lr'?"),
        ("epoch=3", "unknown key epoch. Allowed here: "),
    ],
)
def test_a_key_of_another_table_is_suggested(change: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(DESIGN_EXAMPLE, "example").with_overrides([change])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("value", "example"),
    [
        ("16,24", "[16, 24]"),
        ("(16, 24)", "[16, 24]"),
        ("[a,b]", '["a", "b"]'),
        ("batchnorm", '["batchnorm"]'),
        ("16", "[16, 16]"),
        ("", "[2, 1, 1]"),
    ],
)
def test_a_value_that_is_no_list_is_shown_as_one(value: str, example: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(DESIGN_EXAMPLE, "example").with_overrides([f"budget.require={value}"])
    assert f"must be a list, e.g. {example}." in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'sprint'"):
        load_recipe("sprnt")
    folder = tmp_path / "a.toml"
    folder.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="not a text file"):
        load_recipe(folder)


def test_streams_are_fixed_and_apart() -> None:
    seeds = {
        derive_seed(seed, purpose, epoch)
        for seed in range(5)
        for purpose in ("weights", "shuffle", "warp", "dropout")
        for epoch in range(5)
    }
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "weights") == 8005567132824377828
