"""The result of a search, finished or under way, and its callback."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from whit.experiments.search.space import OBJECTIVES, Space
from whit.experiments.search.trials import Trial, pareto_front
from whit.experiments.seed_group import compare_groups, note_lines
from whit.experiments.statistics import SignificanceTest
from whit.experiments.study import ExperimentCallback
from whit.system.display.html_tables import html_block, html_list, html_table, html_text
from whit.system.text_tables import stacked_table, wrap


@dataclass
class SearchResult:
    """What a search has found so far, and what is under way."""

    space: Space
    folder: Path
    trials: list[Trial] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    infeasible: int = 0  # candidates that the plan rejected
    pruned: int = 0
    requested: int = 0  # candidates in all
    running: dict[str, int] = field(default_factory=dict)  # run folder to epochs done

    @property
    def pareto_front(self) -> list[Trial]:
        return pareto_front(self.trials, self.space.objectives, self.space.min_accuracy)

    def evidence(self) -> list[SignificanceTest]:
        """Compare each point of the Pareto front with its cheaper neighbour."""
        return [compare_groups(a.seeds, b.seeds) for a, b in pairwise(self.pareto_front)]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.space.name,
            "folder": str(self.folder),
            "objectives": list(self.space.objectives),
            "trials": len(self.trials),
            "refused": self.infeasible,
            "given_up": self.pruned,
            "frontier": [trial.to_json() for trial in self.pareto_front],
            "evidence": [test.to_json() for test in self.evidence()],
            "failures": self.failures,
        }

    def table(self, width: int = 100) -> str:
        parts = [wrap(self.counts, width), self.pareto_table(width)]
        parts += [wrap(str(test), width) for test in self.evidence()]
        parts += note_lines((trial.seeds for trial in self.pareto_front), width)
        parts += [wrap(failure, width) for failure in self.failures]
        parts.append(self._recipes)
        return "\n\n".join(parts)

    @property
    def counts(self) -> str:
        """How many candidates there were, as a sentence."""
        return (
            f"{len(self.trials)} candidates trained, {self.pruned} given up early, "
            f"{self.infeasible} refused by the plan."
        )

    @property
    def _recipes(self) -> str:
        return f"Recipes of the frontier: {self.folder}/trials/<trial>/recipe.toml"

    def pareto_table(self, width: int) -> str:
        rows = self._pareto_rows()
        return stacked_table(rows, "l" + "r" * (len(rows[0]) - 1), width)

    def pareto_html(self) -> str:
        """Return the same table as HTML; nothing while no trial is on the front."""
        head, *rows = self._pareto_rows()
        return html_table(head, rows, "l" + "r" * (len(head) - 1)) if rows else ""

    def _pareto_rows(self) -> list[tuple[str, ...]]:
        columns = [name for name in OBJECTIVES if name not in ("accuracy", "macs")]
        if "macs" in self.space.objectives:
            columns.insert(1, "macs")
        rows: list[tuple[str, ...]] = [("trial", "seeds", "mean %", "± sd", *columns)]
        for trial in self.pareto_front:
            mean, sd = trial.seeds.accuracy.mean, trial.seeds.accuracy.sd
            accuracy = (f"{mean:.3f}", "-" if sd is None else f"{sd:.3f}")
            formats = (",.1f" if name == "seconds" else ",g" for name in columns)
            costs = map(format, (trial.values[name] for name in columns), formats)
            rows.append((trial.name, str(len(trial.seeds.runs)), *accuracy, *costs))
        return rows

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        notes = note_lines((trial.seeds for trial in self.pareto_front), 10_000)
        tests = [str(test) for test in self.evidence()]
        rest = [html_list([*tests, *notes, *self.failures]), html_text(self._recipes)]
        return html_block(html_text(self.counts), self.pareto_html(), *rest)


class SearchCallback(ExperimentCallback[SearchResult]):
    """Base of the callbacks of a search."""
