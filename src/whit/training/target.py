"""The recipe that a target names: a recipe, or a user's model trained as another recipe says.

torch is imported inside the functions: a misspelt name is refused at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from whit.errors import InputError, RecipeError
from whit.recipes.model_ref import check_model_name, is_model_path
from whit.recipes.recipe import DEFAULT_RECIPE, Recipe, builtin_recipes, load_recipe
from whit.recipes.recipe_tables import ModelSpec
from whit.runs.input_paths import load_local_recipe


def load_target(
    target: str | Path,
    recipe: Recipe | str | Path | None = None,
    changes: Sequence[str] = (),
    *,
    run_whole_file: bool = False,
) -> Recipe:
    """Return the recipe of a built-in name, a `.toml` file, a run folder, or a user's model.

    A model, `file.py:Class` or `notebook.ipynb:Class`, takes the place of that of `recipe`, by
    default the default one; the result has the name of the class. The class may be omitted where
    the file has one model. `changes` are `key=value` overrides of the result. With `run_whole_file`
    all of the file is executed whenever the model is built. Raises InputError with all problems,
    also for a `recipe` beside a target that is one itself.
    """
    problems: list[str] = []
    base = name = None
    keys = {change.partition("=")[0].strip() for change in changes}
    if not is_model_path(str(target)):
        if recipe is not None:
            problems.append(
                f"--recipe {recipe}: trains a model file, such as net.py:Net. To use this recipe "
                "itself, give it as RECIPE."
            )
        recipe = target
    else:
        from whit.models.user_code import resolve_target

        if "model.name" in keys:
            problems.append(f"--set model.name: the model is {target}. Omit one of them.")
        try:
            check_model_name(str(target))
            name = resolve_target(str(target), run_whole_file=run_whole_file)
        except InputError as error:
            problems += error.problems
    try:
        given = DEFAULT_RECIPE if recipe is None else recipe
        base = given if isinstance(given, Recipe) else load_local_recipe(given)
        if name is not None:
            base = replace_model(base, name)
        base = base.with_overrides(changes)
    except RecipeError as error:
        problems += [*error.problems, *(_model_problems(error.model) if error.model else ())]
        if base is None:  # there is no recipe to change: find what no recipe has
            problems += _find_unknown_keys(changes)
    if problems:
        raise InputError(problems)
    assert base is not None
    return base.with_whole_file("--run-whole-file") if run_whole_file else base


def require_run(target: str | Path) -> None:
    """Raise InputError for a recipe or model file where a trained run is needed."""
    name = str(target)
    if os.path.isdir(name) or not (is_model_path(name) or name in builtin_recipes()):
        return
    raise InputError(
        f"{name}: is a recipe or model file, not a run folder: train it with "
        f"`whit train {name}`, and give the folder of that run."
    )


def _find_unknown_keys(changes: Sequence[str]) -> Sequence[str]:
    """Return the overrides that are unknown in any recipe."""
    of_any = [c for c in changes if not c.strip().startswith(("model.", "schedule."))]
    try:
        load_recipe(DEFAULT_RECIPE).with_overrides(of_any)
    except RecipeError as error:
        return [p for p in error.problems if "unknown key" in p or "expected key=value" in p]
    return ()


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
