"""What is saved of a run that goes on, and when: after each epoch, each half minute, at a stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor

from whit.checkpoint import (
    Checkpoint,
    encode,
    newest_checkpoint,
    set_aside,
    whole_checkpoints,
    write_checkpoint,
)
from whit.errors import CannotResume
from whit.models.weights import save_weights
from whit.planning import Plan
from whit.record import EpochRecord
from whit.run_folder import RunFolder
from whit.sameness import Change
from whit.state import Batches, Tally, TrainingState
from whit.stopping import Stopping

# Seconds of training that a killed run may have to do again.
_INTERVAL = 30.0
# Bytes of a checkpoint beside its tensors, so that a file of a stranger is not read at any size.
_MOST_HEADER, _MOST_OF_EPOCH = 1_000_000, 1_000


@dataclass
class Progress:
    """A run between two moments: the training state, and what is known of it so far."""

    state: TrainingState
    recipe_sha256: str
    epochs: int  # planned
    num_evaluated: int  # images of val and test, of which each may be noted as wrong
    records: list[EpochRecord] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)  # accepted when it was resumed
    elapsed: float = 0.0  # seconds in all, in processes before this one

    @property
    def threads(self) -> int | None:
        """Threads since they were last changed; None when they never were."""
        found = [change["now"] for change in self.changes if change["what"] == "threads"]
        return found[-1] if found else None

    def place(self, plan: Plan) -> str:
        """Return where training stands, such as `in epoch 3 of 5, after 12 of 235 batches`."""
        state, epochs = self.state, self.epochs
        if len(self.records) == epochs:
            return f"after the last of {epochs} epochs"
        if len(self.records) == state.epoch:
            return f"after epoch {state.epoch} of {epochs}"
        batches = f"{state.batches:,} of {plan.steps_per_epoch:,} batches"
        return f"in epoch {state.epoch} of {epochs}, after {batches}"

    def encoded(self, elapsed: float) -> bytes:
        """Return the content of a checkpoint."""
        tensors, facts = self.state.save()
        # Which images were wrong is needed of the last epoch alone, for the result.
        for place, reading in enumerate(self.records[-1].evaluations if self.records else ()):
            tensors[f"wrong.{place}"] = torch.tensor(reading.wrong, dtype=torch.int64)
        facts = {
            "recipe_sha256": self.recipe_sha256,
            "seed": self.state.seed,
            "state": facts,
            "records": [record.to_json() for record in self.records],
            "changes": self.changes,
            "elapsed": elapsed,
        }
        return encode(tensors, facts)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint. Raises CannotResume if it is another run's."""
        facts = checkpoint.facts
        try:
            if (facts["recipe_sha256"], facts["seed"]) != (self.recipe_sha256, self.state.seed):
                raise ValueError("it was written under another recipe.toml or another seed")
            self.state.restore(checkpoint.tensors, facts["state"])
            self.records = TypeAdapter(list[EpochRecord]).validate_python(facts["records"])
            self._put_wrong_back(checkpoint.tensors)
            self.changes = list(facts["changes"])
            self.elapsed = float(facts["elapsed"])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError) as error:
            raise CannotResume(
                f"{checkpoint.path}: not a state of this run: {error}. Put recipe.toml and the "
                "checkpoint folder back as they were, or train anew."
            ) from None
        if self.records and self.records[-1].epoch == self.state.epoch:
            self.state.end_epoch()

    @property
    def most_bytes(self) -> int:
        """What no checkpoint of this run is larger than."""
        besides = _MOST_HEADER + _MOST_OF_EPOCH * self.epochs + 8 * self.num_evaluated
        return 2 * self.state.num_bytes() + besides

    def _put_wrong_back(self, tensors: dict[str, Tensor]) -> None:
        if self.records:
            last = self.records[-1]
            readings = tuple(
                replace(reading, wrong=tuple(tensors[f"wrong.{place}"].tolist()))
                for place, reading in enumerate(last.evaluations)
            )
            self.records[-1] = replace(last, evaluations=readings)


class Keeper:
    """Saves a run's progress into its folder."""

    def __init__(self, folder: RunFolder, progress: Progress, stopping: Stopping, started: float):
        self.folder = folder
        self.progress = progress
        self.stopping = stopping
        self._started = started
        self._saved = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds in all, those of earlier processes included."""
        return self.progress.elapsed + time.perf_counter() - self._started

    def save(self) -> None:
        """Write a checkpoint. Raises RunFailed when it cannot be written."""
        content = self.progress.encoded(self.elapsed)
        with self.folder.writing("checkpoint", len(content)):
            write_checkpoint(self.folder.checkpoints, content)
        self._saved = time.perf_counter()

    def epoch_done(self, record: EpochRecord) -> None:
        """Keep an epoch: first in the checkpoint, which holds the log, then in the log."""
        self.progress.records.append(record)
        self.save()
        self.folder.append_log(record)

    def last_finite_weights(self) -> bytes:
        """Return the weights before the step that diverged.

        Where a step before it has already spoilt them, with gradients that were still finite,
        those of the newest checkpoint without infinities.
        """
        state = self.progress.state
        most = self.progress.most_bytes
        for checkpoint in [None, *whole_checkpoints(self.folder.checkpoints, most)]:
            if checkpoint:
                self.progress.restore(checkpoint)
            if state.is_finite():
                break
        return save_weights(state.model)

    def batches(
        self, watch: Callable[[int, Batches, Tally], Batches]
    ) -> Callable[[int, Batches, Tally], Batches]:
        """Wrap an epoch's batches: between two, stop if asked to, and save when it is time."""

        def kept(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
            with ExitStack() as at_the_end:
                if isinstance(batches, Generator):
                    at_the_end.callback(batches.close)  # a bar goes before a message comes
                for batch in batches:
                    self._between_steps()
                    yield batch
                self._between_steps()

        return lambda epoch, batches, tally: kept(watch(epoch, batches, tally))

    def _between_steps(self) -> None:
        self.stopping.check()
        if time.perf_counter() - self._saved > _INTERVAL:
            self.save()


def newest(folder: RunFolder, progress: Progress) -> tuple[Path | None, list[Path]]:
    """Put `progress` where the newest whole checkpoint says; changes nothing on the disk.

    Returns that checkpoint, or None when there is none and the run begins anew, and those that
    are damaged and passed over. Raises CannotResume for one of another run.
    """
    checkpoint, damaged = newest_checkpoint(folder.checkpoints, progress.most_bytes)
    if checkpoint:
        progress.restore(checkpoint)
    return checkpoint.path if checkpoint else None, damaged


def settle(folder: RunFolder, progress: Progress, damaged: list[Path]) -> None:
    """Set damaged checkpoints aside, and make the log say what `progress` does."""
    for path in damaged:
        with folder.writing("checkpoint"):
            set_aside(path)
    folder.rewrite_log(progress.records)
