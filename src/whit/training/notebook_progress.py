"""Progress in a notebook: one output below the cell, updated in place."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from torch import Tensor

from whit.runs.reader import read_run
from whit.runs.result import EpochRecord, history_rows
from whit.system.display.html_tables import html_block, html_progress, html_table, html_text
from whit.system.display.jupyter import LiveOutput
from whit.training.callback import RunCallback, RunStatus
from whit.training.state import Batches, EpochMetrics

_MAX_EPOCHS = 20  # rows of the table; the result holds all


class NotebookReporter(RunCallback):
    """A bar within the epoch, and below it a table of the epochs that are done."""

    def __init__(self) -> None:
        self.output = LiveOutput()
        self.records: list[EpochRecord] = []
        self.messages: list[str] = []
        self.progress = ""  # HTML of the bar

    def on_start(self, subject: RunStatus) -> None:
        self.subject = subject
        self._update()

    def on_resume(self, subject: RunStatus, messages: Sequence[str]) -> None:
        self.records = list(read_run(subject.folder).log)
        self.messages = [*messages, f"Resuming {subject.folder} {subject.position}"]
        self.on_start(subject)

    def wrap_batches(
        self, epoch: int, batches: Batches, metrics: EpochMetrics
    ) -> Iterator[tuple[Tensor, Tensor]]:
        started, before = time.perf_counter(), metrics.total
        plan = self.subject.plan
        total, epochs = plan.images_per_epoch, plan.recipe.train.epochs
        num_batches, batch_size = plan.steps_per_epoch, plan.recipe.train.batch_size
        self._show_progress(0.0, f"epoch {epoch}/{epochs}")
        for batch in batches:
            yield batch
            if not self.output.is_due:
                continue
            rate = (metrics.total - before) / (time.perf_counter() - started)
            left = (total - metrics.total) / rate
            left_in_all = left + total * (epochs - epoch) / rate
            done = min(-(-metrics.total // batch_size), num_batches)
            text = (
                f"epoch {epoch}/{epochs}, batch {done:,}/{num_batches:,}: "
                f"loss {metrics.last_loss:.4f}, {rate:,.0f} images/s, {left:.0f} s left"
            )
            if epoch < epochs:
                text += f" of this epoch, {left_in_all:.0f} s in all"
            self._show_progress(metrics.total / total, text)

    def on_notice(self, message: str) -> None:
        self.messages.append(message)
        self._update()

    def on_evaluation(self, split: str, done: int, total: int) -> None:
        if not done or self.output.is_due:
            text = f"evaluating on {split}: {done:,} of {total:,} images"
            self._show_progress(done / total, text)

    def on_epoch_end(self, record: EpochRecord) -> None:
        self.records.append(record)
        epochs = self.subject.plan.recipe.train.epochs
        self._show_progress(1.0, f"epoch {record.epoch}/{epochs} done")

    def __exit__(self, *error: object) -> None:
        if not hasattr(self, "subject"):
            return
        self.progress = ""
        if error[1] is not None:
            self.messages.append(describe_end(error[1]))
        self._update()

    def _show_progress(self, fraction: float, text: str) -> None:
        self.progress = html_progress(fraction, text)
        self._update()

    def _update(self) -> None:
        subject = self.subject
        threads = f"{subject.threads} thread{'s' if subject.threads > 1 else ''}"
        evaluations = [str(e) for record in self.records[-1:] for e in record.evaluations]
        self.output.update(
            html_block(
                html_text(f"Training on {threads} into {subject.folder}"),
                self.progress,
                epochs_html(self.records),
                html_text("\n".join([*evaluations, *self.messages])),
                title=subject.plan.title,
            )
        )


def describe_end(error: object) -> str:
    """Return how the work ended early; the notebook shows the error itself below."""
    return f"Not finished: {type(error).__name__}."


def epochs_html(records: Sequence[EpochRecord]) -> str:
    """Return the last epochs as a table: losses, accuracies, learning rate and seconds."""
    if not records:
        return ""
    history = history_rows(records)
    splits = [key.removesuffix("_loss") for key in history[0] if key.endswith("_loss")]
    head = ["epoch"]
    for split in splits:
        name = "training" if split == "train" else split
        head += [f"{name} loss", f"{name} accuracy %"]
    rows = []
    for row in history[-_MAX_EPOCHS:]:
        cells = [str(row["epoch"])]
        for split in splits:
            loss, accuracy = row[f"{split}_loss"], row[f"{split}_accuracy"]
            cells.append("–" if loss is None else f"{loss:.4f}")
            cells.append("–" if accuracy is None else f"{accuracy:.2f}")
        rows.append([*cells, f"{row['lr']:.3g}", f"{row['seconds']:.1f}"])
    hidden = len(history) - len(rows)
    earlier = html_text(f"{hidden} earlier epochs: see .history of the result." if hidden else "")
    head += ["learning rate", "seconds"]
    return html_table(head, rows, "r" * len(head)) + earlier
