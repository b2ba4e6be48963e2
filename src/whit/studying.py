"""Recipes over seeds: what is there already, what is still to be trained, what it all shows.

    <root>/<recipe>-<digest>/seed-<n>/     a run folder each

Equal recipes have equal folders, so a study goes on wherever an earlier one stopped, and two
studies of one recipe share its seeds. There is no index: everything is read back from the runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from whit.comparison import Comparison, compare
from whit.durable import why_no_place
from whit.errors import BudgetRefused, InputError, Interrupted
from whit.inputs import Inputs, changed, said_of
from whit.job import Job, Outcome, ProgressCallback, recipe_id
from whit.planning import plan
from whit.recipe import Recipe
from whit.run_record import RunRecord, read_run
from whit.seeds import seeds_of
from whit.stopping import Stop, Stopping
from whit.text_table import wrapped


class Executor(Protocol):
    """Where jobs are done: processes of this machine, or of a cluster."""

    def run(self, jobs: Iterator[Job], look: ProgressCallback) -> Iterator[tuple[Job, Outcome]]: ...


@dataclass(frozen=True)
class Variant:
    """One recipe of a study, and where its seeds are."""

    name: str
    recipe: Recipe
    folder: Path

    def run_folder(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}"


@dataclass(frozen=True, repr=False)
class Study:
    """What a study found; `failures` are seeds that have no result, with the reason."""

    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    comparison: Comparison | None  # None when nothing finished
    failures: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"runs": [], "differences": {}, "evidence": []}
        if self.comparison:
            found = self.comparison.to_json()
        return {
            "recipes": found.pop("runs"),
            **found,
            "folders": {variant.name: str(variant.folder) for variant in self.variants},
            "failures": list(self.failures),
        }

    def table(self, width: int = 100) -> str:
        parts = [self.comparison.table(width)] if self.comparison else []
        parts += [wrapped(failure, width) for failure in self.failures]
        folders = [str(variant.folder) for variant in self.variants]
        parts.append("Run folders: " + ", ".join(folders))
        return "\n\n".join(parts)

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__  # a prompt shows what print shows


@dataclass
class Standing:
    """How far a study is, for whoever looks on."""

    variant: Variant
    wanted: int
    done: dict[int, str] = field(default_factory=dict)  # seed to what became of it
    running: dict[int, int] = field(default_factory=dict)  # seed to epochs done


class Onlooker:
    """Somebody who looks on at a study, as a context; these do nothing."""

    def __enter__(self) -> Onlooker:
        return self

    def __exit__(self, *error: object) -> None:
        """The study is over, one way or the other."""

    def begun(self, standings: Sequence[Standing]) -> None:
        """The seeds that were there already are in `standings`, which is kept up to date."""

    def moved(self) -> None:
        """An epoch or a moment has passed."""

    def ended(self, variant: Variant, seed: int, outcome: Outcome) -> None:
        """A seed came to an end, whatever it is."""


def variants_of(recipes: Sequence[Recipe], root: Path) -> tuple[Variant, ...]:
    """Name the recipes of a study. Raises InputError for one given twice, or no place for them.

    Raises BudgetRefused when one of them can never keep its budget.
    """
    ids = [recipe_id(recipe) for recipe in recipes]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    problems = [f"{name.rpartition('-')[0]}: given twice." for name in twice]
    problems += [
        f"{recipe.name}: reads neither the test nor the val split, so a study of it shows "
        'nothing: set train.test = true, or data.val and train.evaluate = "val".'
        for recipe in recipes
        if not recipe.train.test and recipe.train.evaluate != "val"
    ]
    if problem := why_no_place(root, to_write=False):  # a finished study is only read again
        problems.append(f"--out {root}: {problem}")
    judged = {(r.data.name, r.train.test or r.data.val) for r in recipes}
    if len(judged) > 1:
        problems.append("the recipes are not judged on the same images: give them the same data.")
    refusals = []
    for recipe in recipes:
        try:
            made = plan(recipe)
        except InputError as error:
            problems += error.problems
            continue
        if made.refusals:
            refusals += list(made.violations)
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    if refusals:
        raise BudgetRefused(refusals)
    names = [recipe.name for recipe in recipes]
    return tuple(
        Variant(recipe.name if names.count(recipe.name) == 1 else name, recipe, root / name)
        for recipe, name in zip(recipes, ids, strict=True)
    )


def study(
    variants: Sequence[Variant],
    seeds: Sequence[int],
    executor: Executor,
    *,
    threads: int = 1,
    device: str = "cpu",
    accept_changes: bool = False,
    command: Sequence[str] = (),
    onlooker: Onlooker | None = None,
    stopping: Stopping | None = None,
) -> Study:
    """Train every seed of every recipe that has no result yet, and read all of them back.

    A seed that fails or diverges holds nothing up. Raises InputError, before anything is trained,
    when seeds have ended whose model, teacher or data was another, unless `accept_changes`, or
    when others cannot be written; Interrupted when `stopping` was asked to: the seeds under way
    are saved by then, or are being saved.
    """
    onlooker = onlooker or Onlooker()
    standings = {variant.name: Standing(variant, len(seeds)) for variant in variants}
    failures: dict[tuple[str, int], tuple[str, ...]] = {}
    waiting: list[tuple[Variant, int]] = []
    ended: dict[str, list[RunRecord]] = {variant.name: [] for variant in variants}
    for seed in seeds:  # seed by seed, so that a stopped study has every recipe equally often
        for variant in variants:
            try:
                run = _ended_run(variant.run_folder(seed))
            except InputError as error:
                failures[variant.name, seed] = error.problems
                standings[variant.name].done[seed] = "damaged"
                continue
            if run is None:
                waiting.append((variant, seed))
            else:
                standings[variant.name].done[seed] = run.state
                ended[variant.name].append(run)
    compared = {} if accept_changes else ended
    known = Inputs()
    inputs = {
        variant.name: known.of(variant.recipe, with_data=bool(compared.get(variant.name)))
        for variant in variants
    }
    problems = []
    for variant in variants:
        counts = changed(compared.get(variant.name, ()), inputs[variant.name])
        problems += said_of(variant.folder, counts, "seeds")
    if problems := [*problems, *_unwritable(waiting)]:
        raise InputError(problems)
    of_job: dict[str, tuple[Variant, int]] = {}

    def jobs() -> Iterator[Job]:
        for variant, seed in waiting:
            folder = variant.run_folder(seed)
            of_job[str(folder)] = (variant, seed)
            yield Job(
                recipe=variant.recipe.to_toml(),
                seed=seed,
                folder=str(folder),
                threads=threads,
                device=device,
                accept_changes=accept_changes,
                model_sha256=inputs[variant.name].get("model_sha256"),
                teacher_sha256=inputs[variant.name].get("teacher_sha256"),
                command=tuple(command),
            )

    def look(job: Job | None, epochs: int) -> None:
        if stopping:
            stopping.check()
        if job:
            variant, seed = of_job[job.folder]
            standings[variant.name].running[seed] = epochs
        onlooker.moved()

    onlooker.begun(list(standings.values()))
    try:
        for job, outcome in executor.run(jobs(), look):
            variant, seed = of_job[job.folder]
            standings[variant.name].running.pop(seed, None)
            standings[variant.name].done[seed] = outcome.state
            if outcome.state not in ("finished", "diverged"):
                failures[variant.name, seed] = (f"{variant.name}, seed {seed}: {outcome.said}",)
            onlooker.ended(variant, seed, outcome)
    except Stop as stop:
        done = sum(len(standing.done) for standing in standings.values())
        raise Interrupted(
            f"stopped by {stop.name}: {done} of {len(seeds) * len(variants)} seeds have ended, "
            "the others are saved. The same command goes on.",
            128 + stop.number,
        ) from None
    return read_study(variants, seeds, failures)


def read_study(
    variants: Sequence[Variant],
    seeds: Sequence[int],
    failed: Mapping[tuple[str, int], tuple[str, ...]],
) -> Study:
    """Read a study back from its run folders; every seed has a result there, or is a failure."""
    failures = dict(failed)
    wild = []
    groups = []
    for variant in variants:
        runs = []
        for seed in seeds:
            folder = variant.run_folder(seed)
            try:
                run = _ended_run(folder)
            except InputError as error:
                failures.setdefault((variant.name, seed), error.problems)
                continue
            if run is not None:
                runs.append(run)
                continue
            lost = f"{variant.name}, seed {seed}: its run ended, but {folder} holds no result."
            failures.setdefault((variant.name, seed), (f"{lost} The same command goes on.",))
        if group := seeds_of(variant.name, runs):
            groups.append(group)
        elif any(run.state == "diverged" for run in runs):
            wild.append(f"{variant.name}: every seed diverged; see {variant.folder}.")
    comparison = compare(groups) if groups else None
    said = [problem for problems in failures.values() for problem in problems]
    return Study(tuple(variants), tuple(seeds), comparison, (*said, *wild))


def _ended_run(folder: Path) -> RunRecord | None:
    """Return a run that finished or diverged. Raises InputError if damaged."""
    if not os.path.lexists(folder):
        return None
    run = read_run(folder)
    return None if run.result is None else run


def _unwritable(waiting: Sequence[tuple[Variant, int]]) -> list[str]:
    """Say why runs that are still to be made have no place."""
    problems = [
        f"--out {variant.folder.parent}: {problem}"
        for variant, seed in waiting
        if (problem := why_no_place(variant.run_folder(seed)))
    ]
    return list(dict.fromkeys(problems))
