"""The candidates of a search as read back from their folders, and the frontier of the best.

<search>/trials/<number>/recipe.toml     a recipe that `train` and `study` take
<search>/trials/<number>/seed-<n>/       runs of it, judged on val
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from whit.errors import InputError
from whit.evidence import Sample
from whit.planning import plan
from whit.recipe import Recipe, load_recipe
from whit.run_record import read_run
from whit.seeds import Seeds, seeds_of
from whit.space import OBJECTIVES, Space

# A candidate is never given up before this share of its epochs.
_EARLIEST = 0.3
# Candidates at least as cheap that must have ended before one is measured by them.
_ENOUGH = 5


@dataclass(frozen=True)
class Trial:
    """One candidate with the runs of it that have ended."""

    number: int
    folder: Path
    recipe: Recipe
    seeds: Seeds
    macs: int | None = None

    @property
    def name(self) -> str:
        return f"{self.number:04d}"

    @property
    def accuracy(self) -> Sample:
        """Percent on val after the last epoch, a value each seed."""
        return self.seeds.accuracy

    @cached_property
    def values(self) -> dict[str, float]:
        """What each objective is; means over the seeds."""
        results = [run.result or {} for run in self.seeds.runs]
        found: dict[str, float] = {
            "accuracy": self.accuracy.mean,
            "params": self.seeds.params,
            "epochs": self.seeds.epochs,
            "seconds": sum(r["seconds"]["train"] for r in results) / len(results),
        }
        return found if self.macs is None else {**found, "macs": self.macs}

    def to_json(self) -> dict[str, Any]:
        return {
            "trial": self.number,
            "recipe": str(self.folder / "recipe.toml"),
            **self.values,
            "seeds": len(self.seeds.runs),
            "diverged": len(self.seeds.diverged),
            "spread": self.accuracy.sd,
        }


def read_trial(folder: Path, macs: int | None = None) -> Trial | None:
    """Read a candidate; None when no run of it has ended. Raises InputError when damaged."""
    recipe = load_recipe(folder)
    runs = [read_run(path) for path in _numbered(folder, "seed-")]
    seeds = seeds_of(folder.name, runs)
    return Trial(int(folder.name), folder, recipe, seeds, macs) if seeds else None


def read_given_up(folder: Path, macs: int | None = None) -> Trial | None:
    """Read a candidate that was given up, as if its last epoch had been the end."""
    run = read_run(folder / "seed-0")
    if not run.log:
        return None
    made = plan(run.recipe)
    seconds = sum(record.seconds for record in run.log)
    as_if = {"params": made.audit.params.total, "epochs": run.recipe.train.epochs,
             "seconds": {"train": seconds, "total": seconds}, "verdict": "open"}  # fmt: skip
    runs = (replace(run, result=as_if),)
    return Trial(int(folder.name), folder, run.recipe, Seeds(folder.name, runs), macs)


def dominates(a: dict[str, float], b: dict[str, float], objectives: Sequence[str]) -> bool:
    """Whether `a` is nowhere worse than `b` and somewhere better."""
    gains = [(a[name] - b[name]) * (1 if OBJECTIVES[name] else -1) for name in objectives]
    return min(gains) >= 0 and max(gains) > 0


def frontier(trials: Sequence[Trial], objectives: Sequence[str], least: float = 0) -> list[Trial]:
    """Return the trials that none dominates, cheapest first; of equals the first."""
    found = []
    for trial in trials:
        if trial.values["accuracy"] < least:
            continue
        beaten = any(
            dominates(other.values, trial.values, objectives)
            or (_same(other, trial, objectives) and other.number < trial.number)
            for other in trials
        )
        if not beaten:
            found.append(trial)
    first = next((name for name in objectives if name != "accuracy"), "accuracy")
    return sorted(found, key=lambda trial: trial.values[first])


def unconfirmed(trials: Sequence[Trial], space: Space) -> list[Trial]:
    """Return the candidates on the frontier that have fewer seeds than a finalist needs."""
    best = frontier(trials, space.objectives, space.min_accuracy)
    return [trial for trial in best if trial.seeds.num_judged < space.seeds]


def least_by_epoch(
    costs: dict[str, float], epochs: int, trials: Sequence[Trial], space: Space
) -> tuple[tuple[int, float], ...]:
    """Return what a candidate must reach on val after each epoch, or be given up.

    It is measured by those that cost no more in any objective: where it stays below the median of
    them at the same share of training, the frontier has no place for it. Seconds are not known
    beforehand, so where they count nothing is given up.
    """
    known = [name for name in space.objectives if name != "accuracy"]
    if not costs.keys() >= set(known):
        return ()
    cheaper = [t for t in trials if all(t.values[name] <= costs[name] for name in known)]
    if len(cheaper) < _ENOUGH:
        return ()
    bounds = []
    for epoch in range(1, epochs):
        if epoch < _EARLIEST * epochs:
            continue
        reached = sorted(_val_at(trial, epoch / epochs) for trial in cheaper)
        bounds.append((epoch, reached[(len(reached) - 1) // 2]))
    return tuple(bounds)


def _val_at(trial: Trial, progress: float) -> float:
    """Percent on val at a share of training, of the first seed."""
    log = trial.seeds.runs[0].log
    place = max(1, int(progress * len(log) + 1e-9))
    readings = [r for r in log[place - 1].evaluations if r.split == "val"]
    return 100 * readings[0].correct / readings[0].total


def _same(a: Trial, b: Trial, objectives: Sequence[str]) -> bool:
    return all(a.values[name] == b.values[name] for name in objectives)


def trial_folders(folder: Path) -> list[Path]:
    """Return the folders of a search's candidates, in their order."""
    return _numbered(folder / "trials", "")


def _numbered(folder: Path, before: str) -> list[Path]:
    """Return what is named `before` and a number; a copy that somebody put beside it is not."""
    names = [path for path in folder.glob(f"{before}*") if path.name[len(before) :].isdecimal()]
    return sorted(names, key=lambda path: int(path.name[len(before) :]))


def read_trials(folder: Path, space: Space, macs: dict[int, int]) -> list[Trial]:
    """Read all candidates of a search that have a result; damaged ones are left out."""
    found = []
    for path in trial_folders(folder):
        try:
            trial = read_trial(path, macs.get(int(path.name)))
        except InputError:
            continue
        if trial is not None and trial.values.keys() >= set(space.objectives):
            found.append(trial)
    return found
