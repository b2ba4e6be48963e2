"""Learning-rate schedules, against torch's own where torch has them.

pytest tests/recipes/test_schedule.py
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from whit.errors import RecipeError
from whit.recipes.recipe import Recipe, parse_recipe
from whit.recipes.schedule import SCHEDULES, PiecewiseLinear

EPOCHS, STEPS = 8, 25  # steps an epoch
PEAK = 0.3


def recipe_with(schedule: str) -> Recipe:
    text = f'schema = 2\nname = "x"\n[model]\nname = "plain"\n[train]\nepochs = {EPOCHS}\n'
    return parse_recipe(f"{text}[schedule]\n{schedule}", "r.toml")


def torch_rates(build: object, *, per_epoch: bool) -> list[float]:
    """Return the rate of every step under a scheduler of torch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = build(optimizer)  # type: ignore[operator]
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants optimizer.step() first
        for step in range(EPOCHS * STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            if not per_epoch or step % STEPS == STEPS - 1:
                scheduler.step()
    return rates


def whit_rates(recipe: Recipe, num_steps: int = EPOCHS * STEPS) -> list[float]:
    factor = recipe.lr_factor()
    return [PEAK * factor(step / num_steps) for step in range(EPOCHS * STEPS)]


def test_linear_goes_through_its_points() -> None:
    schedule = PiecewiseLinear((0.0, 0.5, 1.0), (0.0, 1.0, 0.2))
    points = [-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0]
    assert [schedule(p) for p in points] == pytest.approx([0, 0, 0.5, 1, 0.6, 0.2, 0.2])
    assert PiecewiseLinear((0.0,), (1.0,))(0.7) == 1.0
    named = recipe_with('name = "linear"\nat = [0.0, 0.5, 1.0]\nfactor = [0.0, 1.0, 0.2]')
    assert named == recipe_with("at = [0.0, 0.5, 1.0]\nfactor = [0.0, 1.0, 0.2]")
    assert named.lr_factor()(0.75) == pytest.approx(0.6)


def test_constant() -> None:
    assert set(whit_rates(recipe_with('name = "constant"'))) == {PEAK}


def test_step_is_that_of_torch() -> None:
    expected = torch_rates(lambda o: lr_scheduler.StepLR(o, 3, gamma=0.5), per_epoch=True)
    assert whit_rates(recipe_with('name = "step"\nstep_size = 3\ngamma = 0.5')) == pytest.approx(
        expected
    )


def test_multistep_is_that_of_torch() -> None:
    expected = torch_rates(lambda o: lr_scheduler.MultiStepLR(o, [2, 7], 0.1), per_epoch=True)
    found = whit_rates(recipe_with('name = "multistep"\nmilestones = [2, 7]'))
    assert found == pytest.approx(expected)


def test_cosine_is_that_of_torch() -> None:
    steps = EPOCHS * STEPS
    expected = torch_rates(
        lambda o: lr_scheduler.CosineAnnealingLR(o, steps, eta_min=0.1 * PEAK), per_epoch=False
    )
    found = whit_rates(recipe_with('name = "cosine"\nmin_factor = 0.1'))
    assert found == pytest.approx(expected)
    warm = recipe_with('name = "cosine"\nwarmup = 0.5').lr_factor()
    assert [warm(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_onecycle_is_that_of_torch() -> None:
    """torch reaches its end at the last step, whit one step later: the same curve over steps."""
    steps = EPOCHS * STEPS
    expected = torch_rates(
        lambda o: lr_scheduler.OneCycleLR(
            o, PEAK, total_steps=steps + 1, pct_start=0.3 + 0.7 / 201
        ),
        per_epoch=False,
    )
    found = whit_rates(recipe_with('name = "onecycle"'))
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 0.02 * PEAK
    assert found[0] == pytest.approx(PEAK / 25)
    assert recipe_with('name = "onecycle"').lr_factor()(1.0) == pytest.approx(1 / 25 / 1e4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_written_and_read_back(name: str) -> None:
    given = f'name = "{name}"' + ("\nmilestones = [2]" if name == "multistep" else "")
    recipe = recipe_with(given)
    assert parse_recipe(recipe.to_toml(), "again") == recipe
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    assert all(0 <= recipe.lr_factor()(p / 100) <= 1 for p in range(101))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ('name = "cosin"', "Did you mean 'cosine'? Allowed: linear, constant"),
        ('name = "step"\nstep_size = 0', "schedule.step_size = 0"),
        ('name = "constant"\nat = [0.0]', "unknown key schedule.at"),
        ('name = "cosine"\nfactor = [1.0]', "Allowed here: name, warmup, min_factor"),
        ('name = "multistep"', "milestones is missing: list epochs, e.g. [5, 8]"),
        ('name = "multistep"\nmilestones = [5, 5]', "milestones must increase"),
        ('name = "onecycle"\npct_start = 1.0', "schedule.pct_start = 1.0"),
    ],
)
def test_a_wrong_schedule_is_refused(schedule: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_with(schedule)
    assert message in "\n".join(caught.value.problems)


def test_another_schedule_starts_without_the_keys_of_the_one_before() -> None:
    changed = recipe_with("at = [0.0]\nfactor = [1.0]").with_overrides(["schedule.name=step"])
    assert changed.schedule.name == "step"
    again = changed.with_overrides(["schedule.name=linear", "schedule.factor=[1.0, 0.5, 0.0]"])
    assert again.lr_factor()(1.0) == 0.0
