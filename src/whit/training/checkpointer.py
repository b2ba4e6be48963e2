"""Checkpoints of an unfinished run: after each epoch, every 30 seconds, and when it is stopped."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor

from whit.errors import IncompatibleResume
from whit.models.weights import save_weights, sha256
from whit.runs.compatibility import Change
from whit.runs.folder import RunFolder
from whit.runs.result import EpochRecord
from whit.system.signals import SignalHandler
from whit.training.callback import RunCallback
from whit.training.checkpoint import (
    Checkpoint,
    quarantine,
    serialize,
    valid_checkpoints,
    write_checkpoint,
)
from whit.training.hardware.threads import SharedCores
from whit.training.setup import RunSetup
from whit.training.state import Batches, EpochMetrics

# Seconds of training that a killed run may lose.
_SAVE_INTERVAL = 30.0
# Bytes of a checkpoint in addition to its tensors; larger files are not read.
_MAX_HEADER_BYTES, _MAX_EPOCH_BYTES = 1_000_000, 1_000


class ResumableState:
    """Everything needed to resume a run: the training state, the log, the accepted changes."""

    def __init__(self, setup: RunSetup, recipe: bytes):
        """Start a run; `recipe` is the content of recipe.toml."""
        self.setup = setup
        self.state = setup.state
        self.recipe_sha256 = sha256(recipe)
        self.epochs = setup.plan.recipe.train.epochs
        # Images of val and test, each of which may be misclassified.
        splits = setup.dataset.splits
        self.num_evaluated = sum(len(split) for split in splits if split.name != "train")
        self.records: list[EpochRecord] = []
        self.changes: list[Change] = []  # accepted when it was resumed
        self.elapsed = 0.0  # seconds, in processes before this one

    @property
    def threads(self) -> int | None:
        """Threads since they were last changed; None when they never were."""
        values = [change["now"] for change in self.changes if change["what"] == "threads"]
        return values[-1] if values else None

    def describe_position(self) -> str:
        """Return the position of training, such as `in epoch 3 of 5, after 12 of 235 batches`."""
        state, epochs = self.state, self.epochs
        if len(self.records) == epochs:
            return f"after the last of {epochs} epochs"
        if len(self.records) == state.epoch:
            return f"after epoch {state.epoch} of {epochs}"
        batches = f"{state.batches:,} of {self.setup.plan.steps_per_epoch:,} batches"
        return f"in epoch {state.epoch} of {epochs}, after {batches}"

    def to_bytes(self, elapsed: float) -> bytes:
        """Return the content of a checkpoint; `elapsed` counts seconds in all processes."""
        tensors, metadata = self.state.save()
        # The result needs misclassified images of the last epoch only.
        for index, evaluation in enumerate(self.records[-1].evaluations if self.records else ()):
            tensors[f"misclassified.{index}"] = torch.tensor(
                evaluation.misclassified, dtype=torch.int64
            )
        metadata = {
            "recipe_sha256": self.recipe_sha256,
            "seed": self.state.seed,
            "state": metadata,
            "records": [record.to_json() for record in self.records],
            "changes": self.changes,
            "elapsed": elapsed,
        }
        return serialize(tensors, metadata)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore a checkpoint. Raises IncompatibleResume if it belongs to another run."""
        metadata = checkpoint.metadata
        try:
            run = (metadata["recipe_sha256"], metadata["seed"])
            if run != (self.recipe_sha256, self.state.seed):
                raise ValueError("it was written with another recipe.toml or another seed")
            self.state.restore(checkpoint.tensors, metadata["state"])
            self.records = TypeAdapter(list[EpochRecord]).validate_python(metadata["records"])
            self._restore_misclassified(checkpoint.tensors)
            self.changes = [_check_change(change) for change in metadata["changes"]]
            self.elapsed = float(metadata["elapsed"])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError) as error:
            raise IncompatibleResume(
                f"{checkpoint.path}: not a checkpoint of this run: {error}. Restore recipe.toml "
                "and the checkpoint folder, or start a new run."
            ) from None
        if self.records and self.records[-1].epoch == self.state.epoch:
            self.state.end_epoch()

    @property
    def max_bytes(self) -> int:
        """An upper bound of the size of this run's checkpoints."""
        log = _MAX_HEADER_BYTES + _MAX_EPOCH_BYTES * self.epochs
        state = self.state.num_bytes(len(self.setup.dataset.train))
        return 2 * state + log + 8 * self.num_evaluated

    def _restore_misclassified(self, tensors: dict[str, Tensor]) -> None:
        if self.records:
            last = self.records[-1]
            evaluations = tuple(
                replace(evaluation, misclassified=tuple(tensors[f"misclassified.{index}"].tolist()))
                for index, evaluation in enumerate(last.evaluations)
            )
            self.records[-1] = replace(last, evaluations=evaluations)


class Checkpointer(RunCallback):
    """Saves a run into its folder, and passes the events of training on to another callback."""

    def __init__(
        self,
        resumable: ResumableState,
        folder: RunFolder,
        signals: SignalHandler,
        callback: RunCallback,
    ):
        self.resumable = resumable
        self.folder = folder
        self.signals = signals
        self.cores: SharedCores | None = None  # while it trains
        self._callback = callback
        self._saved = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Total seconds, those of earlier processes included."""
        return self.resumable.elapsed + time.perf_counter() - self.resumable.setup.started

    def save(self) -> None:
        """Write a checkpoint. Raises RunFailed when it cannot be written."""
        content = self.resumable.to_bytes(self.elapsed)
        with self.folder.writing("checkpoint", len(content)):
            write_checkpoint(self.folder.checkpoints, content)
        self._saved = time.perf_counter()

    def last_finite_weights(self) -> bytes:
        """Return the weights before the step that diverged.

        Where a step before it has already corrupted them, with gradients that were still finite,
        those of the newest checkpoint without infinities.
        """
        state, folder = self.resumable.state, self.folder.checkpoints
        for checkpoint in [None, *valid_checkpoints(folder, self.resumable.max_bytes)]:
            if checkpoint:
                self.resumable.restore(checkpoint)
            if state.is_finite():
                break
        return save_weights(state.model)

    def wrap_batches(
        self, epoch: int, batches: Batches, metrics: EpochMetrics
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Between two steps, stop on a signal, and save when it is due."""
        batches = self._callback.wrap_batches(epoch, batches, metrics)
        with ExitStack() as stack:
            if isinstance(batches, Generator):
                stack.callback(batches.close)  # so a bar is removed before an error is printed
            for batch in batches:
                self._between_steps()
                yield batch
            self._between_steps()

    def on_threads_changed(self, before: int, now: int) -> None:
        """Record that the number of threads changed with the load of the machine."""
        change = {"what": "threads", "before": before, "now": now, "by_load": True}
        self.resumable.changes.append({**change, "epoch": self.resumable.state.epoch})

    def on_notice(self, message: str) -> None:
        self._callback.on_notice(message)

    def on_evaluation(self, split: str, done: int, total: int) -> None:
        self._share_cores()
        self._callback.on_evaluation(split, done, total)

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Store an epoch: first in the checkpoint, which contains the log, then in the log."""
        self.resumable.records.append(record)
        self.save()
        self.folder.append_log(record)
        self._callback.on_epoch_end(record)

    def _share_cores(self) -> None:
        if self.cores is not None:
            self.cores.between_steps()

    def _between_steps(self) -> None:
        self.signals.check()
        self._share_cores()
        if time.perf_counter() - self._saved > _SAVE_INTERVAL:
            self.save()


def _check_change(change: Change) -> Change:
    """Return an accepted change of a checkpoint. Raises KeyError, TypeError or ValueError."""
    if not isinstance(change["what"], str) or type(change["epoch"]) is not int:
        raise ValueError("its list of accepted changes is damaged")
    return {**change, "before": change["before"], "now": change["now"]}


def reconcile_log(folder: RunFolder, resumable: ResumableState, damaged: list[Path]) -> None:
    """Quarantine damaged checkpoints, and make the log agree with `resumable`."""
    for path in damaged:
        with folder.writing("checkpoint"):
            quarantine(path)
    folder.rewrite_log(resumable.records)
