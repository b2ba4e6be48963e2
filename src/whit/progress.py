"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from whit.planning import Plan
from whit.record import EpochRecord
from whit.run import Watch
from whit.run_folder import RunFolder
from whit.state import Batches, Tally
from whit.text_table import wrapped

# Seconds between two looks of the bar; drawing it takes about a millisecond.
_REFRESH = 0.2


class Lines(Watch):
    """Plain lines: the layer table first, then one line an epoch, and its evaluations."""

    def __init__(self, console: Console):
        self.console = console
        self.epochs = 0

    def started(self, plan: Plan, folder: RunFolder) -> None:
        self.epochs = plan.recipe.train.epochs
        self.console.out(plan.table(self.console.width), highlight=False)
        threads = torch.get_num_threads()
        self.say(f"\nTraining on {threads} thread{'s' if threads > 1 else ''} into {folder.path}\n")

    def resumed(self, plan: Plan, folder: RunFolder, place: str, said: list[str]) -> None:
        self.epochs = plan.recipe.train.epochs
        for sentence in said:
            self.say(sentence)
        self.say(f"Resuming {folder.path} {place}\n")

    def trained(self, record: EpochRecord) -> None:
        rate = record.total / record.seconds
        self.say(
            f"Epoch {record.epoch}/{self.epochs}: loss {record.loss:.4f}, "
            f"{record.seconds:.1f} s, {rate:,.0f} images/s"
        )
        for evaluation in record.evaluations:
            self.say(str(evaluation))

    def say(self, text: str) -> None:
        self.console.out(wrapped(text, self.console.width), highlight=False)


class Bar(Lines):
    """The same lines, with a bar under them: loss, batch, images per second and time left."""

    def batches(self, epoch: int, batches: Batches, tally: Tally) -> Batches:
        narrow = self.console.width < 80
        progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=8 if narrow else 24),
            TextColumn("{task.percentage:>3.0f}% loss={task.fields[loss]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            auto_refresh=False,  # no second thread beside the training
            transient=True,
        )
        return self._shown(progress, epoch, batches, tally)

    def _shown(
        self, progress: Progress, epoch: int, batches: Batches, tally: Tally
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        size = getattr(self, "epoch_images", 0)
        narrow = self.console.width < 80
        task = progress.add_task(
            "", total=size, epoch=f"{epoch}/{self.epochs}", loss="-", rate="", left=""
        )
        started = looked = time.perf_counter()
        before = tally.total  # of an epoch that is resumed in its middle
        with progress:
            for step, batch in enumerate(batches):
                yield batch
                now = time.perf_counter()
                if now - looked < _REFRESH:
                    continue
                looked = now
                rate = (tally.total - before) / (now - started)
                left = (size - tally.total) / rate
                progress.update(
                    task,
                    completed=tally.total,
                    loss=f"{tally.last_loss:.4f}",
                    rate=f"{rate:,.0f}/s" if narrow else f"batch {step} {rate:,.0f} images/s",
                    left=f"{left:.0f} s left",
                )
                progress.refresh()

    def started(self, plan: Plan, folder: RunFolder) -> None:
        self.epoch_images = plan.num_train
        super().started(plan, folder)

    def resumed(self, plan: Plan, folder: RunFolder, place: str, said: list[str]) -> None:
        self.epoch_images = plan.num_train
        super().resumed(plan, folder, place, said)


class Warnings(Watch):
    """Nothing but what a person must know even when they asked for quiet, on standard error."""

    def resumed(self, plan: Plan, folder: RunFolder, place: str, said: list[str]) -> None:
        for sentence in said:
            print(f"whit: {sentence}", file=sys.stderr)


def watch_on(console: Console, quiet: bool) -> Watch:
    """Return who looks on: a bar on a terminal, lines elsewhere; warnings alone when quiet."""
    if quiet:
        return Warnings()
    return Bar(console) if console.is_terminal else Lines(console)
