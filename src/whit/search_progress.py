"""What a person sees while a search goes on: the frontier as it grows, in a table and a picture."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from whit.findings import Search, SearchOnlooker
from whit.frontier_plot import plot_frontier
from whit.job import Outcome
from whit.text_table import wrapped
from whit.trials import Trial

# Seconds between two drawings of the table.
_REFRESH = 0.5


class SearchLines(SearchOnlooker):
    """A line for each candidate that comes to an end; the picture is drawn anew as it grows."""

    def __init__(self, console: Console, quiet: bool = False):
        self.console = console
        self.quiet = quiet
        self.search: Search | None = None
        self.wanted = 0
        self.drawn: list[tuple[int, int]] = []

    def begun(self, search: Search, wanted: int) -> None:
        self.search, self.wanted = search, wanted
        if search.trials:
            self.say(f"{len(search.trials)} candidates are there from before.")
        self._draw()

    def ended(self, what: str, outcome: Outcome, trial: Trial | None) -> None:
        assert self.search is not None
        said = f"{outcome.state}. {outcome.said}".rstrip()
        if trial:
            others = [
                f"{name} {trial.values[name]:,.6g}"
                for name in self.search.space.objectives
                if name != "accuracy"
            ]
            said = ", ".join([f"{trial.accuracy.values[-1]:.2f} % on val", *others])
            if any(best.number == trial.number for best in self.search.frontier):
                said += ", on the frontier"
        self.say(f"{what}: {said}")
        self._draw()

    def say(self, text: str) -> None:
        if not self.quiet:
            self.console.out(wrapped(text, self.console.width), highlight=False)

    def _draw(self) -> None:
        assert self.search is not None
        points = [(trial.number, len(trial.seeds.runs)) for trial in self.search.frontier]
        if points and points != self.drawn:
            self.drawn = points
            plot_frontier(self.search, self.search.folder / "frontier.svg")


class SearchTable(SearchLines):
    """The same lines above one live table of the frontier and of what is under way."""

    def __init__(self, console: Console):
        super().__init__(console)
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.looked = time.monotonic()

    def begun(self, search: Search, wanted: int) -> None:
        super().begun(search, wanted)
        self.live.start()

    def moved(self, running: dict[str, int]) -> None:
        if time.monotonic() - self.looked > _REFRESH:
            self.looked = time.monotonic()
            self.live.update(Text(self._table(running), no_wrap=True), refresh=True)

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def _table(self, running: dict[str, int]) -> str:
        assert self.search is not None
        search, width = self.search, self.console.width - 1
        counted = (
            f"{len(search.trials)} of {self.wanted} candidates trained, {search.given_up} given "
            f"up, {search.refused} refused"
        )
        names = [folder.split("/")[-2:] for folder in sorted(running)]
        under_way = [
            f"{trial} {seed}: epoch {running[folder]}"
            for folder, (trial, seed) in zip(sorted(running), names, strict=True)
        ]
        parts = [wrapped(counted, width)]
        if search.frontier:
            # The most that a usual terminal shows beside the lines above.
            rows = search.frontier_table(width).split("\n")
            parts.append("\n".join(rows[: max(8, self.console.height - 8)]))
        return "\n".join([*parts, wrapped(", ".join(under_way) or "-", width)])


def search_onlooker_on(console: Console, quiet: bool) -> SearchOnlooker:
    """Return who looks on at a search; the picture is drawn even when quiet."""
    if quiet or not console.is_terminal:
        return SearchLines(console, quiet)
    return SearchTable(console)
