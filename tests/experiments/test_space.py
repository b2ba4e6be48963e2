"""Search spaces: what they suggest, and every mistake in one named all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from whit.errors import InputError
from whit.experiments.search.space import RandomSuggest, Space
from whit.experiments.search.space_file import builtin_spaces, load_space
from whit.experiments.search.space_schema import (
    REFERENCE_HEAD,
    RENAMED,
    Range,
    SpaceFile,
    space_key_markdown,
    space_key_reference,
)
from whit.recipes.recipe import sample_id
from whit.training.plan import make_plan

GOOD = """\
name = "tiny"
base = "sprint"
val = 10000
objectives = ["params", "accuracy"]
[space]
"optim.lr" = {low = 0.01, high = 0.5, log = true}
"train.epochs" = [5, 10, 19]
"model.widths" = {list_of = {low = 4, high = 24, step = 4}, length = {low = 3, high = 6}}
"model.kernels" = {list_of = [3, 5], length = "model.widths"}
"model.paddings" = {list_of = 1, length = "model.widths"}
"model.pool_after" = [[1], [1, 3]]
"augment.degrees" = 3.0
"train.batch_size" = {low = 16, high = 256, log = true}
"""


def written(tmp_path: Path, text: str, name: str = "space.toml") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def problems(source: str) -> list[str]:
    with pytest.raises(InputError) as error:
        load_space(source)
    return [problem.replace(source, "S") for problem in error.value.problems]


def test_every_choice_lies_in_its_range(tmp_path: Path) -> None:
    space = load_space(written(tmp_path, GOOD))
    seen: dict[str, set[object]] = {"epochs": set(), "depth": set(), "width": set()}
    for seed in range(200):
        recipe = space.build_recipe(space.suggest_changes(RandomSuggest(seed)))
        sizes = recipe.model.arguments
        assert 0.01 <= recipe.optim.lr <= 0.5
        assert 16 <= recipe.train.batch_size <= 256
        assert recipe.augment.degrees == 3.0
        assert len(sizes["widths"]) == len(sizes["kernels"]) == len(sizes["paddings"])
        assert set(sizes["kernels"]) <= {3, 5}
        seen["epochs"].add(recipe.train.epochs)
        seen["depth"].add(len(sizes["widths"]))
        seen["width"] |= set(sizes["widths"])
    assert seen == {
        "epochs": {5, 10, 19},
        "depth": {3, 4, 5, 6},
        "width": {4, 8, 12, 16, 20, 24},
    }


def test_trials_are_evaluated_on_val_and_their_recipes_on_test(tmp_path: Path) -> None:
    space = load_space(written(tmp_path, GOOD))
    recipe = space.build_recipe(space.suggest_changes(RandomSuggest(0)))
    assert (recipe.eval.test, recipe.data.val_size) == (True, 0)
    space = space.with_val(60_000)
    assert (space.val, space.num_blocks) == (10_000, 6)
    judged = [space.for_validation(recipe, seed) for seed in range(7)]
    assert [one.data.held_out for one in judged] == [
        (10_000, "block", block) for block in (None, 4, 3, 2, 1, 0, None)
    ]
    assert len({sample_id(one) for one in judged}) == 1
    for one in judged:
        assert (one.eval.test, one.eval.each_epoch) == (False, "val")
        assert one.model_copy(update={"data": recipe.data, "eval": recipe.eval}) == recipe


@pytest.mark.parametrize(
    ("changes", "held_out"),
    [
        (["data.val_block=2"], (6000, "block", 2)),
        (["data.val_by=digest"], (6000, "digest", None)),
        (["data.name=photos"], (6000, "digest", None)),
    ],
)
def test_seeds_hold_out_the_same_images_where_no_block_is_free(
    changes: list[str], held_out: tuple[object, ...], tmp_path: Path
) -> None:
    space = load_space(written(tmp_path, GOOD.replace("val = 10000\n", ""))).with_val(36_000)
    recipe = space.base.with_overrides(changes)
    assert {space.for_validation(recipe, seed).data.held_out for seed in range(3)} == {held_out}


def test_a_python_space_chooses_as_it_likes(tmp_path: Path) -> None:
    text = (
        "name, base, objectives, seeds = 'own', 'sprint', ['accuracy'], 5\n"
        "def suggest(trial):\n"
        "    width = trial.suggest_int('width', 4, 8)\n"
        "    return {'model.widths': [width] * 4, 'model.kernels': [3] * 4,\n"
        "            'model.paddings': [1] * 4, 'optim.lr': trial.suggest_float('lr', 0.1, 0.2)}\n"
    )
    space = load_space(written(tmp_path, text, "own.py"))
    assert (space.name, space.objectives, space.seeds) == ("own", ("accuracy",), 5)
    (width,) = set(
        space.build_recipe(space.suggest_changes(RandomSuggest(1))).model.arguments["widths"]
    )
    assert 4 <= width <= 8


@pytest.mark.parametrize("name", builtin_spaces())
def test_most_suggestions_of_a_built_in_space_are_feasible(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    built = 0
    refused = []
    for seed in range(12):
        try:
            built += not make_plan(
                space.build_recipe(space.suggest_changes(RandomSuggest(seed)))
            ).violations
        except InputError as error:
            refused.append(str(error))
    assert built >= 4
    # maps may be too small for a window, but lists have the same length
    assert [text for text in refused if "entries, but there are" in text] == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"train.epochs"', '"train.epoch"', "S: unknown key train.epoch. Did you mean 'epochs'?"),
        ("[5, 10, 19]", "[]", "S: train.epochs: an empty list leaves nothing to choose."),
        ("low = 0.01, high = 0.5", "low = 0.5, high = 0.01", "low = 0.5 is above high = 0.01"),
        ("low = 0.01, high = 0.5, log", "lo = 0.01, high = 0.5, log", "Did you mean 'low'?"),
        ("low = 0.01", "low = 0", "log needs low above 0, not 0"),
        ("step = 4", "step = 0", "step is an integer of at least 1"),
        ("step = 4", "step = 4, log = true", "step and log cannot be combined"),
        ("log = true}", 'log = "yes"}', "log is true or false"),
        ('length = "model.widths"', 'length = "model.width"', "is not the key of an earlier list"),
        ("length = {low = 3, high = 6}", "length = 0", "length must be integers from 1 to 64"),
        (", length = {low = 3, high = 6}", "", "list_of and length must be given together"),
        ('["params", "accuracy"]', '["parms", "accuracy"]', "Did you mean 'params'?"),
        ('["params", "accuracy"]', '["params"]', "objectives must include accuracy"),
        ('["params", "accuracy"]', '["accuracy", "accuracy"]', "objectives: one is listed twice"),
        ('["params", "accuracy"]', '"accuracy"', "expected a list"),
        ('"sprint"', '"sprnt"', "base: No recipe 'sprnt'"),
        ('name = "tiny"', 'name = "../tiny"', "expected up to 50 of the letters a to z"),
        ('name = "tiny"', 'name = "größe"', "expected up to 50 of the letters a to z"),
        ('name = "tiny"', f'name = "{51 * "t"}"', "expected up to 50 of the letters a to z"),
        (
            'base = "sprint"',
            "",
            "S: base is missing: expected the name of a built-in recipe, or a path.",
        ),
        ('"optim.lr"', "optim.lr", 'optim: write the key in quotes: "optim.lr" = ...'),
        ("high = 0.5", f"high = 1{400 * '0'}", "expected low and high, two numbers"),
        (
            '"augment.degrees" = 3.0',
            '"optim.name" = ["sgd", "adamv"]',
            "'adamv' is never valid",
        ),
        ("[5, 10, 19]", "[5, 10, 0]", "S: train.epochs: 0 is never valid"),
        ('name = "tiny"', "seed = 3", "S: unknown key seed. Did you mean 'seeds'?"),
        ("val = 10000", "val = 0", "val = 0: expected an integer from 1"),
        ('name = "tiny"', "seeds = 1000", "seeds = 1000: expected an integer from 1 to 100"),
        ('name = "tiny"', "min_accuracy = 101", "expected an accuracy in percent"),
        ("[space]", "[spaces]", "[space] is missing"),
        ("[space]", "[space", "not valid TOML"),
        ("[5, 10, 19]", "[0]", "train.epochs = 0"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in GOOD
    found = problems(written(tmp_path, GOOD.replace(old, new)))
    assert any(said in problem for problem in found), found


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('"sprint"', '"sprnt"').replace('"params"', '"parms"')
    text = "valu = 3\n" + text.replace("low = 3,", "low = 0,")
    assert len(problems(written(tmp_path, text))) == 4


OLD_TOML = """\
base = "sprnt"
least = 98.0
[space]
"model.widths" = {each = {low = 4, high = 24}, count = {low = 3, high = 6}}
"model.kernels" = {each = 3, count = "model.widths"}
"""
OLD_PYTHON = """\
base, least, objectives = "sprint", 98.0, ["parms", "accuracy"]
def changes(choose):
    return {
        "model.widths": [choose.integer("width", 4, 8)] * 4,
        "optim.lr": choose.number("lr", 0.1, 0.2),
        "train.epochs": choose.one_of("epochs", [1, 2]),
    }
"""


@pytest.mark.parametrize(
    ("name", "text", "old_names", "other"),
    [
        ("old.toml", OLD_TOML, ["least", "each", "count"], "base: No recipe 'sprnt'"),
        (
            "old.py",
            OLD_PYTHON,
            ["least", "changes", "integer", "number", "one_of"],
            "objective 'parms' does not exist",
        ),
    ],
)
def test_every_old_spelling_is_refused_with_the_new_one(
    name: str, text: str, old_names: list[str], other: str, tmp_path: Path
) -> None:
    """All at once, with the other mistakes of the file."""
    *renamed, last = problems(written(tmp_path, text, name))
    assert {*renamed} == {f"S: {old} is now called {RENAMED[old]}." for old in old_names}
    assert other in last


def test_every_old_spelling_is_among_those_tested() -> None:
    assert {*RENAMED} == {"least", "each", "count", "changes", "integer", "number", "one_of"}


def test_a_name_that_is_old_elsewhere_only_is_an_unknown_key(tmp_path: Path) -> None:
    found = problems(written(tmp_path, "count = 3\n" + GOOD))
    assert found == [
        "S: unknown key count. Allowed: name, base, objectives, val, seeds, min_accuracy, space."
    ]


def test_the_reference_has_every_key_of_the_schema_with_its_range() -> None:
    rows = {key: cells for key, *cells in space_key_reference()}
    assert {*SpaceFile.model_fields} <= rows.keys()
    assert {f"[space] {key}" for key in Range.model_fields} < rows.keys()
    assert rows["seeds"][:3] == ["integer", "3", "1 to 100"]
    assert rows["val"][0] == "integer"
    assert rows["base"][1] == "required"
    assert rows["[space] step"][2] == "at least 1"
    assert all(cells[-1].endswith(".") for cells in rows.values())
    lines = space_key_markdown().splitlines()
    assert lines[0] == f"| {' | '.join(REFERENCE_HEAD)} |"
    assert len(lines) == 2 + len(rows)
    assert {line.count(" | ") for line in lines} == {len(REFERENCE_HEAD) - 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("1 / 0", "ZeroDivisionError"),
        ("base = 'sprint'", "it needs a function suggest(trial)"),
        (
            "base = 'sprint'\ndef suggest(trial): return trial.suggest_integr('a', 1, 2)",
            "fails: Attri",
        ),
        ("base = 'sprint'\ndef suggest(trial): return [1]", "must return a dict"),
        ("base = 'sprint'\ndef suggest(trial): return {'a.b': object()}", "cannot hold a value"),
    ],
)
def test_a_python_space_that_fails_is_named(text: str, said: str, tmp_path: Path) -> None:
    (found,) = problems(written(tmp_path, text, "own.py"))
    assert said in found


def test_a_python_space_is_a_module_like_any_other(tmp_path: Path) -> None:
    text = (
        "from dataclasses import dataclass\n@dataclass\nclass Size:\n    width: int = 8\n"
        "base = 'sprint'\ndef suggest(trial): return {'model.widths': [Size().width] * 3}\n"
    )
    space = load_space(written(tmp_path, text, "own.py"))
    assert space.suggest_changes(RandomSuggest(0)) == {"model.widths": [8, 8, 8]}


def test_a_space_that_is_not_there() -> None:
    assert "Did you mean 'smallest'?" in problems("smalest")[0]
    assert "no such file" in problems("nowhere/space.toml")[0]


def test_a_plain_choice_is_uniform() -> None:
    chosen = [RandomSuggest(seed).suggest_int("n", 1, 4, log=True) for seed in range(400)]
    assert set(chosen) == {1, 2, 3, 4}
    assert chosen.count(1) > chosen.count(4)


def test_a_space_is_a_value(tmp_path: Path) -> None:
    space = load_space(written(tmp_path, GOOD))
    assert isinstance(space, Space)
    assert space.build_recipe(space.suggest_changes(RandomSuggest(3))) == space.build_recipe(
        space.suggest_changes(RandomSuggest(3))
    )


def test_as_many_images_are_held_out_as_the_base_has(tmp_path: Path) -> None:
    text = GOOD.replace("val = 10000\n", "")
    assert load_space(written(tmp_path, text)).val == 0  # the search takes a sixth
    (tmp_path / "base.toml").write_text(
        'schema = 2\nname = "b"\n[model]\nname = "plain"\nwidths = [8]\n[data]\nval_size = 777\n'
    )
    text = text.replace('"sprint"', f'"{tmp_path}/base.toml"')
    assert load_space(written(tmp_path, text)).val == 777
