"""Progress: a bar or a live table on a terminal and in a notebook, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text
from torch import Tensor

from whit.runs.result import EpochRecord
from whit.system.console import warn
from whit.system.display.html_tables import html_block, html_list
from whit.system.display.jupyter import LiveOutput, in_notebook
from whit.system.numbers import percent
from whit.system.text_tables import wrap
from whit.training.callback import Callback, RunCallback, RunStatus, Subject
from whit.training.notebook_progress import NotebookReporter, describe_end
from whit.training.state import Batches, EpochMetrics

# Seconds between two updates; drawing the bar takes about a millisecond.
_BAR_REFRESH, _TABLE_REFRESH = 0.2, 0.5
_MAX_LINES = 12  # below a live table in a notebook


class Reporter(Callback[Subject]):
    """Base of the callbacks that print lines, for a run, a study or a search."""

    def __init__(self, console: Console):
        self.console = console

    def echo(self, text: str) -> None:
        """Print text, wrapped to the console's width."""
        self.console.out(wrap(text, self.console.width), highlight=False)

    def on_start(self, subject: Subject) -> None:
        self.subject = subject

    def on_resume(self, subject: Subject, messages: Sequence[str]) -> None:
        for message in messages:
            self.echo(message)
        self.on_start(subject)


class LiveTable(Reporter[Subject]):
    """Adds a live table below the lines; a subclass renders it."""

    def __init__(self, console: Console):
        super().__init__(console)
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.refreshed = time.monotonic()

    def render(self) -> str:
        """Return the table as it is now."""
        raise NotImplementedError

    def on_start(self, subject: Subject) -> None:
        super().on_start(subject)
        self.live.start()

    def on_progress(self) -> None:
        if time.monotonic() - self.refreshed > _TABLE_REFRESH:
            self.refreshed = time.monotonic()
            self.live.update(Text(self.render(), no_wrap=True), refresh=True)

    def __exit__(self, *error: object) -> None:
        self.live.stop()


class NotebookTable(Reporter[Subject]):
    """Keeps the lines of a study or search below a live table; a subclass renders it."""

    def __init__(self, console: Console):
        super().__init__(console)
        self.output = LiveOutput()
        self.lines: list[str] = []

    def render_html(self) -> str:
        """Return the table as it is now."""
        raise NotImplementedError

    def echo(self, text: str) -> None:
        self.lines.append(text)
        self._update()

    def on_start(self, subject: Subject) -> None:
        super().on_start(subject)
        self._update()

    def on_progress(self) -> None:
        if self.output.is_due:
            self._update()

    def __exit__(self, *error: object) -> None:
        if error[1] is not None:
            self.lines.append(describe_end(error[1]))
        self._update()

    def _update(self) -> None:
        if hasattr(self, "subject"):
            self.output.update(html_block(self.render_html(), html_list(self.lines[-_MAX_LINES:])))


class LineReporter(Reporter[RunStatus], RunCallback):
    """Plain lines: the layer table first, then one line per epoch, and its evaluations."""

    def on_start(self, subject: RunStatus) -> None:
        super().on_start(subject)
        self.console.out(subject.plan.table(self.console.width), highlight=False)
        threads = f"{subject.threads} thread{'s' if subject.threads > 1 else ''}"
        self.echo(f"\nTraining on {threads} into {subject.folder}\n")

    def on_resume(self, subject: RunStatus, messages: Sequence[str]) -> None:
        self.subject = subject
        for message in [*messages, f"Resuming {subject.folder} {subject.position}\n"]:
            self.echo(message)

    def on_notice(self, message: str) -> None:
        self.echo(message)

    def on_epoch_end(self, record: EpochRecord) -> None:
        text = (
            f"Epoch {record.epoch}/{self.subject.plan.recipe.train.epochs}: "
            f"loss {record.loss:.4f}, accuracy {percent(record.correct, record.total)}%, "
            f"lr {record.lr:.3g}, {record.seconds:.1f} s"
        )
        rate = f", {record.total / record.seconds:,.0f} images/s"
        # A narrow terminal has room for what is needed alone.
        self.echo(text + rate if len(text + rate) <= self.console.width else text)
        for evaluation in record.evaluations:
            self.echo(str(evaluation))


class BarReporter(LineReporter):
    """The same lines, with a bar under them: loss, batch, images per second and time left."""

    def __init__(self, console: Console):
        super().__init__(console)
        self._evaluation: Live | None = None  # while a split is evaluated
        self._refreshed = 0.0

    def wrap_batches(
        self, epoch: int, batches: Batches, metrics: EpochMetrics
    ) -> Iterator[tuple[Tensor, Tensor]]:
        is_narrow = self.console.width < 80
        progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=8 if is_narrow else 24),
            TextColumn("{task.percentage:>3.0f}% loss={task.fields[loss]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            auto_refresh=False,  # no second thread during training
            transient=True,
        )
        plan = self.subject.plan
        total, epochs = plan.images_per_epoch, plan.recipe.train.epochs
        task = progress.add_task(
            "", total=total, epoch=f"{epoch}/{epochs}", loss="-", rate="", left=""
        )
        started = refreshed = time.perf_counter()
        before = metrics.total  # of an epoch that is resumed in its middle
        with progress:
            for step, batch in enumerate(batches):
                yield batch
                now = time.perf_counter()
                if now - refreshed < _BAR_REFRESH:
                    continue
                refreshed = now
                rate = (metrics.total - before) / (now - started)
                left = (total - metrics.total) / rate
                progress.update(
                    task,
                    completed=metrics.total,
                    loss=f"{metrics.last_loss:.4f}",
                    rate=f"{rate:,.0f}/s" if is_narrow else f"batch {step} {rate:,.0f} images/s",
                    left=f"{left:.0f} s left",
                )
                progress.refresh()

    def on_evaluation(self, split: str, done: int, total: int) -> None:
        text = f"evaluating on {split}: {done:,} of {total:,} images"
        if self._evaluation is None:
            self._evaluation = Live(console=self.console, auto_refresh=False, transient=True)
            self._evaluation.start()
        elif time.perf_counter() - self._refreshed < _BAR_REFRESH and done < total:
            return
        self._refreshed = time.perf_counter()
        self._evaluation.update(Text(text, no_wrap=True), refresh=True)
        if done == total:
            self._end_evaluation()

    def __exit__(self, *error: object) -> None:
        self._end_evaluation()  # stopped within it

    def _end_evaluation(self) -> None:
        if self._evaluation is not None:
            self._evaluation.stop()
            self._evaluation = None


class WarningReporter(RunCallback):
    """Only warnings, on standard error, also with `--quiet`."""

    def on_resume(self, subject: RunStatus, messages: Sequence[str]) -> None:
        for message in messages:
            self.on_notice(message)

    def on_notice(self, message: str) -> None:
        warn(message)


def make_callback(console: Console, quiet: bool) -> RunCallback:
    """Return the reporter of a run: a bar on a terminal and in a notebook, lines elsewhere.

    When quiet it prints nothing but warnings.
    """
    if quiet:
        return WarningReporter()
    if in_notebook():
        return NotebookReporter()
    return BarReporter(console) if console.is_terminal else LineReporter(console)
