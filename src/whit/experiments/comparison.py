"""Comparison of runs: how their recipes and environments differ, and significance tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whit.errors import InputError
from whit.experiments import seed_group, statistics
from whit.experiments.seed_group import SAMPLE_KEYS, SeedGroup
from whit.experiments.statistics import SignificanceTest
from whit.runs import layout
from whit.runs.differences import recipe_differences
from whit.runs.reader import RunRecord, read_run
from whit.system.display.html_tables import html_block, html_list, html_table
from whit.system.text_tables import text_table, wrap


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, what differs between them, and the test of each against the first.

    `differences` are keys of the recipe, or of the environment as `environment.<key>`, with the
    value of each group.
    """

    groups: tuple[SeedGroup, ...]
    differences: tuple[tuple[str, tuple[str, ...]], ...]
    evidence: tuple[SignificanceTest, ...]

    @property
    def correction(self) -> str | None:
        """One sentence about the correction for multiple comparisons, where there is one."""
        return statistics.describe_correction(self.evidence)

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": [group.to_json() for group in self.groups],
            "differences": {key: list(values) for key, values in self.differences},
            "evidence": [test.to_json() for test in self.evidence],
            "correction": self.correction,
        }

    def table(self, width: int = 100) -> str:
        parts = [seed_group.seeds_table(self.groups, width)]
        if self.differences:
            head = ("differs in", *(group.name for group in self.groups))
            body = [(key, *values) for key, values in self.differences]
            parts.append(text_table([head, *body], "l" + "L" * len(self.groups), width))
        sentences = [*map(str, self.evidence), *filter(None, [self.correction])]
        parts += [wrap(sentence, width) for sentence in sentences]
        return "\n\n".join(parts)

    def __str__(self) -> str:
        return self.table()

    def html(self) -> str:
        """Return the tables as a part of an HTML output."""
        parts = [seed_group.seeds_html(self.groups)]
        if self.differences:
            rows = [("recipe differs in", *(group.name for group in self.groups))]
            rows += [(key, *values) for key, values in self.differences]
            if len(self.differences) < len(self.groups):
                rows = list(zip(*rows, strict=True))
            parts.append(html_table(rows[0], rows[1:], "L" * len(rows[0])))
        return "".join([*parts, html_list([str(test) for test in self.evidence])])

    def _repr_html_(self) -> str:
        return html_block(self.html())


def compare(groups: list[SeedGroup]) -> Comparison:
    """Compare groups of runs. Raises InputError if they were evaluated on different images."""
    seed_group.require_same_split(groups)
    evidence = seed_group.compare_groups([(groups[0], other) for other in groups[1:]])
    recipes = [group.runs[0].recipe for group in groups]
    differences = (*recipe_differences(recipes), *_environment_differences(groups))
    return Comparison(tuple(groups), differences, evidence)


def compare_runs(folders: list[Path]) -> Comparison:
    """Compare two or more run folders, or folders that hold runs of one recipe each.

    Raises InputError for folders without a finished run, with runs of several recipes, and for
    runs evaluated on different images.
    """
    problems, groups = [], []
    if len(folders) < 2:
        problems.append("compare needs two or more run folders.")
    names = [folder.name for folder in folders]
    for folder in folders:
        if not os.path.isdir(folder):
            problems.append(f"{folder}: no such folder.")
            continue
        runs: list[RunRecord] = []
        excluded: list[str] = []
        try:
            paths = layout.find_runs([folder])
        except InputError as error:
            problems += error.problems
            continue
        for path in paths:
            try:
                runs.append(read_run(path))
            except InputError as error:
                excluded += error.problems
        judged = [run for run in runs if seed_group.is_judged(run)]
        recipes = sorted({run.recipe.to_toml(): run.recipe.name for run in judged}.values())
        if not judged:
            if paths != [folder] or not excluded:
                problems.append(
                    f"{folder}: it has no finished run that was evaluated on test or val."
                )
            problems += excluded
        elif len(recipes) > 1:
            problems.append(
                f"{folder}: it has runs of {len(recipes)} recipes ({', '.join(recipes)}): "
                "list the run folders one by one."
            )
        else:
            name = folder.name if names.count(folder.name) == 1 else str(folder)
            recipe = judged[0].recipe
            diverged = [run for run in runs if run.state == "diverged" and run.recipe == recipe]
            unique, duplicates = _split_duplicates(judged)
            diverged, diverged_duplicates = _split_duplicates(diverged)
            remarks = [f"not counted: {problem}" for problem in excluded]
            remarks += weights_remark(unique)
            groups.append(
                SeedGroup(
                    name or str(folder),
                    tuple(unique),
                    tuple(diverged),
                    (*duplicates, *diverged_duplicates),
                    tuple(remarks),
                )
            )
    if not problems:
        try:
            return compare(groups)
        except InputError as error:
            problems += error.problems
    raise InputError(problems)


def weights_remark(runs: Sequence[RunRecord]) -> list[str]:
    """Return a sentence about finished runs whose weights were removed; none without such runs."""
    count = sum(not os.path.lexists(run.path / layout.WEIGHTS) for run in runs)
    without = f"{count} of {len(runs)} runs {'has' if count == 1 else 'have'} no {layout.WEIGHTS}"
    return [f"{without}: the result cannot be recomputed."] if count else []


def _split_duplicates(runs: list[RunRecord]) -> tuple[list[RunRecord], list[RunRecord]]:
    """Return the first run of each seed, in their order, and the duplicates.

    A copy of a run adds no evidence, but would look like a sample without variance.
    """
    seen: set[int] = set()
    unique: list[RunRecord] = []
    duplicates: list[RunRecord] = []
    for run in sorted(runs, key=seed_order):
        (duplicates if run.seed in seen else unique).append(run)
        if run.seed is not None:
            seen.add(run.seed)
    return unique, duplicates


def seed_order(run: RunRecord) -> tuple[int, str]:
    """Sort by seed, unknown ones first, then by name."""
    return (-1 if run.seed is None else run.seed, run.path.name)


def _environment_differences(
    groups: Sequence[SeedGroup],
) -> list[tuple[str, tuple[str, ...]]]:
    rows = [(key, tuple(group.environment(key) for group in groups)) for key in SAMPLE_KEYS]
    return [(f"environment.{key}", values) for key, values in rows if len(set(values)) > 1]
