"""Comparison of runs: how their recipes and environments differ, and significance tests."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whit.errors import InputError
from whit.experiments import seed_group, statistics
from whit.experiments.seed_group import SAMPLE_KEYS, SeedGroup
from whit.experiments.statistics import SignificanceTest
from whit.recipes.recipe import sample_id
from whit.runs import layout
from whit.runs.differences import recipe_differences
from whit.runs.reader import RunRecord, read_run
from whit.system.display.html_tables import html_block, html_list, html_table
from whit.system.text_tables import text_table, wrap


@dataclass(frozen=True, repr=False)
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

    @property
    def notes(self) -> list[str]:
        """Which groups have runs with equal weights."""
        weights = [{_weights_digest(run) for run in group.runs} - {None} for group in self.groups]
        return [
            f"{self.groups[i].name} and {self.groups[j].name}: {len(weights[i] & weights[j])} of "
            "their runs have equal weights, as copies of a run have, and runs of equal recipe, "
            "seed and environment."
            for i, j in itertools.combinations(range(len(weights)), 2)
            if weights[i] & weights[j]
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": [group.to_json() for group in self.groups],
            "differences": {key: list(values) for key, values in self.differences},
            "evidence": [test.to_json() for test in self.evidence],
            "correction": self.correction,
            "notes": list(self.notes),
        }

    def table(self, width: int = 100) -> str:
        parts = [seed_group.seeds_table(self.groups, width)]
        if self.differences:
            head = ("differs in", *(group.name for group in self.groups))
            body = [(key, *values) for key, values in self.differences]
            parts.append(text_table([head, *body], "l" + "L" * len(self.groups), width))
        sentences = [*map(str, self.evidence), *filter(None, [self.correction])]
        sentences += [f"Note: {note}" for note in self.notes]
        parts += [wrap(sentence, width) for sentence in sentences]
        return "\n\n".join(parts)

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__  # the same at a prompt as printed

    def html(self) -> str:
        """Return the tables as a part of an HTML output."""
        parts = [seed_group.seeds_html(self.groups)]
        if self.differences:
            rows = [("differs in", *(group.name for group in self.groups))]
            rows += [(key, *values) for key, values in self.differences]
            if len(self.differences) < len(self.groups):
                rows = list(zip(*rows, strict=True))
            parts.append(html_table(rows[0], rows[1:], "L" * len(rows[0])))
        sentences = [*map(str, self.evidence), *filter(None, [self.correction]), *self.notes]
        return "".join([*parts, html_list(sentences)])

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
    """Compare run folders, or folders of runs, in which the runs of each recipe are one group.

    Raises InputError for folders without a finished run, for fewer than two groups, for a run that
    is given twice, and for runs evaluated on different images.
    """
    problems: list[str] = []
    groups: list[SeedGroup] = []
    names = [folder.name for folder in folders]
    for folder in folders:
        if not os.path.isdir(folder):
            kind = "not a folder" if os.path.lexists(folder) else "no such folder"
            problems.append(f"{folder}: {kind}. Give run folders, or folders of runs.")
            continue
        runs: list[RunRecord] = []
        excluded: list[str] = []
        try:
            paths = _find_runs(folder)
        except InputError as error:
            problems += error.problems
            continue
        for path in paths:
            try:
                runs.append(read_run(path))
            except InputError as error:
                excluded += error.problems
        judged = [run for run in runs if seed_group.is_judged(run)]
        if not judged:
            if paths != [folder] or not excluded:
                problems.append(
                    f"{folder}: it has no finished run that was evaluated on test or val."
                )
            problems += excluded
        else:
            name = folder.name if names.count(folder.name) == 1 else str(folder)
            prefix = "" if len(folders) == 1 else f"{name}/"
            remarks = [f"not counted: {problem}" for problem in excluded]
            groups += _group_by_recipe(name or str(folder), prefix, judged, runs, remarks)
    problems += _find_repeated(groups)
    if not problems and len(groups) < 2:
        problems.append(_describe_too_few(groups))
    if not problems:
        try:
            return compare(groups)
        except InputError as error:
            problems += error.problems
    raise InputError(problems)


def _find_runs(folder: Path) -> list[Path]:
    """Return the runs at or in a folder; without any, those in the folders in it, as of studies."""
    return layout.find_runs([folder]) or layout.find_runs(layout.list_folder(folder))


def _group_by_recipe(
    name: str,
    prefix: str,
    judged: Sequence[RunRecord],
    runs: Sequence[RunRecord],
    remarks: Sequence[str],
) -> list[SeedGroup]:
    """Return the runs of one folder as groups: `name`, or `prefix` and the recipe of each.

    `remarks` are about the folder, and go with its first group.
    """
    by_recipe: dict[str, list[RunRecord]] = {}
    for run in judged:
        by_recipe.setdefault(sample_id(run.recipe), []).append(run)
    recipe_names = [group[0].recipe.name for group in by_recipe.values()]
    groups: list[SeedGroup] = []
    for digest, same in by_recipe.items():
        recipe = same[0].recipe
        if len(by_recipe) > 1:
            unique_name = recipe.name if recipe_names.count(recipe.name) == 1 else digest
            name = f"{prefix}{unique_name}"
        diverged = [
            run for run in runs if run.state == "diverged" and sample_id(run.recipe) == digest
        ]
        unique, duplicates = _split_duplicates(same)
        diverged, diverged_duplicates = _split_duplicates(diverged)
        own_remarks = [*([] if groups else remarks), *weights_remark(unique)]
        groups.append(
            SeedGroup(
                name,
                tuple(unique),
                tuple(diverged),
                (*duplicates, *diverged_duplicates),
                tuple(own_remarks),
            )
        )
    return groups


def _describe_too_few(groups: Sequence[SeedGroup]) -> str:
    if not groups:
        return "compare needs two runs, or a folder of runs."
    (group,) = groups
    content = "one run" if len(group.runs) == 1 else f"{len(group.runs)} runs of one recipe"
    return f"{group.name}: {content}: give another run or folder to compare with."


def _find_repeated(groups: Sequence[SeedGroup]) -> list[str]:
    """Return a problem for each run folder that is in two groups, or in one of them twice."""
    paths = [run.path for group in groups for run in (*group.ended, *group.duplicates)]
    counts = Counter(os.path.realpath(path) for path in paths)
    repeated = [path for path, count in counts.items() if count > 1]
    return [
        f"{os.path.relpath(path)}: given {counts[path]} times, on its own or in a folder: a run is "
        "not compared with itself."
        for path in repeated
    ]


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


def _weights_digest(run: RunRecord) -> Any:
    return (run.result or {}).get("weights_sha256")


def seed_order(run: RunRecord) -> tuple[int, str]:
    """Sort by seed, unknown ones first, then by name."""
    return (-1 if run.seed is None else run.seed, run.path.name)


def _environment_differences(
    groups: Sequence[SeedGroup],
) -> list[tuple[str, tuple[str, ...]]]:
    rows = [(key, tuple(group.environment(key) for group in groups)) for key in SAMPLE_KEYS]
    return [(f"environment.{key}", values) for key, values in rows if len(set(values)) > 1]
