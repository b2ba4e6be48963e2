"""A recipe that extends another by `base`: resolved when it is read.

pytest tests/recipes/test_base.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from whit.errors import RecipeError
from whit.recipes.recipe import load_recipe


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"schema = 2\n{text}")
    return path


def problems(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return "\n".join(caught.value.problems)


def test_it_changes_what_it_names_and_keeps_the_rest(tmp_path: Path) -> None:
    text = 'name = "mine"\nbase = "sprint"\n[train]\nepochs = 5\n[budget]\nparams = "< 9000"'
    recipe, base = load_recipe(write(tmp_path / "mine.toml", text)), load_recipe("sprint")
    assert (recipe.name, recipe.description) == ("mine", "")
    assert recipe.train == base.train.model_copy(update={"epochs": 5})
    assert recipe.budget == base.budget.model_copy(update={"params": "< 9000"})
    for table in ("model", "data", "augment", "optim", "schedule", "eval", "ema"):
        assert getattr(recipe, table) == getattr(base, table)
    assert "base" not in recipe.to_toml()


def test_without_a_name_it_has_that_of_its_base(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml", 'base = "sprint"\n[optim]\nlr = 0.05')
    base = load_recipe("sprint")
    changed = base.optim.model_copy(update={"lr": 0.05})
    assert load_recipe(path) == base.model_copy(update={"optim": changed})


def test_a_relative_base_starts_from_the_file_that_names_it(tmp_path: Path) -> None:
    write(tmp_path / "a/first.toml", 'base = "sprint"\nname = "first"\n[train]\nepochs = 7')
    write(tmp_path / "a/b/second.toml", 'base = "../first.toml"\nname = "second"')
    path = write(tmp_path / "third.toml", 'base = "a/b/second.toml"\nname = "third"')
    assert load_recipe(path).train.epochs == 7


def test_another_model_or_schedule_starts_without_the_keys_of_the_base(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.toml",
        'name = "r"\nbase = "sprint"\n[model]\nname = "published-16848"\n'
        '[schedule]\nname = "cosine"',
    )
    recipe = load_recipe(path)
    assert recipe.model.arguments == {}
    assert recipe.schedule.name == "cosine"
    same = write(tmp_path / "s.toml", 'base = "sprint"\n[model]\nname = "plain"\ndropout = 0.2')
    widths = load_recipe("sprint").model.arguments["widths"]
    assert load_recipe(same).model.arguments["widths"] == widths


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "sprnt"', "base = 'sprnt': No recipe"),
        ("base = 3", "base = 3: must be the name or the path of a recipe"),
        ('base = "r.toml"', "does one of them extend itself?"),
        ('base = "old.toml"', "eval.tta_shifts = 4"),
        ('base = "sprint"\n[train]\nepochs = 0\nepcohs = 2', "unknown key train.epcohs"),
        ('base = "sprint"\n[model]\nviews = 5', "model.views is now eval.tta_shifts"),
    ],
)
def test_a_wrong_base_is_refused(text: str, message: str, tmp_path: Path) -> None:
    old = 'name = "old"\n[model]\nname = "plain"\nwidths = [8]\nviews = 5\n'
    (tmp_path / "old.toml").write_text(old)
    assert message in problems(write(tmp_path / "r.toml", text))


def test_a_run_folder_keeps_the_resolved_recipe(tmp_path: Path, easy_recipe: Path) -> None:
    from whit.training.plan import make_plan
    from whit.training.run import train_run

    path = write(
        tmp_path / "mine.toml", f'name = "mine"\nbase = "{easy_recipe}"\n[train]\nepochs = 1'
    )
    recipe = load_recipe(path)
    train_run(make_plan(recipe), out=tmp_path / "run")
    path.unlink()
    saved = (tmp_path / "run/recipe.toml").read_text()
    assert "base" not in saved
    assert saved.startswith("schema = 2\n")
    assert load_recipe(tmp_path / "run") == recipe
