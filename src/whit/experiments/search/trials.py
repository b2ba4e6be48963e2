"""The trials of a search as read back from their folders, and their Pareto front.

<search>/trials/<number>/recipe.toml     a recipe that `train` and `study` take
<search>/trials/<number>/seed-<n>/       runs of it, evaluated on val
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from whit.errors import InputError
from whit.experiments.search.space import OBJECTIVES, Space
from whit.experiments.seed_group import SeedGroup, group_runs
from whit.recipes.recipe import RECIPE_FILE, Recipe, load_recipe
from whit.runs.reader import read_run
from whit.system.numbers import json_number, round_json
from whit.training.plan import Plan, make_plan


@dataclass(frozen=True)
class Trial:
    """One trial of a search, with its runs that have ended."""

    number: int
    folder: Path
    recipe: Recipe
    seeds: SeedGroup
    macs: int | None = None  # where they are an objective

    @property
    def name(self) -> str:
        return f"{self.number:04d}"

    @cached_property
    def values(self) -> dict[str, float]:
        """The value of each objective, accuracy in percent on val; means over the seeds."""
        results = [run.result or {} for run in self.seeds.runs]
        values: dict[str, float] = {
            "accuracy": self.seeds.accuracy.mean,
            "params": self.seeds.params,
            "epochs": self.seeds.epochs,
            "seconds": sum(r["seconds"]["train"] for r in results) / len(results),
        }
        return values if self.macs is None else {**values, "macs": self.macs}

    @cached_property
    def accuracy_by_seed(self) -> dict[int | None, float]:
        """Percent on val after the last epoch, by seed."""
        seeds = (run.seed for run in self.seeds.runs)
        return dict(zip(seeds, self.seeds.accuracy.values, strict=True))

    def values_over(self, seeds: Iterable[int | None]) -> dict[str, float]:
        """Return `values` with the mean accuracy over these seeds alone."""
        return {**self.values, "accuracy": fmean(self.accuracy_by_seed[seed] for seed in seeds)}

    def to_json(self) -> dict[str, Any]:
        return {
            "trial": self.number,
            "recipe": str(self.folder / RECIPE_FILE),
            **{name: round_json(value) for name, value in self.values.items()},
            "seeds": len(self.seeds.runs),
            "diverged": len(self.seeds.diverged),
            "sd": round_json(self.seeds.accuracy.sd),
        }


def read_trial(folder: Path, space: Space) -> Trial | None:
    """Read a trial; None when no run of it has ended.

    Raises InputError when it is damaged, or an objective of the space is not known.
    """
    recipe = load_recipe(folder)
    runs = [read_run(path) for path in _numbered(folder, "seed-")]
    seeds = group_runs(folder.name, runs)
    return _build_trial(folder, recipe, seeds, space) if seeds else None


def read_pruned(folder: Path, space: Space) -> Trial | None:
    """Read a pruned trial, as if its last epoch had been the end; None without any epoch."""
    run = read_run(folder / "seed-0")
    if not run.log:
        return None
    seconds = sum(record.seconds for record in run.log)
    plan = make_plan(run.local_recipe)
    result = {
        **plan.metrics.network_json(),
        "epochs": json_number(plan.epochs),
        "verdict": "pending",
        "seconds": {"train": seconds, "total": seconds},
    }
    runs = (replace(run, result=result),)
    return _build_trial(folder, run.recipe, SeedGroup(folder.name, runs), space)


def _build_trial(folder: Path, recipe: Recipe, seeds: SeedGroup, space: Space) -> Trial:
    macs = None
    if "macs" in space.objectives:  # results of older versions have none
        macs = (seeds.runs[0].result or {}).get("macs") or known_macs(make_plan(recipe))
    return Trial(int(folder.name), folder, recipe, seeds, macs)


def known_macs(plan: Plan) -> int:
    """Return the multiply-adds of a planned network. Raises InputError where they are unknown."""
    if plan.audit.macs is None:
        raise InputError(f"{plan.recipe.name}: its multiply-adds are unknown.")
    return plan.audit.macs


def dominates(a: dict[str, float], b: dict[str, float], objectives: Sequence[str]) -> bool:
    """Whether `a` is no worse than `b` in any objective, and better in at least one."""
    gains = [(a[name] - b[name]) * (1 if OBJECTIVES[name] else -1) for name in objectives]
    return min(gains) >= 0 and max(gains) > 0


def paired_values(a: Trial, b: Trial) -> tuple[dict[str, float], dict[str, float]]:
    """Return the values of two trials, their accuracy over the seeds that both have.

    The seeds of a trial may hold out different blocks of images, of which one is harder than
    another: a mean over one seed does not compare with a mean over three.
    """
    common = a.accuracy_by_seed.keys() & b.accuracy_by_seed.keys()
    if not common:  # the first seed of one of them diverged
        return a.values, b.values
    return a.values_over(common), b.values_over(common)


def pareto_front(
    trials: Sequence[Trial], objectives: Sequence[str], min_accuracy: float = 0
) -> list[Trial]:
    """Return the trials that none dominates, cheapest first; of equals the first.

    Trials below `min_accuracy`, in percent, are omitted.
    """

    def is_dominated_by(other: Trial, trial: Trial) -> bool:
        ours, theirs = paired_values(other, trial)
        is_equal = all(ours[name] == theirs[name] for name in objectives)
        return dominates(ours, theirs, objectives) or (is_equal and other.number < trial.number)

    accurate = (trial for trial in trials if trial.values["accuracy"] >= min_accuracy)
    front = [trial for trial in accurate if not any(is_dominated_by(o, trial) for o in trials)]
    first = next((name for name in objectives if name != "accuracy"), "accuracy")
    return sorted(front, key=lambda trial: trial.values[first])


def needs_confirmation(trials: Sequence[Trial], space: Space) -> list[Trial]:
    """Return the trials on the Pareto front that have fewer seeds than the space asks for."""
    front = pareto_front(trials, space.objectives, space.min_accuracy)
    return [trial for trial in front if trial.seeds.num_judged < space.seeds]


def _numbered(folder: Path, prefix: str = "") -> list[Path]:
    """Return the paths named by `prefix` and a number, sorted by it; other names are ignored."""
    paths = [path for path in folder.glob(f"{prefix}*") if path.name[len(prefix) :].isdecimal()]
    return sorted(paths, key=lambda path: int(path.name[len(prefix) :]))


def read_trials(folder: Path, space: Space) -> tuple[list[Trial], list[str]]:
    """Read all trials of a search that have a result, and why others are not counted.

    A trial is not counted when one of its runs was altered or damaged.
    """
    trials: list[Trial] = []
    problems: list[str] = []
    for path in trial_folders(folder):
        try:
            trial = read_trial(path, space)
        except InputError as error:
            problems += [f"trial {path.name}: {problem}" for problem in error.problems]
        else:
            trials += [trial] if trial else []
    return trials, problems


def trial_folders(folder: Path) -> list[Path]:
    """Return the folders of the trials of a search, by number; they may have no run yet."""
    paths = _numbered(folder / "trials")
    return [path for path in paths if path.is_dir() and any(path.iterdir())]
