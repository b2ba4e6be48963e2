"""whit: train image classifiers that keep a budget, and judge them honestly.

    recipe = whit.load_recipe("sprint")
    print(whit.plan(recipe))
    result = whit.train(recipe, seed=0)
    print(whit.audit(result.folder))

torch is imported at the first call that needs it, and pydantic with the first recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whit.errors import InputError, RunFailed, WhitError

if TYPE_CHECKING:
    from torch import nn

    from whit.experiments.study import Study
    from whit.recipes.budget import BudgetInfeasible
    from whit.recipes.recipe import Recipe, load_recipe
    from whit.runs.result import RunResult
    from whit.training.plan import Plan
    from whit.verification.verify import AuditResult

__all__ = [
    "BudgetInfeasible",
    "InputError",
    "Recipe",
    "RunFailed",
    "WhitError",
    "audit",
    "load_recipe",
    "plan",
    "report",
    "resume",
    "study",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in ("BudgetInfeasible", "Recipe", "load_recipe"):
        from whit.recipes import budget, recipe

        return getattr(budget if name == "BudgetInfeasible" else recipe, name)
    raise AttributeError(f"module 'whit' has no attribute {name!r}")


def plan(recipe: Recipe | str | Path, model: nn.Module | None = None) -> Plan:
    """Say what a recipe will cost; reads no images. `model` may stand in for the recipe's."""
    from whit.training.plan import make_plan

    return make_plan(_as_recipe(recipe), model)


def train(
    recipe: Recipe | str | Path,
    model: nn.Module | None = None,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    quiet: bool = False,
) -> RunResult:
    """Train a recipe, or a model of your own by its recipe, and judge it.

    Leaves a run folder. Raises BudgetInfeasible when the model can never keep the budget,
    InputError for anything given wrong, RunFailed when the run itself goes wrong.
    """
    from rich.console import Console

    from whit.training.plan import make_plan
    from whit.training.progress import make_callback
    from whit.training.run import train_run

    return train_run(
        make_plan(_as_recipe(recipe), model),
        model=model,
        seed=seed,
        out=Path(out) if out is not None else None,
        device=device,
        threads=threads,
        callback=make_callback(Console(), quiet),
    )


def resume(
    folder: str | Path,
    model: nn.Module | None = None,
    *,
    device: str | None = None,
    threads: int | None = None,
    allow_changes: bool = False,
    steal_lock: bool = False,
    quiet: bool = False,
) -> RunResult:
    """Resume a run that was stopped or killed, to the same bytes as if it had not been.

    `model` is needed for a run of a model given in Python. Raises RunAlreadyFinished when the
    run has a result, IncompatibleResume when it would not be the same run, and what `train` raises.
    """
    from rich.console import Console

    from whit.training.progress import make_callback
    from whit.training.run import resume_run

    return resume_run(
        Path(folder),
        model=model,
        device=device,
        threads=threads,
        allow_changes=allow_changes,
        steal_lock=steal_lock,
        callback=make_callback(Console(), quiet),
    )


def study(
    recipes: Recipe | str | Path | Sequence[Recipe | str | Path],
    *,
    seeds: int = 10,
    out: str | Path = "studies",
    jobs: int | None = None,
    threads: int = 1,
    device: str = "cpu",
    quiet: bool = False,
) -> Study:
    """Train recipes over seeds 0 to `seeds` - 1, `jobs` at a time in processes of their own.

    Seeds that are in `out` already are not trained again. Raises InputError for anything given
    wrong, BudgetInfeasible when a recipe can never keep its budget.
    """
    import os

    from rich.console import Console

    from whit.experiments.execution.local import LocalExecutor
    from whit.experiments.study import plan_variants, run_study
    from whit.experiments.study_progress import make_study_callback
    from whit.system.console import warn

    is_one = isinstance(recipes, str | Path) or not isinstance(recipes, Sequence)
    given: list[Any] = [recipes] if is_one else list(recipes)  # type: ignore[arg-type]
    arms = plan_variants([_as_recipe(recipe) for recipe in given], Path(out))
    num_jobs = min(jobs or max(1, (os.cpu_count() or 1) // threads), seeds * len(arms))
    callback = make_study_callback(Console(), quiet)
    with LocalExecutor(num_jobs, threads, warn) as workers:
        return run_study(
            arms, range(seeds), workers, threads=threads, device=device, callback=callback
        )


def audit(
    target: str | Path | nn.Module,
    recipe: Recipe | str | Path | None = None,
    model: nn.Module | None = None,
) -> AuditResult:
    """Judge a run folder, recipe, `file.py:Class`, `notebook.ipynb:Class`, weights, or a model.

    `model` takes the weights of a run that trained a model given in Python.
    """
    from whit.verification.verify import audit

    return audit(target, None if recipe is None else _as_recipe(recipe), model)


def report(
    target: str | Path,
    out: str | Path | None = None,
    markdown: bool = False,
    model: nn.Module | None = None,
) -> Path:
    """Write the report of a run, a study or a folder of several as one HTML page; return its path.

    With `markdown`, a section for a README, its pictures in a folder. By default it goes into the
    target. `model` takes the weights of a run that trained a model given in Python. Raises
    InputError for a target that is none of these, RunFailed when the disk is full.
    """
    from whit.reports import write_report

    return write_report(Path(target), None if out is None else Path(out), markdown, model)


def _as_recipe(recipe: Recipe | str | Path) -> Recipe:
    from whit.recipes.recipe import Recipe, load_recipe

    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
