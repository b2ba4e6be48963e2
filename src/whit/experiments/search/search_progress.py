"""Progress of a search, in lines or a live table, and as a plot."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from whit.experiments.execution.job import Outcome
from whit.experiments.search.plot import plot_pareto_front
from whit.experiments.search.result import SearchCallback, SearchResult
from whit.system.display.html_tables import html_progress, html_text
from whit.system.display.jupyter import in_notebook
from whit.system.text_tables import wrap
from whit.training.progress import LiveTable, NotebookTable, Reporter


class SearchLineReporter(Reporter[SearchResult], SearchCallback):
    """A line for each run that ends, unless quiet; the plot is redrawn when the front changes."""

    def __init__(self, console: Console, quiet: bool = False):
        super().__init__(console)
        self.quiet = quiet
        self.plotted: list[tuple[int, int]] = []  # trial and number of its seeds

    def on_start(self, subject: SearchResult) -> None:
        super().on_start(subject)
        self._plot()

    def on_run_end(self, name: str, folder: Path, outcome: Outcome) -> None:
        search, number = self.subject, int(folder.parent.name)
        message = f"{outcome.state}. {outcome.message}".rstrip()
        trial = next((trial for trial in search.trials if trial.number == number), None)
        if outcome.state == "finished" and trial:
            costs = [f"{name} {trial.values[name]:,.6g}" for name in search.space.costs]
            message = ", ".join([f"{trial.seeds.accuracy.values[-1]:.2f} % on val", *costs])
            if trial in search.pareto_front:
                message += ", on the Pareto front"
        self.echo(f"{name}: {message}")
        self._plot()

    def echo(self, text: str) -> None:
        if not self.quiet:
            super().echo(text)

    def _plot(self) -> None:
        points = [(trial.number, len(trial.seeds.runs)) for trial in self.subject.pareto_front]
        if points and points != self.plotted:
            self.plotted = points
            plot_pareto_front(self.subject, self.subject.folder / "frontier.svg")


class SearchTable(SearchLineReporter):
    """The parts of a live table: counts, and what is running."""

    def counts(self) -> str:
        search = self.subject
        return (
            f"{len(search.trials)} of {search.requested} trials completed, {search.pruned} pruned, "
            f"{search.infeasible} infeasible"
        )

    def running(self) -> str:
        running = [
            f"{Path(folder).parent.name} {Path(folder).name}: epoch {epochs}"
            for folder, epochs in sorted(self.subject.running.items())
        ]
        return ", ".join(running) or "-"


class SearchTableReporter(SearchTable, LiveTable[SearchResult]):
    """The same lines above one live table of the Pareto front and of what is running."""

    def render(self) -> str:
        search, width = self.subject, self.console.width - 1
        parts = [wrap(self.counts(), width)]
        if search.pareto_front:
            # No more rows than fit on the terminal below the lines.
            rows = search.pareto_table(width).split("\n")
            parts.append("\n".join(rows[: max(8, self.console.height - 8)]))
        return "\n".join([*parts, wrap(self.running(), width)])


class SearchNotebookReporter(SearchTable, NotebookTable[SearchResult]):
    """The same table in a notebook, with a bar above it and the lines below."""

    def render_html(self) -> str:
        search = self.subject
        done = len(search.trials) + search.pruned
        return "".join(
            [
                html_progress(done / max(search.requested, 1), self.counts()),
                search.pareto_html(),
                html_text(f"Running: {self.running()}"),
            ]
        )


def make_search_callback(console: Console, quiet: bool) -> SearchCallback:
    """Return the reporter of a search; the plot is made even when quiet."""
    if not quiet and in_notebook():
        return SearchNotebookReporter(console)
    if quiet or not console.is_terminal:
        return SearchLineReporter(console, quiet)
    return SearchTableReporter(console)
