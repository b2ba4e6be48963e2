"""Runs side by side: what differs in their recipes, and the evidence for a difference."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whit.errors import InputError
from whit.experiments.seed_group import (
    SeedGroup,
    compare_groups,
    is_judged,
    require_same_split,
    seeds_table,
)
from whit.experiments.statistics import SignificanceTest
from whit.runs.reader import RunRecord, find_runs, read_run
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
            "evidence": [difference.to_json() for difference in self.evidence],
        }

    def table(self, width: int = 100) -> str:
        parts = [seeds_table(self.groups, width)]
        if self.differences:
            head = ("recipe differs in", *(group.name for group in self.groups))
            body = [(key, *values) for key, values in self.differences]
            parts.append(text_table([head, *body], "l" + "L" * len(self.groups), width))
        parts += [wrap(str(difference), width) for difference in self.evidence]
        return "\n\n".join(parts)

    def __str__(self) -> str:
        return self.table()


def compare(groups: list[SeedGroup]) -> Comparison:
    """Compare groups of runs. Raises InputError if they were not judged on the same images."""
    require_same_split(groups)
    evidence = tuple(compare_groups(groups[0], other) for other in groups[1:])
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
        judged = [run for run in runs if is_judged(run)]
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
            once, again = _split_duplicates(judged)
            diverged_once, diverged_again = _split_duplicates(diverged)
            groups.append(
                SeedGroup(name or str(folder), once, diverged_once, again + diverged_again)
            )
    if not problems:
        try:
            return compare(groups)
        except InputError as error:
            problems += error.problems
    raise InputError(problems)


def _split_duplicates(
    runs: list[RunRecord],
) -> tuple[tuple[RunRecord, ...], tuple[RunRecord, ...]]:
    """Return the first run of each seed, in their order, and those of a seed that was there.

    The same seed again is no further evidence, though it may look like a sample without spread.
    """
    seen: set[int] = set()
    once: list[RunRecord] = []
    again: list[RunRecord] = []
    for run in sorted(runs, key=seed_order):
        (again if run.seed in seen else once).append(run)
        if run.seed is not None:
            seen.add(run.seed)
    return tuple(once), tuple(again)


def seed_order(run: RunRecord) -> tuple[int, str]:
    """By seed, as far as it is known, then by name."""
    return (-1 if run.seed is None else run.seed, run.path.name)


def _differences(groups: list[SeedGroup]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    flat = [_flat(group.runs[0].recipe.model_dump()) for group in groups]
    keys = dict.fromkeys(key for recipe in flat for key in recipe)
    skipped = ("name", "description")
    rows = []
    for key in keys:
        values = tuple(str(recipe.get(key, "-")) for recipe in flat)
        if key not in skipped and len(set(values)) > 1:
            rows.append((key, values))
    return tuple(rows)


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
