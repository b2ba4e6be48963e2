"""A search space: a base recipe, a function that suggests changes to it, and the objectives."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from whit.errors import InputError, RecipeError
from whit.recipes.recipe import Recipe
from whit.recipes.toml_writer import toml_value

# The objectives, and whether each is maximized.
OBJECTIVES = {"accuracy": True, "params": False, "macs": False, "epochs": False, "seconds": False}


class Suggest(Protocol):
    """Suggests the values of one trial, by the methods of an Optuna trial; each has a name."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Return an integer from `low` to `high`, both included."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a float from `low` to `high`."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of `choices`, which may be of any type."""


@dataclass(frozen=True)
class Space:
    """What is searched, and the objectives by which trials are compared."""

    name: str
    source: str
    base: Recipe
    objectives: tuple[str, ...]
    val: int  # images held out for validation; 0: not decided yet
    seeds: int  # of each confirmation run
    min_accuracy: float  # percent on val; trials below get no confirmation runs
    suggest: Callable[[Suggest], Mapping[str, Any]]  # returns the changes of one trial
    text: str  # source of `suggest`: a Python file, or the lines of [space] as JSON
    num_blocks: int = 1  # blocks of `val` consecutive images in the training split

    @property
    def costs(self) -> list[str]:
        """The objectives other than accuracy."""
        return [name for name in self.objectives if name != "accuracy"]

    def suggest_changes(self, trial: Suggest) -> Mapping[str, Any]:
        """Return the changes of one trial. Raises InputError where a user's function fails."""
        try:
            changes = self.suggest(trial)
        except Exception as error:
            raise InputError(
                f"{self.source}: suggest(trial) fails: {type(error).__name__}: {error}"
            ) from None
        if not isinstance(changes, Mapping):
            raise InputError(
                f"{self.source}: suggest(trial) must return a dict of recipe keys and values."
            )
        return changes

    def build_recipe(self, changes: Mapping[str, Any]) -> Recipe:
        """Return the base with the changes of a trial. Raises RecipeError."""
        try:
            texts = [f"{key}={toml_value(value)}" for key, value in changes.items()]
        except ValueError as error:
            raise RecipeError(f"{self.source}: {error}") from None
        return self.base.with_overrides(texts, self.source)

    def with_val(self, num_images: int) -> Space:
        """Return the space with the size of val decided: by default a sixth of `num_images`.

        Of MNIST's 60,000 training images that is 10,000.
        """
        val = self.val or max(1, num_images // 6)
        return replace(self, val=val, num_blocks=max(1, num_images // val))

    def for_validation(self, recipe: Recipe, seed: int = 0) -> Recipe:
        """Return the recipe with evaluation on val in place of test, as a search trains it.

        Where val is a block of the training images, seed 0 holds out the last one, seed 1 that
        before it: seeds differ in the writers that they are evaluated on, and a seed holds out the
        same block in all trials. With a teacher every seed holds out what the teacher did.
        """
        assert self.val, "the number of images held out is not decided yet"
        changes = [f"data.val_size={self.val}", "eval.each_epoch='val'", "eval.test=false"]
        recipe = recipe.with_overrides(changes, self.source)
        is_fixed = recipe.data.val_by != "block" or recipe.data.val_block is not None
        block = self.num_blocks - 1 - seed % self.num_blocks
        if is_fixed or recipe.distill or block == self.num_blocks - 1:
            return recipe
        return recipe.with_overrides([f"data.val_block={block}"], self.source)


class _InfiniteSpace(Exception):
    """A float that may have any value between two bounds was asked for."""


class _EnumeratingSuggest:
    """Takes the option of each choice that `indices` has, and the first where it has none.

    `sizes` are the numbers of options of the choices made, `params` Optuna's values of them: a
    categorical choice is an index there.
    """

    def __init__(self, indices: Sequence[int]):
        self.indices = indices
        self.sizes: list[int] = []
        self.params: dict[str, Any] = {}

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return int(self._choose(name, range(low, high + 1, step)))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if low != high:
            raise _InfiniteSpace
        return float(self._choose(name, [low]))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[self._choose(name, range(len(choices)))]

    def _choose(self, name: str, options: Sequence[Any]) -> Any:
        if name not in self.params:
            depth = len(self.sizes)
            self.sizes.append(len(options))
            self.params[name] = options[self.indices[depth] if depth < len(self.indices) else 0]
        return self.params[name]


class FixedSuggest:
    """Suggests the values of one combination of `enumerate_params`."""

    def __init__(self, params: Mapping[str, Any]):
        self.params = params

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return int(self.params[name])

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return float(self.params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[self.params[name]]


def enumerate_params(space: Space, max_combinations: int) -> list[dict[str, Any]] | None:
    """Return Optuna's parameters of every combination of a space, which may be conditional.

    None for a space of more combinations, of infinitely many, or whose function does not allow it.
    """
    combinations: list[dict[str, Any]] = []
    indices: list[int] = []
    while len(combinations) < max_combinations:
        trial = _EnumeratingSuggest(indices)
        try:
            space.suggest(trial)
        except Exception:  # a float, or a user's function that fails: whatever it is, no grid
            return None
        combinations.append(trial.params)
        # The next combination: as an odometer, from the choice made last.
        taken = [*indices, *[0] * (len(trial.sizes) - len(indices))][: len(trial.sizes)]
        while taken and taken[-1] + 1 >= trial.sizes[len(taken) - 1]:
            taken.pop()
        if not taken:
            return combinations
        taken[-1] += 1
        indices = taken
    return None


class RandomSuggest:
    """Uniformly random suggestions from a seed.

    `choices` records the categorical choices made, by name and index; `overrides` replaces indices
    by name.
    """

    def __init__(self, seed: int, overrides: Mapping[str, int] | None = None):
        self.random = random.Random(seed)
        self.overrides = overrides or {}
        self.choices: dict[tuple[str, int], Any] = {}

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        if log:
            return min(high, round(self.suggest_float(name, low, high + 0.499, log=True)))
        return self.random.randrange(low, high + 1, step)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if log:
            return min(high, math.exp(self.random.uniform(math.log(low), math.log(high))))
        return self.random.uniform(low, high)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        index = self.random.randrange(len(choices))
        index = min(self.overrides.get(name, index), len(choices) - 1)
        self.choices[name, index] = choices[index]
        return choices[index]
