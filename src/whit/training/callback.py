"""Callbacks: one protocol for the events of runs, studies and searches.

`on_start` or `on_resume` comes first, and names the subject; `on_epoch_end` follows each epoch of
a run, `on_progress` and `on_run_end` those of a study or search. An exception that a callback
raises ends the work like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

from whit.runs.result import EpochRecord
from whit.training.plan import Plan
from whit.training.state import Batches, EpochMetrics

Subject = TypeVar("Subject")


class Callback(Generic[Subject]):
    """Base of all callbacks, as a context around the work; every event does nothing.

    The subject is a run, a study or a search, and is updated as the work proceeds.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """The work is over, finished or not."""

    def on_start(self, subject: Subject) -> None:
        """The work starts from its beginning."""

    def on_resume(self, subject: Subject, messages: Sequence[str]) -> None:
        """The work resumes; `messages` are sentences about what was found and changed."""


@dataclass(frozen=True)
class RunStatus:
    """A run whose data is loaded and whose folder exists."""

    plan: Plan
    folder: Path
    threads: int
    position: str  # such as "in epoch 3 of 5, after 12 of 235 batches"


class RunCallback(Callback[RunStatus]):
    """Base of the callbacks of a run."""

    def on_notice(self, message: str) -> None:
        """A sentence about the machine: other programs slow the run down."""

    def wrap_batches(self, epoch: int, batches: Batches, metrics: EpochMetrics) -> Batches:
        """Wrap an epoch's batches; `metrics` has the running sums of the epoch."""
        return batches

    def on_evaluation(self, split: str, done: int, total: int) -> None:
        """`done` of the `total` images of a split are evaluated; called with 0 at first."""

    def on_epoch_end(self, record: EpochRecord) -> None:
        """An epoch is over, and evaluated if the recipe has that."""
