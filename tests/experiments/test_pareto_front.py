"""The frontier against its definition, and what a candidate must reach not to be given up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from whit.experiments.search.pruning import pruning_thresholds
from whit.experiments.search.space import OBJECTIVES, Space
from whit.experiments.search.trials import Trial, dominates, needs_confirmation, pareto_front
from whit.experiments.seed_group import SeedGroup
from whit.recipes.recipe import load_recipe
from whit.runs.reader import RunRecord
from whit.runs.result import EpochRecord, Evaluation


def trial(number: int, params: int, curve: list[int], seeds: int = 1, epochs: int = 0) -> Trial:
    """A candidate whose val accuracy after each epoch is `curve`, in correct of 1,000."""
    log = tuple(
        EpochRecord(e, 100, 10, 0.1, 1.0, 5, 10, 1.0, (Evaluation("val", correct, 1000, 0.1),))
        for e, correct in enumerate(curve, start=1)
    )
    result = {"params": params, "epochs": epochs or len(curve), "seconds": {"train": 1.0}}
    recipe = load_recipe("sprint").with_overrides(["eval.test=false"])
    run = RunRecord(Path(f"{number:04d}"), recipe, {"seed": 0}, log, result)
    return Trial(number, run.path, cast(Any, None), SeedGroup("t", (run,) * seeds))


SPACE = Space("s", "s", cast(Any, None), ("params", "accuracy"), 1000, 2, 0.0, dict, "")

points = st.lists(st.tuples(st.integers(1, 6), st.integers(900, 906)), min_size=1, max_size=12)


@given(points)
def test_the_frontier_is_what_nothing_beats(given_points: list[tuple[int, int]]) -> None:
    trials = [trial(i, params, [correct]) for i, (params, correct) in enumerate(given_points)]
    found = {
        (t.values["params"], t.values["accuracy"]) for t in pareto_front(trials, SPACE.objectives)
    }
    wanted = {
        (params, correct / 10)
        for params, correct in given_points
        if not any(
            (p <= params and c >= correct) and (p, c) != (params, correct) for p, c in given_points
        )
    }
    assert found == wanted
    numbers = [t.values["params"] for t in pareto_front(trials, SPACE.objectives)]
    assert numbers == sorted(set(numbers))  # cheapest first, and each point once


def test_an_objective_knows_its_direction() -> None:
    cheap = dict.fromkeys(OBJECTIVES, 1.0)
    assert dominates({**cheap, "accuracy": 2.0}, cheap, list(OBJECTIVES))
    assert dominates(cheap, {**cheap, "seconds": 2.0}, list(OBJECTIVES))
    assert not dominates(cheap, cheap, list(OBJECTIVES))
    assert not dominates({**cheap, "accuracy": 2.0, "params": 2.0}, cheap, list(OBJECTIVES))


def test_finalists_are_those_of_the_frontier_with_too_few_seeds() -> None:
    trials = [trial(0, 10, [950]), trial(1, 20, [960], seeds=2), trial(2, 30, [955])]
    assert [t.number for t in needs_confirmation(trials, SPACE)] == [0]
    assert needs_confirmation(trials, replace(SPACE, min_accuracy=95.5)) == []


def test_a_candidate_is_measured_by_those_that_cost_no_more() -> None:
    cheap = [trial(i, 100, [500, 600 + 10 * i, 700 + 10 * i, 900]) for i in range(5)]
    dear = [trial(9, 1000, [900, 990, 995, 999])]
    bounds = pruning_thresholds({"params": 150.0, "epochs": 4.0}, 4, [*cheap, *dear], SPACE)
    assert bounds == ((2, 62.0), (3, 72.0))  # the median, from 30 % of training on, not at the end
    assert pruning_thresholds({"params": 50.0, "epochs": 4.0}, 4, [*cheap, *dear], SPACE) == ()
    longer = pruning_thresholds({"params": 150.0, "epochs": 8.0}, 8, cheap, SPACE)
    assert dict(longer)[4] == 62.0  # the same share of training
    assert dict(longer)[5] == 62.0
    assert dict(longer)[6] == 72.0
