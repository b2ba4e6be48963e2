"""What a person sees while a study goes on: one live table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from whit.budget import percent
from whit.errors import InputError
from whit.evidence import Sample
from whit.job import Outcome
from whit.run_record import read_run
from whit.seeds import Seeds, is_judged
from whit.studying import Onlooker, Standing, Variant
from whit.text_table import text_table, wrapped

# Seconds between two drawings of the table.
_REFRESH = 0.5


class StudyLines(Onlooker):
    """A line for each seed that comes to an end."""

    def __init__(self, console: Console):
        self.console = console
        self.standings: Sequence[Standing] = ()
        self.percents: dict[str, list[float]] = {}

    def begun(self, standings: Sequence[Standing]) -> None:
        self.standings = standings
        for standing in standings:
            for seed, state in standing.done.items():
                if state == "finished":
                    self._note(standing.variant, seed)
        there = sum(len(standing.done) for standing in standings)
        wanted = sum(standing.wanted for standing in standings)
        if there:
            self.say(f"{there} of {wanted} seeds have ended before.")

    def ended(self, variant: Variant, seed: int, outcome: Outcome) -> None:
        done = sum(len(standing.done) for standing in self.standings)
        wanted = sum(standing.wanted for standing in self.standings)
        said = f"{outcome.state}. {outcome.said}"
        if outcome.state == "finished":
            said = self._note(variant, seed)
        self.say(f"{variant.name}, seed {seed}: {said} ({done} of {wanted})")

    def say(self, text: str) -> None:
        self.console.out(wrapped(text, self.console.width), highlight=False)

    def _note(self, variant: Variant, seed: int) -> str:
        """Read a finished seed; return what it reached."""
        try:
            run = read_run(variant.run_folder(seed))
        except InputError as error:
            return str(error)
        if not is_judged(run):
            return f"no result in {run.path}."
        group = Seeds(variant.name, (run,))
        reading = group.last[0]
        self.percents.setdefault(variant.name, []).append(group.accuracy.mean)
        verdict = (run.result or {})["verdict"]
        return (
            f"{reading.correct}/{reading.total} ({percent(reading.correct, reading.total)}%) "
            f"on {group.split}, verdict {verdict}, {group.seconds:.1f} s"
        )


class StudyTable(StudyLines):
    """The same lines above one live table: what is done, what is under way, how long still."""

    def __init__(self, console: Console):
        super().__init__(console)
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.started = self.drawn = time.monotonic()
        self.before = 0  # epochs done by earlier studies

    def begun(self, standings: Sequence[Standing]) -> None:
        super().begun(standings)
        self.before = self._epochs_done()
        self.live.start()

    def moved(self) -> None:
        if time.monotonic() - self.drawn > _REFRESH:
            self.drawn = time.monotonic()
            self.live.update(Text(self._table(), no_wrap=True), refresh=True)

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def _table(self) -> str:
        rows = [("recipe", "done", "mean %", "± sd", "under way")]
        for standing in self.standings:
            epochs = standing.variant.recipe.train.epochs
            sample = Sample(tuple(self.percents.get(standing.variant.name, ())))
            running = sorted(standing.running.items())
            rows.append(
                (
                    standing.variant.name,
                    f"{len(standing.done)}/{standing.wanted}",
                    f"{sample.mean:.3f}" if sample.values else "-",
                    "-" if len(sample.values) < 2 else f"{sample.sd:.3f}",
                    ", ".join(f"seed {seed}: {done}/{epochs}" for seed, done in running) or "-",
                )
            )
        return f"{text_table(rows, 'LrrrL', self.console.width - 1)}\n{self._time_left()}"

    def _time_left(self) -> str:
        """Guess from the epochs that this study has done itself."""
        elapsed = time.monotonic() - self.started
        wanted = sum(s.wanted * s.variant.recipe.train.epochs for s in self.standings)
        there = self._epochs_done()
        if there <= self.before:
            return f"{elapsed:.0f} s"
        left = elapsed * (wanted - there) / (there - self.before)
        return f"{elapsed:.0f} s, about {left:.0f} s left"

    def _epochs_done(self) -> int:
        return sum(
            len(s.done) * s.variant.recipe.train.epochs + sum(s.running.values())
            for s in self.standings
        )


def onlooker_on(console: Console, quiet: bool) -> Onlooker:
    """Return who looks on at a study: nobody when quiet."""
    if quiet:
        return Onlooker()
    return StudyTable(console) if console.is_terminal else StudyLines(console)
