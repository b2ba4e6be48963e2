"""The result of a search, finished or running, and its callback."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from whit.experiments.search.space import OBJECTIVES, Space
from whit.experiments.search.trials import Trial, pareto_front
from whit.experiments.seed_group import compare_groups, note_lines
from whit.experiments.statistics import SignificanceTest, describe_correction
from whit.experiments.study import ExperimentCallback
from whit.runs.differences import recipe_differences
from whit.system.display.html_tables import html_block, html_list, html_table, html_text
from whit.system.text_tables import stacked_table, wrap


@dataclass
class SearchResult:
    """What a search has found so far, and what is running."""

    space: Space
    folder: Path
    trials: list[Trial] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    infeasible: int = 0  # suggestions that the plan rejected; they are no trials
    pruned: int = 0
    requested: int = 0  # trials in all
    exhausted: str = ""  # why there are fewer: a sentence
    excluded: list[str] = field(default_factory=list)  # why trials are not counted: edited, damaged
    messages: list[str] = field(default_factory=list)  # on what was repaired when it resumed
    running: dict[str, int] = field(default_factory=dict)  # run folder to epochs done

    @property
    def pareto_front(self) -> list[Trial]:
        return pareto_front(self.trials, self.space.objectives, self.space.min_accuracy)

    def evidence(self) -> tuple[SignificanceTest, ...]:
        """Compare each trial on the Pareto front with its cheaper neighbor."""
        return compare_groups([(a.seeds, b.seeds) for a, b in pairwise(self.pareto_front)])

    def to_json(self) -> dict[str, Any]:
        evidence = self.evidence()
        return {
            "name": self.space.name,
            "folder": str(self.folder),
            "objectives": list(self.space.objectives),
            "trials": len(self.trials),
            "infeasible": self.infeasible,
            "pruned": self.pruned,
            "exhausted": bool(self.exhausted),
            "pareto_front": [trial.to_json() for trial in self.pareto_front],
            "evidence": [test.to_json() for test in evidence],
            "correction": describe_correction(evidence),
            "failures": self.failures,
            "excluded": self.excluded,
            "repairs": self.messages,
        }

    def table(self, width: int = 100) -> str:
        evidence = self.evidence()
        parts = [
            wrap(f"{self.counts} Pareto front:", width),
            self.pareto_table(width),
            *self._differences_table(width),
        ]
        sentences = [*map(str, evidence), *filter(None, [describe_correction(evidence)])]
        parts += [wrap(sentence, width) for sentence in sentences]
        parts += note_lines((trial.seeds for trial in self.pareto_front), width)
        parts += [wrap(f"Not counted: {problem}", width) for problem in self.excluded]
        parts += [wrap(message, width) for message in (*self.messages, *self.failures)]
        parts.append(self._recipes)
        return "\n\n".join(parts)

    @property
    def counts(self) -> str:
        """How many trials there were, as a sentence."""
        return (
            f"{len(self.trials)} trials completed, {self.pruned} pruned, {self.infeasible} "
            f"suggestions infeasible. {self.exhausted}"
        ).rstrip()

    @property
    def _recipes(self) -> str:
        return f"Recipes: {self.folder}/trials/<trial>/recipe.toml"

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

    def _differences_table(self, width: int) -> list[str]:
        """Return a table of the keys in which the trials on the front differ; none for one."""
        rows = self._difference_rows()
        return [stacked_table(rows, "l" * len(rows[0]), width)] if rows else []

    def _differences_html(self) -> str:
        rows = self._difference_rows()
        return html_table(rows[0], rows[1:], "l" * len(rows[0])) if rows else ""

    def _difference_rows(self) -> list[tuple[str, ...]]:
        front = self.pareto_front
        differences = recipe_differences([trial.recipe for trial in front])
        columns = [("trial", *(trial.name for trial in front))]
        columns += [(key, *values) for key, values in differences]
        return list(zip(*columns, strict=True)) if differences else []

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        notes = note_lines((trial.seeds for trial in self.pareto_front), 10_000)
        tests = [str(test) for test in self.evidence()]
        problems = [*self.excluded, *self.messages, *self.failures]
        rest = [html_list([*tests, *notes, *problems]), html_text(self._recipes)]
        tables = [self.pareto_html(), self._differences_html()]
        return html_block(html_text(self.counts), *tables, *rest)


class SearchCallback(ExperimentCallback[SearchResult]):
    """Base of the callbacks of a search."""
