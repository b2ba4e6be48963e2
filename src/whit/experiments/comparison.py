"""Runs side by side: what differs in their recipes, and the evidence for a difference."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whit.errors import InputError
from whit.experiments import seed_group
from whit.experiments.seed_group import SeedGroup
from whit.experiments.statistics import SignificanceTest
from whit.runs.reader import RunRecord, find_runs, read_run
from whit.system.display.html_tables import html_block, html_list, html_table
from whit.system.text_tables import text_table, wrap


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, where their recipes differ, and the evidence for each against the first."""

    groups: tuple[SeedGroup, ...]
    differences: tuple[tuple[str, tuple[str, ...]], ...]
    evidence: tuple[SignificanceTest, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": [group.to_json() for group in self.groups],
            "differences": {key: list(values) for key, values in self.differences},
            "evidence": [test.to_json() for test in self.evidence],
        }

    def table(self, width: int = 100) -> str:
        parts = [seed_group.seeds_table(self.groups, width)]
        if self.differences:
            head = ("recipe differs in", *(group.name for group in self.groups))
            body = [(key, *values) for key, values in self.differences]
            parts.append(text_table([head, *body], "l" + "L" * len(self.groups), width))
        parts += [wrap(str(test), width) for test in self.evidence]
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
    """Compare groups of runs. Raises InputError if they were not judged on the same images."""
    seed_group.require_same_split(groups)
    evidence = tuple(seed_group.compare_groups(groups[0], other) for other in groups[1:])
    return Comparison(tuple(groups), _differences(groups), evidence)


def compare_runs(folders: list[Path]) -> Comparison:
    """Compare two or more run folders, or folders that hold runs of one recipe each.

    Raises InputError for folders without a finished run, with runs of several recipes, and for
    runs judged on different images.
    """
    problems, groups = [], []
    if len(folders) < 2:
        problems.append("compare needs two run folders or more.")
    names = [folder.name for folder in folders]
    for folder in folders:
        if not os.path.isdir(folder):
            problems.append(f"{folder}: no such folder.")
            continue
        try:
            runs = [read_run(path) for path in find_runs([folder])]
        except InputError as error:
            problems += error.problems
            continue
        judged = [run for run in runs if seed_group.is_judged(run)]
        recipes = sorted({run.recipe.to_toml(): run.recipe.name for run in judged}.values())
        if not judged:
            problems.append(f"{folder}: no finished run in it that read the test or val split.")
        elif len(recipes) > 1:
            problems.append(
                f"{folder}: runs of {len(recipes)} recipes ({', '.join(recipes)}): "
                "name the run folders one by one."
            )
        else:
            name = folder.name if names.count(folder.name) == 1 else str(folder)
            recipe = judged[0].recipe
            diverged = [run for run in runs if run.state == "diverged" and run.recipe == recipe]
            unique, duplicates = _split_duplicates(judged)
            diverged, diverged_duplicates = _split_duplicates(diverged)
            runs_by_kind = (unique, diverged, duplicates + diverged_duplicates)
            groups.append(SeedGroup(name or str(folder), *map(tuple, runs_by_kind)))
    if not problems:
        try:
            return compare(groups)
        except InputError as error:
            problems += error.problems
    raise InputError(problems)


def _split_duplicates(runs: list[RunRecord]) -> tuple[list[RunRecord], list[RunRecord]]:
    """Return the first run of each seed, in their order, and the duplicates.

    The same seed again is no further evidence, though it may look like a sample without spread.
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
    """By seed, as far as it is known, then by name."""
    return (-1 if run.seed is None else run.seed, run.path.name)


def _differences(groups: list[SeedGroup]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    ignored = {"name", "description"}
    recipes = [_flatten(group.runs[0].recipe.model_dump(exclude=ignored)) for group in groups]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    rows = ((key, tuple(str(recipe.get(key, "-")) for recipe in recipes)) for key in keys)
    return tuple((key, values) for key, values in rows if len(set(values)) > 1)


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
