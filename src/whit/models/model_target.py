"""The recipe that a target names: a recipe, or a user's model trained as another recipe says.

torch is imported inside the functions: a misspelt name is refused at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from whit.errors import InputError, RecipeError
from whit.recipes.model_ref import is_model_path
from whit.recipes.recipe import DEFAULT_RECIPE, Recipe, load_recipe
from whit.recipes.recipe_tables import ModelSpec


def load_target(
    target: str | Path, recipe: Recipe | str | Path | None = None, changes: Sequence[str] = ()
) -> Recipe:
    """Return the recipe of a built-in name, a `.toml` file, a run folder, or a user's model.

    A model, `file.py:Class` or `notebook.ipynb:Class`, takes the place of that of `recipe`, by
    default the default one; the result has the name of the class. The class may be omitted where
    the file has one model. `changes` are `key=value` overrides of the result. Raises InputError
    with all problems, also for a `recipe` beside a target that is one itself.
    """
    problems: list[str] = []
    base = name = None
    keys = {change.partition("=")[0].strip() for change in changes}
    if not is_model_path(str(target)):
        if recipe is not None:
            problems.append(
                f"{target}: is a recipe itself; --recipe is for a model such as net.py:Net. Omit "
                "one of them."
            )
        recipe = target
    else:
        from whit.models.user_code import resolve_target

        if "model.name" in keys:
            problems.append(f"--set model.name: the model is {target}. Omit one of them.")
        try:
            name = resolve_target(str(target))
        except InputError as error:
            problems += error.problems
    try:
        given = DEFAULT_RECIPE if recipe is None else recipe
        base = given if isinstance(given, Recipe) else load_recipe(given)
        if name is not None:
            base = replace_model(base, name)
        base = base.with_overrides(changes)
    except RecipeError as error:
        problems += [*error.problems, *_model_problems(error.model)]
    if problems:
        raise InputError(problems)
    assert base is not None
    return base


def _model_problems(table: Any) -> Sequence[str]:
    """Return what is wrong with the table of a built-in model, beside what is wrong in others."""
    from whit.models.registry import find_argument_problems

    try:
        return find_argument_problems(ModelSpec.model_validate(table))
    except ValidationError:  # found with the other tables
        return ()


def replace_model(recipe: Recipe, target: str) -> Recipe:
    """Return the recipe for the model `path:Class`, named after the class.

    The arguments of the recipe's own model are kept where that is a class of the same name.
    """
    name = target.rpartition(":")[2]
    same = is_model_path(recipe.model.name) and recipe.model.name.rpartition(":")[2] == name
    arguments = recipe.model.arguments if same else {}
    return rename(recipe, name).model_copy(update={"model": ModelSpec(name=target, **arguments)})


def rename(recipe: Recipe, class_name: str) -> Recipe:
    """Return the recipe under the name of a class, as far as it may be one of a recipe."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", class_name).lstrip("_.-")[:64]
    return recipe.model_copy(update={"name": name or "model", "description": ""})
