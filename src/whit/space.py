"""A search space: a base recipe, what may change in it, and what counts.

As TOML, where each key of `[space]` is a key of the recipe:

    name = "tiny"
    base = "sprint"                              # a shipped recipe, or a path
    objectives = ["params", "accuracy"]
    [space]
    "optim.lr" = {low = 0.01, high = 0.5, log = true}
    "train.epochs" = [5, 10, 19]                 # one of these
    "model.widths" = {each = {low = 4, high = 24}, count = {low = 3, high = 6}}
    "model.kernels" = {each = [3, 5], count = "model.widths"}
    "train.batch_size" = 128                     # as it is

As Python, a file with the same names and a function that chooses:

    name, base, objectives = "tiny", "sprint", ["params", "accuracy"]
    def changes(choose):
        width = choose.integer("width", 4, 24)
        return {"model.widths": [width] * choose.integer("depth", 3, 6)}
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from whit.errors import InputError, RecipeError, did_you_mean
from whit.recipe import LARGEST, Recipe, load_recipe
from whit.toml_text import toml_value

# What each objective is, and whether more of it is better.
OBJECTIVES = {"accuracy": True, "params": False, "macs": False, "epochs": False, "seconds": False}
_KEYS = ("name", "base", "objectives", "val", "seeds", "least", "space")
_DIMENSION = ("low", "high", "step", "log", "each", "count")
_MOST_SEEDS = 100
_LARGEST_BOUND = 1e15  # whole numbers below it are exact as floats, which Optuna keeps
_DEEPEST = 64  # blocks; as a plain network's
_LONGEST = 50  # letters of a name, to which a candidate adds its number
_NAME = rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{_LONGEST - 1}}}"


class Choose(Protocol):
    """Makes the choices of one candidate; each has a name of its own."""

    def integer(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return a whole number from `low` to `high`, both possible."""

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number from `low` to `high`."""

    def one_of(self, name: str, options: Sequence[Any]) -> Any:
        """Return one of the options."""


@dataclass(frozen=True)
class Space:
    """What is searched, and by what it is judged."""

    name: str
    source: str
    base: Recipe
    objectives: tuple[str, ...]
    val: int  # images held out for judging; 0 for as many as the base has, or a sixth
    seeds: int  # of each finalist
    least: float  # percent on val; what stays below is no finalist
    changes: Callable[[Choose], Mapping[str, Any]]
    text: str  # what may change, as it was written: a Python file, or the lines of [space]

    def choose(self, choose: Choose) -> Mapping[str, Any]:
        """Return what one candidate changes. Raises InputError where a user's function fails."""
        try:
            changes = self.changes(choose)
        except Exception as error:
            raise InputError(
                f"{self.source}: changes(choose) fails: {type(error).__name__}: {error}"
            ) from None
        if not isinstance(changes, Mapping):
            raise InputError(f"{self.source}: changes(choose) must return a table of changes.")
        return changes

    def recipe(self, changes: Mapping[str, Any]) -> Recipe:
        """Return a candidate as a recipe to train and study. Raises RecipeError."""
        try:
            texts = [f"{key}={toml_value(value)}" for key, value in changes.items()]
        except ValueError as error:
            raise RecipeError(f"{self.source}: {error}") from None
        return self.base.changed(texts, self.source)

    def on_val(self, recipe: Recipe) -> Recipe:
        """Return the recipe as it is judged while searching: on val, the test split left alone."""
        assert self.val, "how many images are held out is not decided yet"
        return recipe.changed(
            [f"data.val={self.val}", "train.evaluate='val'", "train.test=false"], self.source
        )


class RandomChoose:
    """Choices by chance alone: to try a space out, and to search it plainly."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def integer(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if log:
            return min(high, round(self.number(name, low, high + 0.499, log=True)))
        return self.random.randrange(low, high + 1, step)

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if log:
            return min(high, math.exp(self.random.uniform(math.log(low), math.log(high))))
        return self.random.uniform(low, high)

    def one_of(self, name: str, options: Sequence[Any]) -> Any:
        return options[self.random.randrange(len(options))]


def shipped_spaces() -> dict[str, Path]:
    """Return the search spaces in the package, by name."""
    folder = Path(str(resources.files("whit"))) / "spaces"
    found = [path for path in folder.iterdir() if path.suffix in (".toml", ".py")]
    return {path.stem: path for path in sorted(found)}


def load_space(name_or_path: str) -> Space:
    """Return a shipped space, or one from a `.toml` or `.py` file, tried out on a few candidates.

    A Python file is code that you ask to run. Raises InputError with all problems found.
    """
    shipped = shipped_spaces()
    path = shipped.get(name_or_path, Path(name_or_path))
    if path.suffix not in (".toml", ".py"):
        raise InputError(
            f"No search space {name_or_path!r}: it is neither a shipped one nor a .toml or .py "
            f"file.{did_you_mean(name_or_path, shipped)} Shipped: {', '.join(shipped)}."
        )
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
        text = content.decode()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.{did_you_mean(path.stem, shipped)}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    if len(content) > LARGEST:
        raise InputError(f"{path}: larger than {LARGEST // 1000} kB, so it is no search space.")
    source = path.name if path in shipped.values() else str(path)
    problems: list[str] = []
    if path.suffix == ".py":
        tables = _from_python(text, source)
    else:
        tables, text, problems = _from_toml(text, source)
    space = _space(tables, source, text, problems)
    _try_out(space)
    return space


def _from_toml(text: str, source: str) -> tuple[dict[str, Any], str, list[str]]:
    """Return the tables, `space` as a function, its choices as text, and what is wrong there."""
    try:
        if any(line.count(".") > 300 for line in text.splitlines()):  # as in a recipe
            raise InputError(f"{source}: more than 300 dots in a line.")
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise InputError(f"{source}: not valid TOML: {error}.") from None
    choices = tables.get("space")
    if not isinstance(choices, dict) or not choices:
        raise InputError(f"{source}: [space] is missing, with a line for each key that may change.")
    space = {**tables, "space": lambda choose: _chosen(choices, choose)}
    return space, json.dumps(choices, default=str), _dimension_problems(choices, source)


def _from_python(text: str, source: str) -> dict[str, Any]:
    module = ModuleType("whit_space")
    module.__file__ = source
    sys.modules[module.__name__] = module  # where dataclasses and their like look themselves up
    names = vars(module)
    try:
        exec(compile(text, source, "exec", dont_inherit=True), names)
    except (Exception, SystemExit) as error:
        raise InputError(f"{source}: {type(error).__name__}: {error}") from None
    changes = names.get("changes")
    if not callable(changes):
        raise InputError(f"{source}: it needs a function changes(choose).")
    known = {key: names[key] for key in _KEYS if key in names and key != "space"}
    return {**known, "space": changes}


def _space(tables: dict[str, Any], source: str, text: str, problems: list[str]) -> Space:
    """Check everything; `problems` are those found before, raised together with the rest."""
    problems = problems + [
        f"{source}: unknown key {key}.{did_you_mean(key, _KEYS)} Allowed: {', '.join(_KEYS)}."
        for key in tables
        if key not in _KEYS
    ]
    name = tables.get("name", Path(source).stem)
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        problems.append(
            f"{source}: name = {name!r}: wanted up to {_LONGEST} of the letters a to z and A to Z, "
            "digits, '_' or '-', a letter or a digit first."
        )
    objectives = tables.get("objectives", ["params", "accuracy"])
    problems += _objective_problems(objectives, source)
    for key, default, most in (("val", 1, 10_000_000), ("seeds", 3, _MOST_SEEDS)):
        value = tables.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            problems.append(f"{source}: {key} = {value!r}: allowed are 1 to {most:,}.")
    least = tables.get("least", 0)
    if not _is_number(least) or not 0 <= least <= 100:
        problems.append(f"{source}: least = {least!r}: wanted an accuracy in percent, 0 to 100.")
    base = None
    if not (isinstance(tables.get("base"), str) and tables["base"]):
        problems.append(f"{source}: base is missing: the name of a shipped recipe, or a path.")
    else:
        try:
            base = load_recipe(tables["base"])
        except InputError as error:
            problems += [f"{source}: base: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)
    assert base is not None
    return Space(
        name=name,
        source=source,
        base=base,
        objectives=tuple(objectives),
        val=tables.get("val", base.data.val),
        seeds=tables.get("seeds", 3),
        least=float(least),
        changes=tables["space"],
        text=text,
    )


def _objective_problems(objectives: Any, source: str) -> list[str]:
    allowed = f"Allowed: {', '.join(OBJECTIVES)}."
    if not isinstance(objectives, list | tuple) or not objectives:
        return [f"{source}: objectives = {objectives!r}: wanted a list. {allowed}"]
    problems = [
        f"{source}: objective {name!r} does not exist.{did_you_mean(str(name), OBJECTIVES)} "
        + allowed
        for name in objectives
        if not isinstance(name, str) or name not in OBJECTIVES
    ]
    if len(set(map(str, objectives))) < len(objectives):
        problems.append(f"{source}: an objective is named twice.")
    if not problems and "accuracy" not in objectives:
        problems.append(f"{source}: objectives must hold accuracy: without it nothing is learnt.")
    return problems


def _try_out(space: Space, candidates: int = 40) -> None:
    """Raise InputError if of so many random candidates none is a recipe, or an option never is."""
    first: RecipeError | None = None
    good: list[int] = []
    doubtful: dict[tuple[str, int], Any] = {}
    fine: set[tuple[str, int]] = set()
    for seed in range(candidates):
        choose = _Watched(seed)
        try:
            space.recipe(space.choose(choose))
        except RecipeError as error:
            first = first or error
            doubtful |= choose.taken
        else:
            good.append(seed)
            fine |= choose.taken.keys()
    if not good:
        assert first is not None
        raise first
    problems = []
    for (name, place), option in doubtful.items():
        # Others may be to blame: it must fail in candidates that are fine with another option.
        faults = [_fault_with(space, seed, name, place) for seed in good[:5]]
        if (name, place) not in fine and all(faults):
            problems.append(f"{space.source}: {name}: {option!r} can never be chosen: {faults[0]}")
    if problems:
        raise InputError(problems)


class _Watched(RandomChoose):
    """Keeps which options were chosen, by name and place; `instead` puts others in their place."""

    def __init__(self, seed: int, instead: Mapping[str, int] | None = None):
        super().__init__(seed)
        self.instead = instead or {}
        self.taken: dict[tuple[str, int], Any] = {}

    def one_of(self, name: str, options: Sequence[Any]) -> Any:
        place = super().one_of(name, range(len(options)))
        place = min(self.instead.get(name, place), len(options) - 1)
        self.taken[name, place] = options[place]
        return options[place]


def _fault_with(space: Space, seed: int, name: str, place: int) -> str | None:
    """Return what is wrong with a candidate that takes another option, if anything is."""
    try:
        space.recipe(space.choose(_Watched(seed, {name: place})))
    except RecipeError as error:
        return str(error)
    return None


def _chosen(choices: Mapping[str, Any], choose: Choose) -> dict[str, Any]:
    """Choose a value for every key, in the order of the file."""
    chosen: dict[str, Any] = {}
    for key, dimension in choices.items():
        chosen[key] = _value(key, dimension, choose, chosen)
    return chosen


def _value(key: str, dimension: Any, choose: Choose, chosen: Mapping[str, Any]) -> Any:
    if isinstance(dimension, list):
        return choose.one_of(key, dimension)
    if not isinstance(dimension, dict):
        return dimension
    if "each" in dimension:
        count = dimension["count"]
        length = (
            len(chosen[count])
            if isinstance(count, str)
            else _value(f"{key}.count", count, choose, chosen)
        )
        return [_value(f"{key}.{i}", dimension["each"], choose, chosen) for i in range(length)]
    low, high, log = dimension["low"], dimension["high"], dimension.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return choose.integer(key, low, high, step=dimension.get("step", 1), log=log)
    return choose.number(key, float(low), float(high), log=log)


def _dimension_problems(choices: Mapping[str, Any], source: str) -> list[str]:
    """Return what is wrong with the lines of [space], all of it."""
    problems = []
    lists: set[str] = set()
    for key, dimension in choices.items():
        problems += [f"{source}: {key}: {said}." for said in _faults_of(key, dimension, lists)]
        if isinstance(dimension, dict) and "each" in dimension:
            lists.add(key)
    return problems


def _faults_of(key: str, dimension: Any, lists: set[str]) -> list[str]:
    if isinstance(dimension, list):
        return [] if dimension else ["an empty list leaves nothing to choose"]
    if not isinstance(dimension, dict):
        return []
    if dimension and not dimension.keys() & set(_DIMENSION):  # TOML reads dots as tables
        inside = next(iter(dimension))
        return [f'write the key in quotes: "{key}.{inside}" = ..., or give low and high']
    faults = [
        f"unknown key {name}.{did_you_mean(name, _DIMENSION)} Allowed: {', '.join(_DIMENSION)}"
        for name in dimension
        if name not in _DIMENSION
    ]
    if "each" in dimension or "count" in dimension:
        return faults + _faults_of_list(dimension, lists)
    low, high = dimension.get("low", ""), dimension.get("high", "")
    if not (_is_number(low) and _is_number(high)):
        return [*faults, "wanted low and high, two numbers; or a list to choose from"]
    if low > high:
        faults.append(f"low = {low} is above high = {high}")
    if dimension.get("log") not in (None, True, False):
        faults.append("log is true or false")
    if dimension.get("log") and low <= 0:
        faults.append(f"log needs low above 0, not {low}")
    step = dimension.get("step", 1)
    if "step" in dimension and (type(step) is not int or step < 1 or type(low) is not int):
        faults.append("step is a whole number from 1 on, between whole numbers")
    if "step" in dimension and dimension.get("log"):
        faults.append("step and log do not go together")
    return faults


def _faults_of_list(dimension: Mapping[str, Any], lists: set[str]) -> list[str]:
    if "each" not in dimension or "count" not in dimension:
        return ["each and count go together"]
    faults = [f"each: {said}" for said in _faults_of("each", dimension["each"], set())]
    count = dimension["count"]
    if isinstance(count, str):
        if count not in lists:
            before = f" Lists before it: {', '.join(sorted(lists))}" if lists else ""
            faults.append(f"count = {count!r} is no list before this one.{before}")
        return faults
    faults += [f"count: {said}" for said in _faults_of("count", count, set())]
    if isinstance(count, list):
        sizes = count
    elif isinstance(count, dict):
        sizes = [count.get("low"), count.get("high")]
    else:
        sizes = [count]
    if not all(isinstance(size, int) and 1 <= size <= _DEEPEST for size in sizes):
        faults.append(f"count must be whole numbers from 1 to {_DEEPEST}")
    return faults


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < _LARGEST_BOUND
