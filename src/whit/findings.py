"""What a search has found so far, as a value; and whoever looks on while it grows."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from whit.evidence import Difference
from whit.job import Outcome
from whit.seeds import weigh
from whit.space import OBJECTIVES, Space
from whit.text_table import folded_table, wrapped
from whit.trials import Trial, frontier


@dataclass
class Search:
    """What a search has found so far."""

    space: Space
    folder: Path
    trials: list[Trial] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    refused: int = 0
    given_up: int = 0

    @property
    def frontier(self) -> list[Trial]:
        return frontier(self.trials, self.space.objectives, self.space.min_accuracy)

    def evidence(self) -> list[Difference]:
        """Weigh each point of the frontier against its cheaper neighbour."""
        best = self.frontier
        return [weigh(a.seeds, b.seeds) for a, b in pairwise(best)]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.space.name,
            "folder": str(self.folder),
            "objectives": list(self.space.objectives),
            "trials": len(self.trials),
            "refused": self.refused,
            "given_up": self.given_up,
            "frontier": [trial.to_json() for trial in self.frontier],
            "evidence": [difference.to_json() for difference in self.evidence()],
            "failures": self.failures,
        }

    def table(self, width: int = 100) -> str:
        counted = (
            f"{len(self.trials)} candidates trained, {self.given_up} given up early, "
            f"{self.refused} refused by the plan."
        )
        parts = [wrapped(counted, width), self.frontier_table(width)]
        parts += [wrapped(str(difference), width) for difference in self.evidence()]
        parts += [
            wrapped(f"Note: {note}", width) for best in self.frontier for note in best.seeds.notes
        ]
        parts += [wrapped(failure, width) for failure in self.failures]
        parts.append(f"Recipes of the frontier: {self.folder}/trials/<trial>/recipe.toml")
        return "\n\n".join(parts)

    def frontier_table(self, width: int) -> str:
        others = [name for name in OBJECTIVES if name not in ("accuracy", "macs")]
        if "macs" in self.space.objectives:
            others.insert(1, "macs")
        rows: list[tuple[str, ...]] = [("trial", "seeds", "mean %", "± sd", *others)]
        for trial in self.frontier:
            sample = trial.accuracy
            rows.append(
                (
                    trial.name,
                    str(len(trial.seeds.runs)),
                    f"{sample.mean:.3f}",
                    "-" if sample.sd is None else f"{sample.sd:.3f}",
                    *(
                        f"{trial.values[name]:,.1f}"
                        if name == "seconds"
                        else f"{trial.values[name]:,g}"
                        for name in others
                    ),
                )
            )
        return folded_table(rows, "l" + "r" * (len(rows[0]) - 1), width)

    def __str__(self) -> str:
        return self.table()


class SearchOnlooker:
    """Somebody who looks on at a search, as a context; these do nothing."""

    def __enter__(self) -> SearchOnlooker:
        return self

    def __exit__(self, *error: object) -> None:
        """The search is over, one way or the other."""

    def begun(self, search: Search, wanted: int) -> None:
        """What there was already is in `search`, which is kept up to date."""

    def moved(self, running: dict[str, int]) -> None:
        """An epoch or a moment has passed; `running` has the epochs of what is under way."""

    def ended(self, what: str, outcome: Outcome, trial: Trial | None) -> None:
        """A run came to its end; `trial` is None when it has no accuracy."""
