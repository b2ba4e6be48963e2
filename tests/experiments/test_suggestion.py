"""A search never suggests one recipe twice, and knows when its space has no other one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from whit.errors import InputError
from whit.experiments.search.space import Space, Suggest, enumerate_params
from whit.experiments.search.storage import TrialStorage, recipe_key
from whit.experiments.search.suggestion import SpaceExhausted, Suggester
from whit.recipes.budget import BudgetInfeasible
from whit.recipes.recipe import Recipe, load_recipe

SuggestFunction = Callable[[Suggest], Mapping[str, Any]]


def four(trial: Suggest) -> Mapping[str, Any]:
    return {
        "train.epochs": trial.suggest_categorical("train.epochs", [1, 2]),
        "optim.lr": trial.suggest_categorical("optim.lr", [0.1, 0.2]),
    }


def conditional(trial: Suggest) -> Mapping[str, Any]:
    """Eight combinations: momentum is chosen for one of the optimizers only."""
    name = trial.suggest_categorical("name", ["sgd", "adam"])
    changes: dict[str, Any] = {"train.epochs": trial.suggest_int("epochs", 1, 5, step=4)}
    if changes["train.epochs"] == 5:
        changes["train.batch_size"] = trial.suggest_int("batch", 62, 64)
    if name == "sgd":
        changes["optim.momentum"] = trial.suggest_categorical("momentum", [0.8])
    return {**changes, "optim.lr": 0.1}


def alike(trial: Suggest) -> Mapping[str, Any]:
    """Six combinations of two recipes."""
    epochs = trial.suggest_categorical("epochs", [1, 2])
    trial.suggest_int("unused", 1, 3)
    return {"train.epochs": epochs, "optim.lr": 0.1}


def continuous(trial: Suggest) -> Mapping[str, Any]:
    return {"optim.lr": trial.suggest_float("optim.lr", 0.01, 0.5, log=True)}


def space_of(suggest: SuggestFunction, base: str = "sprint", **changes: Any) -> Space:
    space = Space("tiny", "tiny.py", load_recipe(base), ("params", "accuracy"), 100, 1, 0.0,
                  suggest, suggest.__name__)  # fmt: skip
    return replace(space, **changes)


@pytest.fixture(autouse=True)
def _quick_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which plan a recipe has is not in question here, but for the marked ones."""

    class Plan:
        def __init__(self, recipe: Recipe):
            self.epochs = recipe.train.epochs

        def check_trainable(self) -> None:
            pass

        def check_feasible(self) -> None:
            if self.epochs > 19:
                raise BudgetInfeasible(())

    monkeypatch.setattr("whit.experiments.search.suggestion.make_plan", Plan)


def suggest_all(suggester: Suggester, most: int = 50) -> tuple[list[Recipe], str]:
    """Return all recipes until the space is exhausted, and the sentence about it."""
    recipes = []
    for _ in range(most):
        try:
            suggested = suggester.suggest(1_000)
        except SpaceExhausted as exhausted:
            return recipes, str(exhausted)
        assert suggested
        number, recipe = suggested
        suggester.storage.tell(number, [1.0, float(number)], "finished", {})
        recipes.append(recipe)
    return recipes, ""


def keys(recipes: list[Recipe]) -> set[str]:
    return {recipe_key(recipe.to_toml()) for recipe in recipes}


@pytest.mark.parametrize(
    ("suggest", "combinations", "count"), [(four, 4, 4), (conditional, 8, 8), (alike, 6, 2)]
)
def test_a_finite_space_is_tried_completely_and_only_once(
    suggest: SuggestFunction, combinations: int, count: int, tmp_path: Path
) -> None:
    space = space_of(suggest)
    listed = enumerate_params(space, 100)
    assert listed is not None
    assert len({frozenset(params.items()) for params in listed}) == len(listed) == combinations
    recipes, said = suggest_all(Suggester(space, TrialStorage(space, tmp_path, None, 0)))
    assert len(keys(recipes)) == len(recipes) == count
    assert said == f"The space is exhausted: all {combinations} combinations were tried."
    again, said = suggest_all(Suggester(space, TrialStorage(space, tmp_path, None, 1)))
    assert (again, said[:22]) == ([], "The space is exhausted")


def test_a_search_that_resumes_suggests_the_rest(tmp_path: Path) -> None:
    space = space_of(four)
    first, _ = suggest_all(Suggester(space, TrialStorage(space, tmp_path, None, 0)), 3)
    rest, said = suggest_all(Suggester(space, TrialStorage(space, tmp_path, None, 0)))
    assert (len(first), len(rest)) == (3, 1)
    assert len(keys(first + rest)) == 4
    assert said


@pytest.mark.parametrize("outcome", ["diverged", "pruned", "running", "failed"])
def test_a_recipe_without_a_result_is_not_suggested_again(outcome: str, tmp_path: Path) -> None:
    space = space_of(four)
    storage = TrialStorage(space, tmp_path, None, 0)
    suggester = Suggester(space, storage)
    suggested = suggester.suggest(10)
    assert suggested
    number, recipe = suggested
    if outcome == "failed":
        storage.release(number)
    elif outcome != "running":
        storage.tell(number, None, outcome, {})
    others, _ = suggest_all(suggester)
    assert len(others) == 3
    assert recipe_key(recipe.to_toml()) not in keys(others)


def test_a_continuous_space_is_not_exhausted(tmp_path: Path) -> None:
    space = space_of(continuous)
    assert enumerate_params(space, 100) is None
    recipes, said = suggest_all(Suggester(space, TrialStorage(space, tmp_path, None, 0)), 15)
    assert len(keys(recipes)) == 15
    assert said == ""


def test_a_space_that_cannot_be_listed_ends_by_its_duplicates(tmp_path: Path) -> None:
    """Of ever new parameters there is one recipe."""

    def same(trial: Suggest) -> Mapping[str, Any]:
        trial.suggest_float("unused", 0.0, 1.0)
        return {"optim.lr": 0.1}

    space = space_of(same)
    recipes, said = suggest_all(Suggester(space, TrialStorage(space, tmp_path, None, 0)))
    assert len(recipes) == 1
    assert said.startswith("The space seems exhausted: 200 suggestions in a row were recipes that")


def test_few_feasible_combinations_among_many_are_found(tmp_path: Path) -> None:
    def rare(trial: Suggest) -> Mapping[str, Any]:
        return {"train.epochs": trial.suggest_int("epochs", 17, 400)}

    space = space_of(rare)
    suggester = Suggester(space, TrialStorage(space, tmp_path, None, 0))
    recipes, said = suggest_all(suggester)
    assert sorted(recipe.train.epochs for recipe in recipes) == [17, 18, 19]
    assert said == "The space is exhausted: all 384 combinations were tried."
    assert suggester.num_infeasible <= 381


def test_a_space_without_a_feasible_combination_is_refused(tmp_path: Path) -> None:
    def never(trial: Suggest) -> Mapping[str, Any]:
        return {"train.epochs": trial.suggest_categorical("epochs", [20, 21])}

    space = space_of(never)
    with pytest.raises(InputError, match=r"tiny\.py: all 2 combinations are infeasible"):
        Suggester(space, TrialStorage(space, tmp_path, None, 0)).suggest(4)


def test_a_function_that_fails_for_some_combination_is_not_listed() -> None:
    def failing(trial: Suggest) -> Mapping[str, Any]:
        if trial.suggest_categorical("epochs", [1, 2]) == 2:
            raise ZeroDivisionError
        return {}

    assert enumerate_params(space_of(failing), 100) is None
    assert enumerate_params(space_of(four), 4) is not None
    assert enumerate_params(space_of(four), 3) is None


def test_the_name_of_a_recipe_distinguishes_nothing() -> None:
    recipe = load_recipe("sprint")
    other = recipe.with_overrides(["name=other"])
    assert recipe_key(recipe.to_toml()) == recipe_key(other.to_toml())
    assert recipe_key(recipe.to_toml()) != recipe_key(
        recipe.with_overrides(["data.val_size=7"]).to_toml()
    )
