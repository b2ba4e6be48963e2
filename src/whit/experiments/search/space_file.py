"""Read a search space from a file: a base recipe, what may change in it, and the objectives.

As TOML, where each key of `[space]` is a key of the recipe:

    name = "tiny"
    base = "sprint"                              # a built-in recipe, or a path
    objectives = ["params", "accuracy"]
    [space]
    "optim.lr" = {low = 0.01, high = 0.5, log = true}
    "train.epochs" = [5, 10, 19]                 # one of these
    "model.widths" = {list_of = {low = 4, high = 24}, length = {low = 3, high = 6}}
    "model.kernels" = {list_of = [3, 5], length = "model.widths"}
    "train.batch_size" = 128                     # fixed

As Python, a file with the same names and a function that takes an object with Optuna's methods
and returns the changes of one trial:

    name, base, objectives = "tiny", "sprint", ["params", "accuracy"]
    def suggest(trial):
        width = trial.suggest_int("width", 4, 24)
        return {"model.widths": [width] * trial.suggest_int("depth", 3, 6)}
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from whit.errors import InputError, RecipeError, did_you_mean
from whit.experiments.search.space import RandomSuggest, Space, Suggest
from whit.experiments.search.space_schema import (
    DIMENSION_KEYS,
    RENAMED,
    SPACE_KEYS,
    ListOf,
    Range,
    SpaceFile,
    describe,
    dimension,
    rename_old_keys,
    renamed_messages,
)
from whit.recipes.recipe import Recipe, builtin_recipes, parse_toml, read_text
from whit.runs.input_paths import load_local_recipe


def builtin_spaces() -> dict[str, Path]:
    """Return the search spaces in the package, by name."""
    folder = Path(str(resources.files("whit.experiments.search"))) / "spaces"
    paths = [path for path in folder.iterdir() if path.suffix in (".toml", ".py")]
    return {path.stem: path for path in sorted(paths)}


def load_space(name_or_path: str) -> Space:
    """Return a built-in space, or one from a `.toml` or `.py` file, tested on random candidates.

    A Python file is code that you ask to run. Raises InputError with all problems found.
    """
    builtin = builtin_spaces()
    path = builtin.get(name_or_path, Path(name_or_path))
    if path.suffix not in (".toml", ".py"):
        raise InputError(
            f"No search space {name_or_path!r}: it is neither built in nor a .toml or .py file."
            f"{did_you_mean(name_or_path, builtin)} Built in: {', '.join(builtin)}."
        )
    try:
        text = read_text(path, "no search space")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.{did_you_mean(path.stem, builtin)}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    source = path.name if path in builtin.values() else str(path)
    if path.suffix == ".py":
        tables, problems = _run_python(text, source)
        space = _build_space(tables, source, text, path.parent, problems)
    else:
        tables, lines, problems = _parse_toml(text, source)
        space = _build_space(tables, source, lines, path.parent, problems)
    _test_candidates(space)
    return space


def _parse_toml(text: str, source: str) -> tuple[dict[str, Any], str, list[str]]:
    """Return the tables with `space` as a function, its lines as JSON, and their problems."""
    tables, problems = rename_old_keys(parse_toml(text, source), source)
    lines = tables.get("space")
    if not isinstance(lines, dict) or not lines:
        raise InputError(f"{source}: [space] is missing, with a line for each key that may change.")
    dimensions: dict[str, Any] = {}
    lists: list[str] = []
    for key, line in lines.items():
        if isinstance(line, dict) and line and not line.keys() & set(DIMENSION_KEYS):
            quoted = f'"{key}.{next(iter(line))}" = ...'  # TOML reads dots as tables
            problem = f"write the key in quotes: {quoted}, or give low and high."
            problems.append(f"{source}: {key}: {problem}")
            continue
        try:
            dimensions[key] = dimension.validate_python(line, context=lists)
        except ValidationError as error:
            problems += describe(error, f"{source}: {key}", DIMENSION_KEYS)
        if isinstance(line, dict) and "list_of" in line:
            lists.append(key)
    space = {**tables, "space": lambda trial: _suggest_values(dimensions, trial)}
    return space, json.dumps(lines, default=str), problems


def _run_python(text: str, source: str) -> tuple[dict[str, Any], list[str]]:
    """Return the names of a Python file that are keys, and its old spellings as problems."""
    module = ModuleType("whit_space")
    module.__file__ = source
    sys.modules[module.__name__] = module  # where dataclasses look up their own module
    names = vars(module)
    try:
        exec(compile(text, source, "exec", dont_inherit=True), names)
    except (Exception, SystemExit) as error:
        raise InputError(f"{source}: {type(error).__name__}: {error}") from None
    old_names = [old for old in ("least", "changes") if old in names and RENAMED[old] not in names]
    names.update({RENAMED[old]: names[old] for old in old_names})
    problems = renamed_messages(source, [*old_names, *_find_old_methods(text)])
    if not callable(suggest := names.get("suggest")):
        raise InputError([*problems, f"{source}: it needs a function suggest(trial)."])
    tables = {key: names[key] for key in SPACE_KEYS if key in names} | {"space": suggest}
    return tables, problems


def _find_old_methods(text: str) -> list[str]:
    """Return the methods of a trial that the function of a Python space calls by old names."""
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    calls = [
        (function, node)
        for function in functions
        if function.name in ("changes", "suggest") and function.args.args
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    old = [
        call.attr
        for function, call in calls
        if isinstance(call.value, ast.Name) and call.value.id == function.args.args[0].arg
    ]
    return [name for name in dict.fromkeys(old) if name in RENAMED]


def _load_base(name: str, folder: Path) -> Recipe:
    """Return the recipe that a space changes: a built-in one, or a path from here or from `folder`.

    Raises RecipeError.
    """
    beside = folder / name
    is_beside = name not in builtin_recipes() and not Path(name).exists() and beside.exists()
    return load_local_recipe(beside if is_beside else name)


def _build_space(
    tables: dict[str, Any], source: str, text: str, folder: Path, problems: list[str]
) -> Space:
    """Return the space of a file in `folder`. Raises InputError with `problems` and those here."""
    base = None
    try:
        file = SpaceFile.model_validate({"name": Path(source).stem, **tables})
    except ValidationError as error:
        problems = problems + describe(error, source, SPACE_KEYS)
    if isinstance(tables.get("base"), str) and tables["base"]:
        try:
            base = _load_base(tables["base"], folder)
        except InputError as error:
            problems = problems + [f"{source}: base: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)
    assert base is not None
    val = base.data.val_size if file.val is None else file.val
    objectives, seeds = file.objectives, file.seeds
    return Space(
        file.name, source, base, objectives, val, seeds, file.min_accuracy, file.space, text
    )


def _suggest_values(dimensions: Mapping[str, Any], trial: Suggest) -> dict[str, Any]:
    """Return a value for every key, in the order of the file."""
    values: dict[str, Any] = {}
    for key in dimensions:
        values[key] = _suggest_value(key, dimensions[key], trial, values)
    return values


def _suggest_value(key: str, dimension: Any, trial: Suggest, values: Mapping[str, Any]) -> Any:
    if isinstance(dimension, list):
        return trial.suggest_categorical(key, dimension)
    if isinstance(dimension, ListOf):
        if isinstance(dimension.length, str):
            length = len(values[dimension.length])
        else:
            length = _suggest_value(f"{key}.length", dimension.length, trial, values)
        items = range(length)
        return [_suggest_value(f"{key}.{i}", dimension.list_of, trial, values) for i in items]
    if not isinstance(dimension, Range):
        return dimension
    low, high = dimension.low, dimension.high
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, step=dimension.step, log=dimension.log)
    return trial.suggest_float(key, float(low), float(high), log=dimension.log)


def _test_candidates(space: Space, num_candidates: int = 40) -> None:
    """Raise InputError if no random candidate is valid, or some choice never is."""
    errors: list[RecipeError] = []
    valid_seeds: list[int] = []
    valid_choices: set[tuple[str, int]] = set()
    suspects: dict[tuple[str, int], Any] = {}
    for seed in range(num_candidates):
        trial = RandomSuggest(seed)
        if error := _find_error(space, trial):
            errors.append(error)
            suspects |= trial.choices
        else:
            valid_seeds.append(seed)
            valid_choices |= trial.choices.keys()
    if not valid_seeds:
        raise errors[0]
    problems = []
    for (name, index), choice in suspects.items():
        # Another choice may be the cause: this one must fail in candidates that are valid without.
        forced = [RandomSuggest(seed, {name: index}) for seed in valid_seeds[:5]]
        causes = [_find_error(space, trial) for trial in forced]
        if (name, index) not in valid_choices and all(causes):
            problems.append(f"{space.source}: {name}: {choice!r} is never valid: {causes[0]}")
    if problems:
        raise InputError(problems)


def _find_error(space: Space, trial: Suggest) -> RecipeError | None:
    try:
        space.build_recipe(space.suggest_changes(trial))
    except RecipeError as error:
        return error
    return None
