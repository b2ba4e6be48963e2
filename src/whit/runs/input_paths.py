"""Where the inputs of a run lie, so that they are found from any folder.

A recipe names data, model file and teacher relative to the folder from which it is used, or to that
of its file. The recipe of a run names them relative to the folder in which it was trained. The
run's `environment.json` also has each path absolute, and relative to the run folder: a run that is
moved together with its inputs still finds them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whit.recipes.model_ref import is_model_path, split_model_path
from whit.recipes.recipe import Recipe, builtin_recipes, load_recipe
from whit.recipes.recipe_tables import BUILTIN_DATA
from whit.runs import layout
from whit.system.untrusted_files import read_untrusted

ENVIRONMENT_KEY = "paths"  # in environment.json
_MAX_BYTES = 2_000_000  # of environment.json
_MAX_LENGTH = 4096  # characters of a path; systems allow no longer ones


def input_paths(recipe: Recipe) -> dict[str, str]:
    """Return the paths of a recipe by their keys; built-in names are no paths."""
    paths = {}
    if recipe.data.name not in BUILTIN_DATA:
        paths["data.name"] = recipe.data.name
    if is_model_path(recipe.model.name):
        paths["model.name"] = split_model_path(recipe.model.name)[0]
    if recipe.distill is not None:
        paths["distill.teacher"] = recipe.distill.teacher
    return paths


def record_paths(recipe: Recipe, run: Path) -> dict[str, dict[str, str]]:
    """Return for each input its `absolute` path, and the one `from_run`, relative to a run folder.

    The run folder need not exist yet. Links to an input are kept; its folder is where it is now.
    """
    recorded = {}
    run_folder = os.path.join(os.path.realpath(run.absolute().parent), run.name)
    for key, path in input_paths(recipe).items():
        absolute = os.path.abspath(path)
        folder, name = os.path.split(absolute)
        recorded[key] = {"absolute": absolute}
        try:
            relative = os.path.relpath(os.path.join(os.path.realpath(folder), name), run_folder)
        except ValueError:  # on Windows, another drive
            continue
        recorded[key]["from_run"] = relative
    return recorded


def locate_inputs(recipe: Recipe, run: Path, recorded: Any) -> Recipe:
    """Return the recipe of a run with its inputs where they are now, seen from this folder.

    `recorded` is the value of `record_paths` as read back: untrusted. Each input is taken from
    beside the run, else from its absolute path, else from this folder as the recipe has it.
    """
    if not isinstance(recorded, Mapping):
        return recipe
    located = {
        key: _locate(path, run, recorded.get(key)) for key, path in input_paths(recipe).items()
    }
    return _replace_paths(recipe, located)


def _replace_paths(recipe: Recipe, paths: Mapping[str, str | None]) -> Recipe:
    """Return the recipe with other paths by their keys; None keeps the recipe's own."""
    changed = {key: path for key, path in paths.items() if path is not None}
    update: dict[str, Any] = {}
    if "data.name" in changed:
        update["data"] = recipe.data.model_copy(update={"name": changed["data.name"]})
    if "model.name" in changed:
        name = changed["model.name"] + split_model_path(recipe.model.name)[1]
        update["model"] = recipe.model.model_copy(update={"name": name})
    if recipe.distill is not None and "distill.teacher" in changed:
        update["distill"] = recipe.distill.model_copy(
            update={"teacher": changed["distill.teacher"]}
        )
    return recipe.model_copy(update=update) if update else recipe


def _locate(path: str, run: Path, recorded: Any) -> str | None:
    """Return where an input is now; None if the recipe's own path is right, or none exists."""
    if not isinstance(recorded, Mapping):
        return None
    for start, value in ((os.fspath(run), "from_run"), ("", "absolute")):
        recorded_path = recorded.get(value)
        if not isinstance(recorded_path, str) or not 0 < len(recorded_path) <= _MAX_LENGTH:
            continue
        candidate = os.path.join(start, recorded_path)
        if _exists(candidate):
            return None if is_same_input(path, candidate) else candidate
    return None


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)
    except ValueError:  # a character that no path has
        return False


def is_same_input(one: str, other: str) -> bool:
    """Whether two names are of the same built-in data set, file or folder."""
    if one == other or BUILTIN_DATA & {one, other}:
        return one == other
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def load_local_recipe(name_or_path: str | Path) -> Recipe:
    """Return what `load_recipe` does, with its inputs where they are, seen from this folder.

    Those of a run folder are where the run's are now; an input of a recipe file that does not exist
    in this folder is taken from beside the file, if it is there. Raises RecipeError.
    """
    recipe, path = load_recipe(name_or_path), Path(name_or_path)
    if str(name_or_path) in builtin_recipes():
        return recipe
    if path.is_file():
        folder = os.path.dirname(path)
        found = {
            key: os.path.join(folder, given)
            for key, given in input_paths(recipe).items()
            if not _exists(given) and _exists(os.path.join(folder, given))
        }
        return _replace_paths(recipe, found)
    try:
        value = json.loads(read_untrusted(path / layout.ENVIRONMENT, _MAX_BYTES) or b"")
    except (OSError, ValueError, RecursionError):  # no run folder, or nothing in it to use
        return recipe
    recorded = value.get(ENVIRONMENT_KEY) if isinstance(value, dict) else None
    return locate_inputs(recipe, path, recorded)
