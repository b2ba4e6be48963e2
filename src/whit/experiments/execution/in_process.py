"""Jobs in this process, one after the other: for a model that was given in Python.

A worker process could not import such a model.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import nn

from whit.errors import Diverged, Interrupted, WhitError
from whit.experiments.execution.job import Job, Outcome, ProgressCallback
from whit.recipes.recipe import parse_recipe
from whit.runs.result import EpochRecord
from whit.system.rng import preserve_rng_state, seed_all
from whit.training.callback import RunCallback
from whit.training.plan import make_plan
from whit.training.run import train_run
from whit.training.state import Batches, EpochMetrics


class InProcessExecutor:
    """Trains a model of `build` for each job; its initial weights are those of the job's seed.

    `build` returns a model whose weights are drawn from torch's global generator.
    """

    def __init__(self, build: Callable[[], nn.Module]):
        self.build = build

    def run(
        self, jobs: Iterator[Job], on_progress: ProgressCallback = lambda job, epochs: None
    ) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job with its outcome. Raises Interrupted when a run was stopped."""
        for job in jobs:
            yield job, self._train(job, on_progress)

    def _train(self, job: Job, on_progress: ProgressCallback) -> Outcome:
        try:
            with preserve_rng_state():
                seed_all(job.seed, "weights")
                model = self.build()
            train_run(
                make_plan(parse_recipe(job.recipe, job.folder), model),
                model=model,
                seed=job.seed,
                out=Path(job.folder),
                device=job.device,
                threads=job.threads or None,
                over_budget=job.over_budget,
                callback=_JobCallback(job, on_progress),
            )
        except Interrupted:
            raise
        except WhitError as error:
            return Outcome("diverged" if isinstance(error, Diverged) else "failed", str(error))
        except Exception:
            return Outcome("failed", traceback.format_exc())
        return Outcome("finished")


class _JobCallback(RunCallback):
    """Passes on how many epochs are done, and that time passes within one."""

    def __init__(self, job: Job, on_progress: ProgressCallback):
        self.job = job
        self.on_progress = on_progress

    def wrap_batches(self, epoch: int, batches: Batches, metrics: EpochMetrics) -> Batches:
        self.on_progress(self.job, epoch - 1)
        for batch in batches:
            yield batch
            self.on_progress(None, 0)

    def on_epoch_end(self, record: EpochRecord) -> None:
        self.on_progress(self.job, record.epoch)
