"""New recipes of a search: suggested by Optuna, feasible by their plan, and never one twice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import optuna

from whit.errors import InputError
from whit.experiments.search.space import FixedSuggest, Space, enumerate_params
from whit.experiments.search.storage import TrialStorage, recipe_key
from whit.recipes.budget import BudgetInfeasible
from whit.recipes.recipe import Recipe
from whit.training.plan import make_plan

# Infeasible suggestions in a row, after which the search ends with an error.
_MAX_INFEASIBLE = 100
# Suggestions in a row without a new recipe, after which a combination is taken that was not tried.
_MAX_MISSES = 10
# Of a space whose combinations cannot be listed: duplicates in a row, after which it is exhausted.
_MAX_DUPLICATES = 200
_MAX_LISTED = 10_000  # combinations
_MAX_PLANNED = 1_000  # combinations that are all planned, however many are infeasible


class SpaceExhausted(Exception):
    """Every recipe of the space was tried; the message is a sentence for the user."""


class Suggester:
    """Suggests recipes of a space that no trial in the storage has."""

    def __init__(self, space: Space, storage: TrialStorage):
        self.space = space
        self.storage = storage
        self.num_infeasible = storage.count("infeasible")
        self._infeasible: set[str] = set()  # keys of recipes
        self._useless: set[frozenset[tuple[str, Any]]] = set()  # combinations without a new recipe
        self._error: InputError | BudgetInfeasible | None = None

    def suggest(self, num_trials: int) -> tuple[int, Recipe] | None:
        """Return number and recipe of a new trial; None if other drivers have started enough.

        Raises SpaceExhausted, and InputError when no recipe seems feasible or the space itself
        fails.
        """
        infeasible = duplicates = 0  # in a row
        while True:
            if infeasible + duplicates >= _MAX_MISSES and self._combinations is not None:
                self._enqueue_untried(self._combinations)
            elif duplicates >= _MAX_DUPLICATES:
                raise SpaceExhausted(
                    f"The space seems exhausted: {duplicates} suggestions in a row were recipes "
                    "that were tried before."
                )
            if infeasible >= _MAX_INFEASIBLE and not self._is_planned_completely:
                raise InputError(
                    f"{self.space.source}: {infeasible} suggestions in a row were infeasible. The "
                    f"last one: {self._error} Change the space or the budget of its base."
                )
            trial = self.storage.ask()
            recipe = self._build(trial)
            if recipe is None:
                infeasible += 1
                continue
            if not self._is_new(recipe):
                self.storage.reject(trial, "duplicate")
                duplicates += 1
                continue
            recipe = recipe.with_overrides([f"name={self.space.name}-{trial.number:04d}"])
            if not self._is_feasible(recipe):
                self._reject(trial)
                infeasible += 1
                continue
            outcome = self.storage.accept(trial, recipe.to_toml(), num_trials)
            if outcome == "accepted":
                return trial.number, recipe
            if outcome == "enough":
                return None
            duplicates += 1  # another driver was faster

    def _build(self, trial: optuna.Trial) -> Recipe | None:
        """Return the recipe that Optuna suggests; None, rejected, for one that is not valid."""
        try:
            changes = self.space.suggest_changes(_OptunaSuggest(trial))
        except BaseException:
            self.storage.reject(trial)
            raise
        try:
            return self.space.build_recipe(changes)
        except InputError as error:
            self._error = error
            self._reject(trial)
            return None

    def _reject(self, trial: optuna.Trial) -> None:
        self.storage.reject(trial)
        self.num_infeasible += 1

    def _is_new(self, recipe: Recipe) -> bool:
        text = recipe.to_toml()
        return recipe_key(text) not in self._infeasible and not self.storage.is_known(text)

    def _is_feasible(self, recipe: Recipe) -> bool:
        try:
            plan = make_plan(self.space.for_validation(recipe))
            plan.check_trainable()
            plan.check_feasible()
            return True
        except (InputError, BudgetInfeasible) as error:
            self._error = error
        self._infeasible.add(recipe_key(recipe.to_toml()))
        return False

    @cached_property
    def _combinations(self) -> list[dict[str, Any]] | None:
        return enumerate_params(self.space, _MAX_LISTED)

    @property
    def _is_planned_completely(self) -> bool:
        return self._combinations is not None and len(self._combinations) <= _MAX_PLANNED

    def _enqueue_untried(self, combinations: Sequence[dict[str, Any]]) -> None:
        """Make the next suggestion a combination that gives a new recipe. Raises SpaceExhausted."""
        self._useless |= {frozenset(params.items()) for params in self.storage.tried_params()}
        left = [p for p in combinations if frozenset(p.items()) not in self._useless]
        random.Random(len(left)).shuffle(left)
        for params in left:
            try:
                changes = self.space.suggest_changes(FixedSuggest(params))
                if self._is_new(self.space.build_recipe(changes)):
                    self.storage.enqueue(params)
                    return
            except InputError as error:
                self._error = error
            self._useless.add(frozenset(params.items()))
        count = len(combinations)
        if self._error and not self.storage.num_trials():
            raise InputError(
                f"{self.space.source}: all {count:,} combinations are infeasible. The last one: "
                f"{self._error} Change the space or the budget of its base."
            )
        plural = "its only combination was" if count == 1 else f"all {count:,} combinations were"
        raise SpaceExhausted(f"The space is exhausted: {plural} tried.")


class _OptunaSuggest:
    """An Optuna trial whose categorical choices may be of any type."""

    def __init__(self, trial: optuna.Trial):
        self.trial = trial
        self.suggest_int = trial.suggest_int
        self.suggest_float = trial.suggest_float

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        # Optuna stores only text and numbers, so it chooses an index.
        return choices[self.trial.suggest_categorical(name, range(len(choices)))]
