"""Read a search space from a file: a base recipe, what may change in it, and the objectives.

As TOML, where each key of `[space]` is a key of the recipe:

    name = "tiny"
    base = "sprint"                              # a built-in recipe, or a path
    objectives = ["params", "accuracy"]
    [space]
    "optim.lr" = {low = 0.01, high = 0.5, log = true}
    "train.epochs" = [5, 10, 19]                 # one of these
    "model.widths" = {each = {low = 4, high = 24}, count = {low = 3, high = 6}}
    "model.kernels" = {each = [3, 5], count = "model.widths"}
    "train.batch_size" = 128                     # fixed

As Python, a file with the same names and a function that chooses:

    name, base, objectives = "tiny", "sprint", ["params", "accuracy"]
    def changes(choose):
        width = choose.integer("width", 4, 24)
        return {"model.widths": [width] * choose.integer("depth", 3, 6)}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo
from pydantic.functional_validators import AfterValidator, PlainValidator, model_validator
from pydantic.types import StrictBool, StrictFloat, StrictInt

from whit.errors import InputError, RecipeError, did_you_mean
from whit.experiments.search.space import OBJECTIVES, RandomSuggest, Space, Suggest
from whit.recipes.recipe import load_recipe, parse_toml, read_text
from whit.system.validation_errors import describe_errors, field_error

_MAX_BOUND = 1e15  # integers below it are exact as floats, which Optuna stores
_MAX_COUNT = 64  # blocks; as of a plain network
_SENTENCES = {  # in place of pydantic's own
    "name": "name = {value}: wanted up to 50 of the letters a to z and A to Z, digits, '_' or '-', "
    "a letter or a digit first",
    "base": "base is missing: the name of a shipped recipe, or a path",
    "objectives": f"objectives = {{value}}: wanted a list. Allowed: {', '.join(OBJECTIVES)}",
    "val": "val = {value}: allowed are 1 to 10,000,000",
    "seeds": "seeds = {value}: allowed are 1 to 100",
    "least": "least = {value}: wanted an accuracy in percent, 0 to 100",
    **dict.fromkeys(("low", "high"), "wanted low and high, two numbers; or a list to choose from"),
    "step": "step is a whole number from 1 on, between whole numbers",
    "log": "log is true or false",
    **dict.fromkeys(("each", "count"), "each and count go together"),
}


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Bound = Annotated[StrictInt | StrictFloat, Field(gt=-_MAX_BOUND, lt=_MAX_BOUND)]


class _Range(_Table):
    """A number from `low` to `high`: an integer if both are."""

    low: _Bound
    high: _Bound
    step: Annotated[StrictInt, Field(ge=1)] = 1
    log: StrictBool = False

    @model_validator(mode="after")
    def _check(self) -> _Range:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, not {self.low}")
        if "step" in self.model_fields_set and isinstance(self.low, float):
            raise ValueError(_SENTENCES["step"])
        if "step" in self.model_fields_set and self.log:
            raise ValueError("step and log do not go together")
        return self


def _parse_dimension(value: Any, info: ValidationInfo) -> Any:
    """Return a table as _Range or _ListOf; a list of options or a fixed value as it is."""
    if value == []:
        raise ValueError("an empty list leaves nothing to choose")
    if not isinstance(value, dict):
        return value
    if not value.keys() & _ListOf.model_fields.keys():
        return _Range.model_validate(value)
    if value.keys() & _Range.model_fields.keys():
        raise ValueError("a list takes each and count, and nothing else")
    return _ListOf.model_validate(value, context=info.context)


def _parse_count(value: Any, info: ValidationInfo) -> Any:
    """Return a dimension of integers, or the key of one of the lists in `info.context`."""
    if isinstance(value, str):
        lists = info.context or ()
        if value not in lists:
            before = f". Lists before it: {', '.join(sorted(lists))}" if lists else ""
            raise field_error(f"count = {value!r} is no list before this one{before}")
        return value
    count = _parse_dimension(value, info)
    sizes = [count.low, count.high] if isinstance(count, _Range) else count
    for size in sizes if isinstance(sizes, list) else [sizes]:
        if type(size) is not int or not 1 <= size <= _MAX_COUNT:
            raise field_error(f"count must be whole numbers from 1 to {_MAX_COUNT}")
    return count


_Dimension = Annotated[Any, PlainValidator(_parse_dimension)]


class _ListOf(_Table):
    """A list of `count` values, or of as many as an earlier list has, each chosen by itself."""

    each: _Dimension
    count: Annotated[Any, PlainValidator(_parse_count)]


_DIMENSION_KEYS = (*_Range.model_fields, *_ListOf.model_fields)
_dimension: TypeAdapter[Any] = TypeAdapter(_Dimension)


def _check_objective(name: Any) -> Any:
    if name not in list(OBJECTIVES):
        near, allowed = did_you_mean(str(name), OBJECTIVES), ", ".join(OBJECTIVES)
        raise field_error(f"objective {name!r} does not exist.{near} Allowed: {allowed}")
    return name


def _check_objectives(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise field_error(_SENTENCES["objectives"].format(value="[]"))
    if len(set(names)) < len(names):
        raise field_error("an objective is named twice")
    if "accuracy" not in names:
        raise field_error("objectives must hold accuracy: without it nothing is learnt")
    return names


_Objective = Annotated[str, PlainValidator(_check_objective)]
_Objectives = Annotated[tuple[_Objective, ...], AfterValidator(_check_objectives)]


class _SpaceFile(_Table):
    """The keys of a file; `space` holds a function here, in TOML it is a table of dimensions."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,49}$")]
    base: Annotated[str, Field(min_length=1)]
    objectives: _Objectives = ("params", "accuracy")
    val: Annotated[StrictInt, Field(ge=1, le=10_000_000)] | None = None
    seeds: Annotated[StrictInt, Field(ge=1, le=100)] = 3
    least: Annotated[StrictFloat, Field(ge=0, le=100)] = 0.0
    space: Any


_KEYS = tuple(_SpaceFile.model_fields)


def _describe(error: ValidationError, source: str, keys: Collection[str]) -> list[str]:
    """Return the problems without repetition, unknown keys first: they may explain the others."""
    problems = describe_errors(
        error, source, allowed_keys=lambda path: keys, hint="Allowed", sentences=_SENTENCES
    )
    return sorted(dict.fromkeys(problems), key=lambda problem: "unknown key" not in problem)


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
            f"No search space {name_or_path!r}: it is neither a shipped one nor a .toml or .py "
            f"file.{did_you_mean(name_or_path, builtin)} Shipped: {', '.join(builtin)}."
        )
    try:
        text = read_text(path, "no search space")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.{did_you_mean(path.stem, builtin)}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    source = path.name if path in builtin.values() else str(path)
    if path.suffix == ".py":
        space = _build_space(_run_python(text, source), source, text, [])
    else:
        tables, lines, problems = _parse_toml(text, source)
        space = _build_space(tables, source, lines, problems)
    _test_candidates(space)
    return space


def _parse_toml(text: str, source: str) -> tuple[dict[str, Any], str, list[str]]:
    """Return the tables with `space` as a function, its lines as JSON, and their problems."""
    tables = parse_toml(text, source)
    lines = tables.get("space")
    if not isinstance(lines, dict) or not lines:
        raise InputError(f"{source}: [space] is missing, with a line for each key that may change.")
    dimensions: dict[str, Any] = {}
    lists: list[str] = []
    problems = []
    for key, line in lines.items():
        if isinstance(line, dict) and line and not line.keys() & set(_DIMENSION_KEYS):
            quoted = f'"{key}.{next(iter(line))}" = ...'  # TOML reads dots as tables
            problem = f"write the key in quotes: {quoted}, or give low and high."
            problems.append(f"{source}: {key}: {problem}")
            continue
        try:
            dimensions[key] = _dimension.validate_python(line, context=lists)
        except ValidationError as error:
            problems += _describe(error, f"{source}: {key}", _DIMENSION_KEYS)
        if isinstance(line, dict) and "each" in line:
            lists.append(key)
    space = {**tables, "space": lambda suggest: _suggest_values(dimensions, suggest)}
    return space, json.dumps(lines, default=str), problems


def _run_python(text: str, source: str) -> dict[str, Any]:
    module = ModuleType("whit_space")
    module.__file__ = source
    sys.modules[module.__name__] = module  # where dataclasses look up their own module
    names = vars(module)
    try:
        exec(compile(text, source, "exec", dont_inherit=True), names)
    except (Exception, SystemExit) as error:
        raise InputError(f"{source}: {type(error).__name__}: {error}") from None
    changes = names.get("changes")
    if not callable(changes):
        raise InputError(f"{source}: it needs a function changes(choose).")
    return {key: names[key] for key in _KEYS if key in names} | {"space": changes}


def _build_space(tables: dict[str, Any], source: str, text: str, problems: list[str]) -> Space:
    """Return the space. Raises InputError with `problems` and those found here."""
    base = None
    try:
        file = _SpaceFile.model_validate({"name": Path(source).stem, **tables})
    except ValidationError as error:
        problems = problems + _describe(error, source, _KEYS)
    if isinstance(tables.get("base"), str) and tables["base"]:
        try:
            base = load_recipe(tables["base"])
        except InputError as error:
            problems = problems + [f"{source}: base: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)
    assert base is not None
    val = base.data.val_size if file.val is None else file.val
    objectives, seeds = file.objectives, file.seeds
    return Space(file.name, source, base, objectives, val, seeds, file.least, file.space, text)


def _suggest_values(dimensions: Mapping[str, Any], suggest: Suggest) -> dict[str, Any]:
    """Return a value for every key, in the order of the file."""
    values: dict[str, Any] = {}
    for key, dimension in dimensions.items():
        values[key] = _suggest_value(key, dimension, suggest, values)
    return values


def _suggest_value(key: str, dimension: Any, suggest: Suggest, values: Mapping[str, Any]) -> Any:
    if isinstance(dimension, list):
        return suggest.one_of(key, dimension)
    if isinstance(dimension, _ListOf):
        count, each = dimension.count, dimension.each
        if isinstance(count, str):
            length = len(values[count])
        else:
            length = _suggest_value(f"{key}.count", count, suggest, values)
        return [_suggest_value(f"{key}.{i}", each, suggest, values) for i in range(length)]
    if not isinstance(dimension, _Range):
        return dimension
    low, high = dimension.low, dimension.high
    if isinstance(low, int) and isinstance(high, int):
        return suggest.integer(key, low, high, step=dimension.step, log=dimension.log)
    return suggest.number(key, float(low), float(high), log=dimension.log)


def _test_candidates(space: Space, num_candidates: int = 40) -> None:
    """Raise InputError if no random candidate is valid, or some option never is."""
    errors: list[RecipeError] = []
    valid_seeds: list[int] = []
    valid_options: set[tuple[str, int]] = set()
    suspects: dict[tuple[str, int], Any] = {}
    for seed in range(num_candidates):
        suggest = RandomSuggest(seed)
        if error := _find_error(space, suggest):
            errors.append(error)
            suspects |= suggest.options
        else:
            valid_seeds.append(seed)
            valid_options |= suggest.options.keys()
    if not valid_seeds:
        raise errors[0]
    problems = []
    for (name, index), option in suspects.items():
        # Another option may be the cause: this one must fail in candidates that are valid without.
        forced = [RandomSuggest(seed, {name: index}) for seed in valid_seeds[:5]]
        causes = [_find_error(space, suggest) for suggest in forced]
        if (name, index) not in valid_options and all(causes):
            problems.append(f"{space.source}: {name}: {option!r} can never be chosen: {causes[0]}")
    if problems:
        raise InputError(problems)


def _find_error(space: Space, suggest: Suggest) -> RecipeError | None:
    try:
        space.build_recipe(space.suggest_changes(suggest))
    except RecipeError as error:
        return error
    return None
