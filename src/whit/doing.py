"""Doing a job: make the run, or go on with it.

Doing a job twice does it once: a run folder with a result is left as it is, one without is
resumed. So an executor may hand a job out again whenever it is in doubt.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from whit.errors import BudgetRefused, Diverged, GivenUp, InputError, Interrupted, WhitError
from whit.job import Job, Outcome
from whit.models.user_code import user_model_sha256
from whit.planning import Plan, plan
from whit.recipe import Recipe, parse_recipe
from whit.record import EpochRecord
from whit.run import Watch, resume, run
from whit.run_folder import RunFolder
from whit.run_record import read_run
from whit.teacher import teacher_of

# Called with the number of epochs done, from 0 on.
Progress = Callable[[int], None]


def do(job: Job, progress: Progress = lambda epochs: None) -> Outcome:
    """Make the run, or go on with it; every failure becomes an Outcome in plain words."""
    folder = Path(job.folder)
    watch = _Watch(job, progress)
    try:
        recipe = parse_recipe(job.recipe, job.folder)
        _refuse_others(recipe, job)
        if (folder / "recipe.toml").exists():
            ended = read_run(folder).result
            if ended is not None:
                return Outcome(ended["state"])
            resume(folder, accept_changes=job.accept_changes, watch=watch)
        else:
            run(
                plan(recipe),
                seed=job.seed,
                out=folder,
                device=job.device,
                threads=job.threads,
                watch=watch,
            )
    except Diverged as error:
        return Outcome("diverged", str(error))
    except GivenUp as error:
        return Outcome("given up", str(error))
    except Interrupted as error:
        return Outcome("stopped", str(error))
    except (InputError, BudgetRefused, WhitError) as error:
        return Outcome("failed", str(error))
    except Exception:
        return Outcome("failed", traceback.format_exc())
    return Outcome("finished")


class _Watch(Watch):
    """Tells how far a run is, and gives up one that stays too low."""

    def __init__(self, job: Job, progress: Progress):
        self.least = dict(job.least)
        self.progress = progress

    def started(self, plan: Plan, folder: RunFolder) -> None:
        self.progress(0)

    def resumed(self, plan: Plan, folder: RunFolder, place: str, said: list[str]) -> None:
        self.progress(len(read_run(folder.path).log))

    def trained(self, record: EpochRecord) -> None:
        self.progress(record.epoch)
        least = self.least.get(record.epoch)
        if least is None:
            return
        for reading in record.evaluations:
            if reading.split == "val" and 100 * reading.correct < least * reading.total:
                raise GivenUp(
                    f"{reading.accuracy:.2f} % on val after epoch {record.epoch}, "
                    f"wanted {least:.2f} %."
                )


def teacher_sha256(recipe: Recipe) -> str | None:
    """Return what a job says of the teacher's weights; None without a teacher."""
    teacher = teacher_of(recipe)
    return teacher.sha256 if teacher else None


def _refuse_others(recipe: Recipe, job: Job) -> None:
    """Raise InputError where this machine has another model or teacher of the same name."""
    problems = []
    if job.model_sha256 is not None and user_model_sha256(recipe.model.name) != job.model_sha256:
        problems.append(
            f"{recipe.model.name}: not the same file here as where the run was asked for."
        )
    if job.teacher_sha256 is not None and teacher_sha256(recipe) != job.teacher_sha256:
        assert recipe.distill
        problems.append(
            f"distill.teacher = {recipe.distill.teacher!r}: not the same weights here as where "
            "the run was asked for."
        )
    if problems:
        raise InputError(problems)
