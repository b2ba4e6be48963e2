"""Runs side by side, with the evidence for a difference between them."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from whit.errors import InputError
from whit.run_record import RunRecord, find_runs, read_run
from whit.text_table import text_table, wrapped

# Above this many ways to deal the seeds out, a fixed random sample of them is taken.
_MOST_DEALS = 20_000


@dataclass(frozen=True)
class Group:
    """Finished runs of one kind: one run folder, or every run of a folder."""

    name: str
    runs: tuple[RunRecord, ...]

    @property
    def correct(self) -> list[int]:
        return [(run.result or {})["test"]["correct"] for run in self.runs]

    @property
    def total(self) -> int:
        total: int = (self.runs[0].result or {})["test"]["total"]
        return total

    @property
    def percents(self) -> list[float]:
        return [100 * correct / self.total for correct in self.correct]


@dataclass(frozen=True)
class Evidence:
    """What speaks for a difference between two groups.

    `difference` is b - a in points of accuracy; `p_value` is how often chance alone would give
    one at least as large, by `method`.
    """

    a: str
    b: str
    difference: float
    p_value: float
    method: str

    def __str__(self) -> str:
        strength = (
            "strong evidence"
            if self.p_value < 0.01
            else "some evidence"
            if self.p_value < 0.05
            else "no evidence"
        )
        return (
            f"{self.b} against {self.a}: {self.difference:+.3f} points, "
            f"p = {self.p_value:.3g} ({self.method}): {strength} of a difference."
        )


@dataclass(frozen=True)
class Comparison:
    """Groups, where their recipes differ, and the evidence for each against the first."""

    groups: tuple[Group, ...]
    differences: tuple[tuple[str, tuple[str, ...]], ...]
    evidence: tuple[Evidence, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": [
                {
                    "name": group.name,
                    "seeds": len(group.runs),
                    "params": (group.runs[0].result or {})["params"],
                    "epochs": (group.runs[0].result or {})["epochs"],
                    "accuracy": mean(group.percents),
                    "spread": stdev(group.percents) if len(group.runs) > 1 else None,
                    "correct": group.correct,
                    "total": group.total,
                }
                for group in self.groups
            ],
            "differences": {key: list(values) for key, values in self.differences},
            "evidence": [vars(evidence) for evidence in self.evidence],
        }

    def table(self, width: int = 100) -> str:
        rows = [("run", "seeds", "params", "epochs", "mean %", "± sd", "seconds")]
        for group in self.groups:
            result = group.runs[0].result or {}
            seconds = mean((run.result or {})["seconds"]["total"] for run in group.runs)
            rows.append(
                (
                    group.name,
                    str(len(group.runs)),
                    f"{result['params']:,}",
                    f"{result['epochs']:g}",
                    f"{mean(group.percents):.3f}",
                    f"{stdev(group.percents):.3f}" if len(group.runs) > 1 else "-",
                    f"{seconds:.1f}",
                )
            )
        parts = [text_table(rows, "Lrrrrrr", width)]
        if self.differences:
            head = ("recipe differs in", *(group.name for group in self.groups))
            body = [(key, *values) for key, values in self.differences]
            parts.append(text_table([head, *body], "l" + "L" * len(self.groups), width))
        parts += [wrapped(str(evidence), width) for evidence in self.evidence]
        return "\n\n".join(parts)

    def __str__(self) -> str:
        return self.table()


def compare_runs(folders: list[Path]) -> Comparison:
    """Compare two or more run folders, or folders that hold runs of one recipe each.

    Raises InputError for folders without a finished run, with runs of several recipes, and for
    runs judged on different tests.
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
        judged = [
            run
            for run in runs
            if run.state == "finished" and (run.result or {})["test"]["correct"] is not None
        ]
        recipes = sorted({run.recipe.to_toml(): run.recipe.name for run in judged}.values())
        if not judged:
            problems.append(f"{folder}: no finished run in it that read the test split.")
        elif len(recipes) > 1:
            problems.append(
                f"{folder}: runs of {len(recipes)} recipes ({', '.join(recipes)}): "
                "name the run folders one by one."
            )
        else:
            name = folder.name if names.count(folder.name) == 1 else str(folder)
            groups.append(Group(name or str(folder), tuple(judged)))
    tests = {
        (run.recipe.data.name, (run.result or {})["test"]["total"])
        for group in groups
        for run in group.runs
    }
    if len(tests) > 1:
        problems.append(
            "the runs were judged on different test splits: "
            + ", ".join(f"{name} ({total} images)" for name, total in sorted(tests))
            + "."
        )
    if problems:
        raise InputError(problems)
    first = groups[0]
    evidence = tuple(weigh(first, other) for other in groups[1:])
    return Comparison(tuple(groups), _differences(groups), evidence)


def weigh(a: Group, b: Group) -> Evidence:
    """Weigh the evidence that `b` differs from `a`.

    Two single runs: McNemar's exact test on the images that only one of them got right (Biometrika
    1947). Several seeds on a side: a permutation test on the mean accuracies.
    """
    difference = mean(b.percents) - mean(a.percents)
    if len(a.runs) == len(b.runs) == 1:
        wrong_a, wrong_b = (set((g.runs[0].result or {})["test"]["wrong"]) for g in (a, b))
        only_a, only_b = len(wrong_a - wrong_b), len(wrong_b - wrong_a)
        method = f"McNemar, exact, on {only_a + only_b} images; one seed each"
        return Evidence(a.name, b.name, difference, mcnemar(only_a, only_b), method)
    p_value = permutation_p(a.percents, b.percents)
    method = f"permutation of {len(a.runs)} and {len(b.runs)} seeds"
    return Evidence(a.name, b.name, difference, p_value, method)


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p-value for `only_a` against `only_b` discordant images."""
    n, least = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(least + 1))
    return min(1.0, float(Fraction(2 * tail, 2**n)))


def permutation_p(a: list[float], b: list[float]) -> float:
    """Return the share of all ways to deal the seeds into two groups that differ as much."""
    pooled, size = [*a, *b], len(a)
    seen = abs(mean(a) - mean(b))
    total = sum(pooled)

    def extreme(chosen: tuple[float, ...]) -> bool:
        one = sum(chosen)
        gap = abs(one / size - (total - one) / (len(pooled) - size))
        return gap >= seen - 1e-9

    if math.comb(len(pooled), size) <= _MOST_DEALS:
        deals = [extreme(chosen) for chosen in combinations(pooled, size)]
        return sum(deals) / len(deals)
    rng = random.Random(0)
    drawn = [extreme(tuple(rng.sample(pooled, size))) for _ in range(_MOST_DEALS)]
    return (1 + sum(drawn)) / (1 + len(drawn))


def _differences(groups: list[Group]) -> tuple[tuple[str, tuple[str, ...]], ...]:
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
