"""Studies: recipes trained over several seeds in parallel, resumed, and compared.

    <root>/<recipe>-<digest>/seed-<n>/     a run folder each

Equal recipes have equal folders, so a study resumes an earlier one, and two studies of one recipe
share its seeds. There is no index: everything is read from the run folders.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from whit.errors import InputError
from whit.experiments.comparison import Comparison, compare
from whit.experiments.execution.job import Executor, Job, Outcome
from whit.experiments.seed_group import group_runs
from whit.models.registry import in_memory_spec
from whit.recipes.budget import BudgetInfeasible, Violation
from whit.recipes.recipe import Recipe, recipe_id
from whit.runs.reader import RunRecord, read_run
from whit.system.atomic_files import unwritable_reason
from whit.system.display.html_tables import html_block, html_list, html_text
from whit.system.file_names import name_problem
from whit.system.signals import SignalHandler, StopRequested
from whit.system.text_tables import wrap
from whit.training.callback import Callback, Subject
from whit.training.plan import make_plan
from whit.verification.provenance import InputDigests, count_changed, format_changes

_Key = tuple[str, int]  # name of a recipe in its study, seed


@dataclass(frozen=True)
class StudyArm:
    """One recipe of a study, and the folder of its seeds."""

    name: str
    recipe: Recipe
    folder: Path

    def run_folder(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}"


@dataclass(frozen=True, repr=False)
class Study:
    """The result of a study; `failures` are seeds that have no result, with the reason."""

    arms: tuple[StudyArm, ...]
    seeds: tuple[int, ...]
    comparison: Comparison | None  # None when nothing finished
    failures: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        comparison = (self.comparison or Comparison((), (), ())).to_json()
        return {
            "recipes": comparison.pop("runs"),
            **comparison,
            "folders": {arm.name: str(arm.folder) for arm in self.arms},
            "failures": list(self.failures),
        }

    def table(self, width: int = 100) -> str:
        parts = [self.comparison.table(width)] if self.comparison else []
        parts += [wrap(failure, width) for failure in self.failures]
        parts.append(self._folders)
        return "\n\n".join(parts)

    @property
    def _folders(self) -> str:
        return "Run folders: " + ", ".join(str(arm.folder) for arm in self.arms)

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__  # a prompt shows what print shows

    def _repr_html_(self) -> str:
        comparison = self.comparison.html() if self.comparison else ""
        return html_block(comparison, html_list(self.failures), html_text(self._folders))


@dataclass
class StudyProgress:
    """Progress of one recipe of a study."""

    arm: StudyArm
    num_seeds: int
    done: dict[int, str] = field(default_factory=dict)  # seed to the state of its run
    running: dict[int, int] = field(default_factory=dict)  # seed to epochs done


class ExperimentCallback(Callback[Subject]):
    """Base of the callbacks of a study or a search."""

    def on_progress(self) -> None:
        """An epoch of a run has ended, or half a second has passed."""

    def on_run_end(self, name: str, folder: Path, outcome: Outcome) -> None:
        """A run has ended, with any outcome."""


class StudyCallback(ExperimentCallback[Sequence[StudyProgress]]):
    """Base of the callbacks of a study."""


def plan_variants(
    recipes: Sequence[Recipe],
    root: Path,
    model: nn.Module | None = None,
    over_budget: bool = False,
) -> tuple[StudyArm, ...]:
    """Name the recipes of a study. Raises InputError for duplicates, or an unwritable `root`.

    `model` takes the place of the recipes' own. Whether two models given in Python are the same
    cannot be known, so the folders of such a study are new ones. Raises BudgetInfeasible when one
    of them can never meet its budget, unless `over_budget`.
    """
    if model is not None:
        spec = in_memory_spec(model)
        recipes = [recipe.model_copy(update={"model": spec}) for recipe in recipes]
    ids = [recipe_id(recipe) for recipe in recipes]
    duplicates = sorted({name for name in ids if ids.count(name) > 1})
    problems = [f"{name.rpartition('-')[0]}: listed twice." for name in duplicates]
    problems += [
        f"{recipe.name}: evaluates on neither test nor val, so there is nothing to compare: "
        'set eval.test = true, or data.val_size and eval.each_epoch = "val".'
        for recipe in recipes
        if not recipe.eval.test and recipe.eval.each_epoch != "val"
    ]
    if problem := name_problem(root):
        problems.append(f"--out {str(root)!r}: {problem}; give another path.")
    elif problem := unwritable_reason(root, to_write=False):  # a finished one is only read again
        problems.append(f"--out {root}: {problem}")
    evaluated = {(r.data.name, r.eval.test or r.data.held_out) for r in recipes}
    if len(evaluated) > 1:
        problems.append("the recipes are evaluated on different images: give them the same data.")
    violations: list[Violation] = []
    for recipe in recipes:
        try:
            plan = make_plan(recipe, model)
            plan.check_trainable()
        except InputError as error:
            problems += error.problems
            continue
        violations += plan.violations
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    if violations and not over_budget:
        raise BudgetInfeasible(violations)
    names = [recipe.name for recipe in recipes]
    if model is not None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        ids = [_new_name(root, f"{name}-{stamp}") for name in ids]
    return tuple(
        StudyArm(recipe.name if names.count(recipe.name) == 1 else name, recipe, root / name)
        for recipe, name in zip(recipes, ids, strict=True)
    )


def _new_name(root: Path, name: str) -> str:
    """Return `name`, or with a number what is not in `root` yet."""
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    return next(candidate for candidate in names if not os.path.lexists(root / candidate))


def run_study(
    arms: Sequence[StudyArm],
    seeds: Sequence[int],
    executor: Executor,
    *,
    threads: int = 1,
    device: str = "cpu",
    allow_changes: bool = False,
    over_budget: bool = False,
    command: Sequence[str] = (),
    callback: StudyCallback | None = None,
    signals: SignalHandler | None = None,
) -> Study:
    """Train every seed of every recipe that has no result yet, and return the results of all.

    A seed that fails or diverges does not stop the others. Raises InputError, before anything is
    trained, when finished seeds were trained from another model, teacher or data, unless
    `allow_changes`, or when others cannot be written; Interrupted when `signals` received one:
    the running seeds are saved by then, or are being saved.
    """
    callback = callback or StudyCallback()
    # Seed by seed, so that a stopped study has as many seeds of each recipe.
    keys = [(arm, seed) for seed in seeds for arm in arms]
    runs, failures = _read_runs(keys)
    already_read = {*runs, *failures}
    pending = [(arm, seed) for arm, seed in keys if (arm.name, seed) not in already_read]
    progress = {arm.name: StudyProgress(arm, len(seeds)) for arm in arms}
    ended: dict[str, list[RunRecord]] = {arm.name: [] for arm in arms}
    for (name, seed), run in runs.items():
        progress[name].done[seed] = run.state
        ended[name].append(run)
    for name, seed in failures:
        progress[name].done[seed] = "damaged"
    compared = {} if allow_changes else ended
    digests = InputDigests()
    inputs = {
        arm.name: digests.read(arm.recipe, with_data=bool(compared.get(arm.name))) for arm in arms
    }
    problems = []
    for arm in arms:
        counts = count_changed(compared.get(arm.name, ()), inputs[arm.name])
        problems += format_changes(arm.folder, counts, "seeds")
    for arm, seed in pending:
        if problem := unwritable_reason(arm.run_folder(seed)):
            problems.append(f"--out {arm.folder.parent}: {problem}")
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    started: dict[str, tuple[StudyArm, int]] = {}  # by run folder

    def jobs() -> Iterator[Job]:
        for arm, seed in pending:
            folder = str(arm.run_folder(seed))
            started[folder] = (arm, seed)
            yield Job(
                recipe=arm.recipe.to_toml(),
                seed=seed,
                folder=folder,
                threads=threads,
                device=device,
                allow_changes=allow_changes,
                over_budget=over_budget,
                model_sha256=inputs[arm.name].get("model_sha256"),
                teacher_sha256=inputs[arm.name].get("teacher_sha256"),
                command=tuple(command),
            )

    def on_epochs(job: Job | None, epochs: int) -> None:
        if signals:
            signals.check()
        if job:
            arm, seed = started[job.folder]
            progress[arm.name].running[seed] = epochs
        callback.on_progress()

    def num_done() -> int:
        return sum(len(arm_progress.done) for arm_progress in progress.values())

    num_runs = len(seeds) * len(arms)
    with callback:
        if num_done():
            message = f"Resuming: {num_done()} of {num_runs} runs already finished."
            if num_done() == num_runs:
                message = f"All {num_runs} runs already finished."
            callback.on_resume(list(progress.values()), [message])
        else:
            callback.on_start(list(progress.values()))
        try:
            for job, outcome in executor.run(jobs(), on_epochs):
                arm, seed = started[job.folder]
                name = f"{arm.name}, seed {seed}"
                progress[arm.name].running.pop(seed, None)
                progress[arm.name].done[seed] = outcome.state
                if outcome.state not in ("finished", "diverged"):
                    failures[arm.name, seed] = (f"{name}: {outcome.message}",)
                callback.on_run_end(name, Path(job.folder), outcome)
        except StopRequested as stop:
            raise stop.to_error(
                f": {num_done()} of {num_runs} runs finished, running ones saved. Run the same "
                "command again to resume."
            ) from None
    return read_study(arms, seeds, failures)


def read_study(
    arms: Sequence[StudyArm], seeds: Sequence[int], failed: Mapping[_Key, tuple[str, ...]]
) -> Study:
    """Read a study from its run folders; a seed without a result is a failure."""
    runs, damaged = _read_runs([(arm, seed) for arm in arms for seed in seeds])
    failures = {**failed}
    diverged, groups = [], []
    for arm in arms:
        for seed in seeds:
            message = (
                f"{arm.name}, seed {seed}: its run ended, but {arm.run_folder(seed)} has no "
                "result. Run the same command again to resume it."
            )
            if (arm.name, seed) not in runs:
                failures.setdefault((arm.name, seed), damaged.get((arm.name, seed), (message,)))
        ended = [run for (name, _), run in runs.items() if name == arm.name]
        if group := group_runs(arm.name, ended):
            groups.append(group)
        elif any(run.state == "diverged" for run in ended):
            diverged.append(f"{arm.name}: every seed diverged; see {arm.folder}.")
    comparison = compare(groups) if groups else None
    problems = [problem for messages in failures.values() for problem in messages]
    return Study(tuple(arms), tuple(seeds), comparison, (*problems, *diverged))


def _read_runs(
    keys: Iterable[tuple[StudyArm, int]],
) -> tuple[dict[_Key, RunRecord], dict[_Key, tuple[str, ...]]]:
    """Return the runs that finished or diverged, and the problems of damaged ones."""
    runs: dict[_Key, RunRecord] = {}
    damaged: dict[_Key, tuple[str, ...]] = {}
    for arm, seed in keys:
        folder = arm.run_folder(seed)
        try:
            run = read_run(folder) if os.path.lexists(folder) else None
        except InputError as error:
            damaged[arm.name, seed] = error.problems
        else:
            if run and run.result is not None:
                runs[arm.name, seed] = run
    return runs, damaged
