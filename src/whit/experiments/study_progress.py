"""Progress of a study: one live table on a terminal and in a notebook, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from whit.errors import InputError
from whit.experiments.execution.job import Outcome
from whit.experiments.seed_group import SeedGroup, is_judged
from whit.experiments.statistics import SampleStats
from whit.experiments.study import StudyCallback, StudyProgress
from whit.runs.reader import read_run
from whit.system.display.html_tables import html_progress, html_table
from whit.system.display.jupyter import in_notebook
from whit.system.numbers import percent
from whit.system.text_tables import text_table
from whit.training.progress import LiveTable, NotebookTable, Reporter


class StudyLineReporter(Reporter[Sequence[StudyProgress]], StudyCallback):
    """A line for each seed that ends."""

    def __init__(self, console: Console):
        super().__init__(console)
        self.percents: dict[Path, list[float]] = {}  # by the folder of a recipe's seeds

    def on_start(self, subject: Sequence[StudyProgress]) -> None:
        for progress in subject:
            for seed, state in progress.done.items():
                if state == "finished":
                    self._read_seed(progress.arm.run_folder(seed))
        super().on_start(subject)

    def on_run_end(self, name: str, folder: Path, outcome: Outcome) -> None:
        num_done = sum(len(progress.done) for progress in self.subject)
        num_runs = sum(progress.num_seeds for progress in self.subject)
        is_finished = outcome.state == "finished"
        message = self._read_seed(folder) if is_finished else f"{outcome.state}. {outcome.message}"
        self.echo(f"{name}: {message} ({num_done} of {num_runs})")

    def _read_seed(self, folder: Path) -> str:
        """Read the run of a finished seed; return its accuracy and verdict as text."""
        try:
            run = read_run(folder)
        except InputError as error:
            return str(error)
        if not is_judged(run):
            return f"no result in {run.path}."
        group = SeedGroup(folder.name, (run,))
        last = group.last[0]
        self.percents.setdefault(folder.parent, []).append(group.accuracy.mean)
        verdict = (run.result or {})["verdict"]
        return (
            f"{last.correct}/{last.total} ({percent(last.correct, last.total)}%) "
            f"on {group.split}, verdict {verdict}, {group.seconds:.1f} s"
        )


class StudyTable(StudyLineReporter):
    """The rows of a live table: seeds done and running, and the remaining time."""

    def __init__(self, console: Console):
        super().__init__(console)
        self.started = time.monotonic()
        self.epochs_before = 0  # done by earlier studies

    def on_start(self, subject: Sequence[StudyProgress]) -> None:
        self.epochs_before = _epochs_done(subject)
        super().on_start(subject)

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells of the table, the header first."""
        rows: list[tuple[str, ...]] = [("recipe", "done", "mean %", "± sd", "running")]
        for progress in self.subject:
            arm = progress.arm
            sample = SampleStats(tuple(self.percents.get(arm.folder, ())))
            running = [
                f"seed {seed}: {epochs}/{arm.recipe.train.epochs}"
                for seed, epochs in sorted(progress.running.items())
            ]
            done = f"{len(progress.done)}/{progress.num_seeds}"
            mean = f"{sample.mean:.3f}" if sample.values else "-"
            sd = "-" if len(sample.values) < 2 else f"{sample.sd:.3f}"
            rows.append((arm.name, done, mean, sd, ", ".join(running) or "-"))
        return rows

    @property
    def fraction_done(self) -> float:
        """The share of all epochs that are done."""
        return _epochs_done(self.subject) / self._num_epochs

    @property
    def _num_epochs(self) -> int:
        return sum(p.num_seeds * p.arm.recipe.train.epochs for p in self.subject)

    def time_left(self) -> str:
        """Extrapolate from the epochs of this study itself."""
        elapsed, done = time.monotonic() - self.started, _epochs_done(self.subject)
        if done <= self.epochs_before or done >= self._num_epochs:
            return f"{elapsed:.0f} s"
        left = elapsed * (self._num_epochs - done) / (done - self.epochs_before)
        return f"{elapsed:.0f} s, about {left:.0f} s left"


class StudyTableReporter(StudyTable, LiveTable[Sequence[StudyProgress]]):
    """A line for each seed that ends, above one live table."""

    def render(self) -> str:
        return f"{text_table(self.rows(), 'LrrrL', self.console.width - 1)}\n{self.time_left()}"


class StudyNotebookReporter(StudyTable, NotebookTable[Sequence[StudyProgress]]):
    """The same table in a notebook, with a bar above it and the lines below."""

    def render_html(self) -> str:
        head, *rows = self.rows()
        num_done = sum(len(progress.done) for progress in self.subject)
        num_runs = sum(progress.num_seeds for progress in self.subject)
        text = f"{num_done} of {num_runs} seeds ended, {self.time_left()}"
        return html_progress(self.fraction_done, text) + html_table(head, rows, "LrrrL")


def _epochs_done(subject: Sequence[StudyProgress]) -> int:
    return sum(len(p.done) * p.arm.recipe.train.epochs + sum(p.running.values()) for p in subject)


def make_study_callback(console: Console, quiet: bool) -> StudyCallback:
    """Return the reporter of a study: a live table or, where there is none, lines.

    When quiet it reports nothing.
    """
    if quiet:
        return StudyCallback()
    if in_notebook():
        return StudyNotebookReporter(console)
    return StudyTableReporter(console) if console.is_terminal else StudyLineReporter(console)
