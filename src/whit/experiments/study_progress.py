"""Progress of a study on a console: one live table on a terminal, lines elsewhere."""

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
from whit.system.numbers import percent
from whit.system.text_tables import text_table
from whit.training.progress import LiveTable, Reporter


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


class StudyTableReporter(StudyLineReporter, LiveTable[Sequence[StudyProgress]]):
    """The same lines above one live table: seeds done and running, and the remaining time."""

    def __init__(self, console: Console):
        super().__init__(console)
        self.started = time.monotonic()
        self.epochs_before = 0  # done by earlier studies

    def on_start(self, subject: Sequence[StudyProgress]) -> None:
        super().on_start(subject)
        self.epochs_before = self._epochs_done()

    def render(self) -> str:
        rows = [("recipe", "done", "mean %", "± sd", "running")]
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
        return f"{text_table(rows, 'LrrrL', self.console.width - 1)}\n{self._time_left()}"

    def _time_left(self) -> str:
        """Extrapolate from the epochs of this study itself."""
        elapsed, done = time.monotonic() - self.started, self._epochs_done()
        if done <= self.epochs_before:
            return f"{elapsed:.0f} s"
        total = sum(p.num_seeds * p.arm.recipe.train.epochs for p in self.subject)
        left = elapsed * (total - done) / (done - self.epochs_before)
        return f"{elapsed:.0f} s, about {left:.0f} s left"

    def _epochs_done(self) -> int:
        return sum(
            len(p.done) * p.arm.recipe.train.epochs + sum(p.running.values()) for p in self.subject
        )


def make_study_callback(console: Console, quiet: bool) -> StudyCallback:
    """Return the reporter of a study: a table on a terminal, lines elsewhere; none when quiet."""
    if quiet:
        return StudyCallback()
    return StudyTableReporter(console) if console.is_terminal else StudyLineReporter(console)
