"""Running a job: train the run, or resume it.

Running a job twice is harmless: a run folder with a result is not changed, one without is resumed.
So an executor may submit a job again whenever it is unsure.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from whit.errors import Diverged, InputError, Interrupted, TrialPruned, WhitError
from whit.experiments.execution.job import Job, Outcome, State
from whit.recipes.recipe import Recipe, parse_recipe
from whit.runs import layout
from whit.runs.reader import read_run
from whit.runs.result import EpochRecord
from whit.training.callback import RunCallback, RunStatus
from whit.training.plan import make_kept_plan
from whit.training.run import resume_run, train_run
from whit.verification.provenance import current_digests

# Called with the number of epochs done, from 0 on.
EpochCallback = Callable[[int], None]
_STATES: dict[type[WhitError], State]
_STATES = {Diverged: "diverged", TrialPruned: "pruned", Interrupted: "stopped"}


def run_job(job: Job, progress: EpochCallback = lambda epochs: None) -> Outcome:
    """Train the run, or resume it; every failure becomes an Outcome with its message."""
    folder = Path(job.folder)
    callback = _JobCallback(job, progress)
    try:
        recipe = parse_recipe(job.recipe, job.folder)
        _check_inputs(recipe, job)
        if (folder / layout.RECIPE).exists():
            result = read_run(folder).result
            if result is not None:
                return Outcome(result["state"])
            resume_run(folder, allow_changes=job.allow_changes, callback=callback)
        else:
            train_run(
                make_kept_plan(recipe),
                seed=job.seed,
                out=folder,
                device=job.device,
                threads=job.threads,
                over_budget=job.over_budget,
                callback=callback,
            )
    except WhitError as error:
        return Outcome(_STATES.get(type(error), "failed"), str(error))
    except Exception:
        return Outcome("failed", traceback.format_exc())
    return Outcome("finished")


class _JobCallback(RunCallback):
    """Reports how far a run is, and prunes one that stays too low."""

    def __init__(self, job: Job, progress: EpochCallback):
        self.pruning_thresholds = dict(job.pruning_thresholds)
        self.progress = progress

    def on_start(self, subject: RunStatus) -> None:
        self.progress(0)

    def on_resume(self, subject: RunStatus, messages: Sequence[str]) -> None:
        self.progress(len(read_run(subject.folder).log))

    def on_epoch_end(self, record: EpochRecord) -> None:
        self.progress(record.epoch)
        threshold = self.pruning_thresholds.get(record.epoch, 0.0)
        for e in record.evaluations:
            if e.split == "val" and 100 * e.correct < threshold * e.total:
                raise TrialPruned(
                    f"{e.accuracy:.2f} % on val after epoch {record.epoch}, below the pruning "
                    f"threshold of {threshold:.2f} %."
                )


def _check_inputs(recipe: Recipe, job: Job) -> None:
    """Raise InputError where this machine has another model or teacher of the same name."""
    if job.model_sha256 is None and job.teacher_sha256 is None:
        return
    digests, problems = current_digests(recipe), []
    if job.model_sha256 not in (None, digests.get("model_sha256")):
        problems.append(
            f"{recipe.model.name}: this machine has another version of the file than the driver."
        )
    if job.teacher_sha256 not in (None, digests.get("teacher_sha256")):
        assert recipe.distill
        problems.append(
            f"distill.teacher = {recipe.distill.teacher!r}: this machine has other weights than "
            "the driver."
        )
    if problems:
        raise InputError(problems)
