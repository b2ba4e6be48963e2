"""The Pareto front against its definition, its plot and table, and the pruning thresholds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from whit.experiments.search.plot import draw_pareto_front
from whit.experiments.search.pruning import pruning_thresholds
from whit.experiments.search.result import SearchResult
from whit.experiments.search.space import OBJECTIVES, Space
from whit.experiments.search.trials import Trial, dominates, needs_confirmation, pareto_front
from whit.experiments.seed_group import SeedGroup
from whit.recipes.recipe import load_recipe
from whit.runs.reader import RunRecord
from whit.runs.result import EpochRecord, Evaluation


def trial(number: int, params: int, curve: list[int], seeds: int = 1, epochs: int = 0) -> Trial:
    """A trial whose val accuracy after each epoch is `curve`, in correct of 1,000."""
    log = tuple(
        EpochRecord(e, 100, 10, 0.1, 1.0, 5, 10, 1.0, (Evaluation("val", correct, 1000, 0.1),))
        for e, correct in enumerate(curve, start=1)
    )
    result = {"params": params, "epochs": epochs or len(curve), "seconds": {"train": 1.0}}
    recipe = load_recipe("sprint").with_overrides(["eval.test=false"])
    run = RunRecord(Path(f"{number:04d}"), recipe, {"seed": 0}, log, result)
    return Trial(number, run.path, recipe, SeedGroup(f"{number:04d}", (run,) * seeds))


SPACE = Space("s", "s", cast(Any, None), ("params", "accuracy"), 1000, 2, 0.0, dict, "")

points = st.lists(st.tuples(st.integers(1, 6), st.integers(900, 906)), min_size=1, max_size=12)


@given(points)
def test_the_front_is_what_nothing_dominates(given_points: list[tuple[int, int]]) -> None:
    trials = [trial(i, params, [correct]) for i, (params, correct) in enumerate(given_points)]
    found = {
        (t.values["params"], t.values["accuracy"]) for t in pareto_front(trials, SPACE.objectives)
    }
    expected = {
        (params, correct / 10)
        for params, correct in given_points
        if not any(
            (p <= params and c >= correct) and (p, c) != (params, correct) for p, c in given_points
        )
    }
    assert found == expected
    numbers = [t.values["params"] for t in pareto_front(trials, SPACE.objectives)]
    assert numbers == sorted(set(numbers))  # cheapest first, and each point once


def test_an_objective_knows_its_direction() -> None:
    cheap = dict.fromkeys(OBJECTIVES, 1.0)
    assert dominates({**cheap, "accuracy": 2.0}, cheap, list(OBJECTIVES))
    assert dominates(cheap, {**cheap, "seconds": 2.0}, list(OBJECTIVES))
    assert not dominates(cheap, cheap, list(OBJECTIVES))
    assert not dominates({**cheap, "accuracy": 2.0, "params": 2.0}, cheap, list(OBJECTIVES))


def over_blocks(number: int, params: int, correct: list[int]) -> Trial:
    """A trial whose seeds hold out the last block, block 4, ...; `correct` of 1,000 on each."""
    runs = []
    for seed, count in enumerate(correct):
        (run,) = trial(number, params, [count]).seeds.runs
        changes = ["data.val_size=10000", *([f"data.val_block={5 - seed}"] if seed else [])]
        recipe = run.recipe.with_overrides(changes)
        runs.append(replace(run, recipe=recipe, environment={"seed": seed}))
    seeds = SeedGroup(f"{number:04d}", tuple(runs))
    return Trial(number, runs[0].path, load_recipe("sprint"), seeds)


def test_trials_are_compared_over_the_seeds_that_both_have() -> None:
    """Blocks 4 and 3 are harder: a trial that was confirmed on them is not worse for that."""
    confirmed = over_blocks(0, 10, [960, 940, 941])
    cheaper_looking = over_blocks(1, 10, [955])
    dearer = over_blocks(2, 20, [961])
    assert confirmed.values["accuracy"] < cheaper_looking.values["accuracy"]
    trials = [confirmed, cheaper_looking, dearer]
    assert [t.number for t in pareto_front(trials, SPACE.objectives)] == [0, 2]
    assert [t.number for t in needs_confirmation(trials, SPACE)] == [2]
    dearer = over_blocks(2, 20, [961, 938, 939])  # no better than the cheaper one on any other
    assert [t.number for t in pareto_front([confirmed, dearer], SPACE.objectives)] == [0]
    (note,) = confirmed.seeds.notes
    assert note == "0000: its seeds were evaluated on different blocks of images: 3, 4, the last."


def test_trials_on_the_front_with_too_few_seeds_are_confirmed() -> None:
    trials = [trial(0, 10, [950]), trial(1, 20, [960], seeds=2), trial(2, 30, [955])]
    assert [t.number for t in needs_confirmation(trials, SPACE)] == [0]
    assert needs_confirmation(trials, replace(SPACE, min_accuracy=95.5)) == []


def test_a_trial_is_compared_with_those_that_cost_no_more() -> None:
    cheap = [trial(i, 100, [500, 600 + 10 * i, 700 + 10 * i, 900]) for i in range(5)]
    dear = [trial(9, 1000, [900, 990, 995, 999])]
    bounds = pruning_thresholds({"params": 150.0, "epochs": 4.0}, 4, [*cheap, *dear], SPACE)
    assert bounds == ((2, 62.0), (3, 72.0))  # the median, from 30 % of training on, not at the end
    assert pruning_thresholds({"params": 50.0, "epochs": 4.0}, 4, [*cheap, *dear], SPACE) == ()
    longer = pruning_thresholds({"params": 150.0, "epochs": 8.0}, 8, cheap, SPACE)
    assert dict(longer)[4] == 62.0  # the same progress
    assert dict(longer)[5] == 62.0
    assert dict(longer)[6] == 72.0


def search_of(trials: list[Trial]) -> SearchResult:
    return SearchResult(SPACE, Path("searches/s"), trials, requested=len(trials))


def test_the_plot_has_steps_and_the_numbers_of_the_trials() -> None:
    trials = [trial(3, 10, [950]), trial(7, 20, [960]), trial(12, 30, [955]), trial(14, 40, [970])]
    (axes,) = draw_pareto_front(search_of(trials)).axes
    assert [text.get_text() for text in axes.texts] == ["3", "7", "14"]
    assert [text.xy for text in axes.texts] == [(10, 95.0), (20, 96.0), (40, 97.0)]
    (line,) = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert line.get_drawstyle() == "steps-post"
    assert line.get_xydata().tolist() == [[10, 95.0], [20, 96.0], [40, 97.0]]


def test_with_three_objectives_the_steps_still_rise() -> None:
    """A trial on the front for its few epochs lies below the steps of the other two."""
    trials = [trial(0, 10, [950] * 9), trial(1, 20, [940]), trial(2, 30, [960] * 9)]
    space = replace(SPACE, objectives=("params", "epochs", "accuracy"))
    search = SearchResult(space, Path("s"), trials)
    assert len(search.pareto_front) == 3
    (axes,) = draw_pareto_front(search).axes
    (line,) = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert line.get_xydata().tolist() == [[10, 95.0], [30, 96.0]]


def test_the_table_shows_what_differs_between_the_trials() -> None:
    one, other = trial(3, 10, [950], seeds=2), trial(7, 20, [960], seeds=2)
    other = replace(other, recipe=other.recipe.with_overrides(["optim.lr=0.25", "name=x"]))
    text = search_of([one, other]).table(80)
    lines = text.splitlines()
    head = next(i for i, line in enumerate(lines) if "optim.lr" in line)
    assert lines[head].split() == ["trial", "optim.lr"]
    assert [line.split()[0] for line in lines[head + 2 : head + 4]] == ["0003", "0007"]
    assert lines[head + 3].split()[1] == "0.25"
    assert "description" not in text


def test_a_front_of_several_trials_is_corrected() -> None:
    trials = [trial(i, 10 * i, [900 + 10 * i], seeds=1) for i in range(1, 4)]
    value = search_of(trials).to_json()
    assert len(value["evidence"]) == 2
    assert value["correction"] is None  # one seed each allows no test
