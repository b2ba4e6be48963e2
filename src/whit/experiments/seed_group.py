"""Runs of one recipe over seeds, as one row of study and compare."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from whit.errors import InputError
from whit.experiments import statistics
from whit.experiments.statistics import SampleStats, SignificanceTest
from whit.runs.reader import RunRecord
from whit.runs.result import Evaluation
from whit.system.display.html_tables import html_columns, html_table, html_text
from whit.system.display.line_plot import PERCENT, dot_plot
from whit.system.numbers import percent, round_json
from whit.system.text_tables import stacked_table, wrap

# What should be equal in the runs of one sample: keys of environment.json, and their names.
SAMPLE_KEYS = {
    "data_sha256": "data",
    "model_sha256": "source of the model",
    "teacher_sha256": "teacher",
    "code": "code",
    "torch": "torch",
    "threads": "threads",
    "precision": "precision",
    "processor": "processor",
    "device": "device",
}
TABLE_HEAD = (
    *("recipe", "seeds", "mean %", "± sd", "95 % interval", "min %", "max %", "met"),
    *("best epoch %", "split", "params", "epochs", "seconds"),
)
_TABLE_ALIGN = "Lrrrrrrrrlrrr"
_MAX_COLUMNS = 3  # recipes as columns of one HTML table, so that it is narrow


@dataclass(frozen=True)
class SeedGroup:
    """Finished runs of one recipe, evaluated on one split after the last epoch."""

    name: str
    runs: tuple[RunRecord, ...]  # at least one, in the order of their seeds
    diverged: tuple[RunRecord, ...] = ()  # have no accuracy; they count as missed
    duplicates: tuple[RunRecord, ...] = ()  # of a seed that is among the others: not counted
    remarks: tuple[str, ...] = ()  # on runs of its folder, such as edited ones: not counted

    @property
    def split(self) -> str:
        """`test`, or `val` for a recipe that does not evaluate on test."""
        return "test" if self.runs[0].recipe.eval.test else "val"

    @cached_property
    def last(self) -> tuple[Evaluation, ...]:
        """The evaluation after each run's last epoch."""
        return tuple(filter(None, (run.final_evaluation for run in self.runs)))

    @cached_property
    def accuracy(self) -> SampleStats:
        """Percent after the last epoch, a value each seed."""
        return SampleStats(tuple(map(_percent, self.last)))

    @property
    def min(self) -> Evaluation:
        return min(self.last, key=_percent)

    @property
    def max(self) -> Evaluation:
        return max(self.last, key=_percent)

    @cached_property
    def best(self) -> SampleStats | None:
        """Percent at each run's best epoch; None where only the last epoch was evaluated."""
        curves = [[e for epoch in run.log for e in epoch.evaluations if e.split == self.split]
                  for run in self.runs]  # fmt: skip
        if any(len(curve) < 2 for curve in curves):
            return None
        return SampleStats(tuple(max(map(_percent, curve)) for curve in curves))

    @property
    def num_passed(self) -> int | None:
        """How many runs meet the budget; None where that is pending, as without a test split."""
        verdicts = [_result(run)["verdict"] for run in self.runs]
        return None if "pending" in verdicts else verdicts.count("met")

    @property
    def ended(self) -> tuple[RunRecord, ...]:
        """All that have a verdict, those that diverged included."""
        return self.runs + self.diverged

    @property
    def num_judged(self) -> int:
        return len(self.ended)

    @property
    def params(self) -> int:
        return int(_result(self.runs[0])["params"])

    @property
    def epochs(self) -> float:
        epochs: float = _result(self.runs[0])["epochs"]
        return epochs

    @property
    def seconds(self) -> float:
        """Mean seconds of a run, in all."""
        return fmean(_result(run)["seconds"]["total"] for run in self.runs)

    def environment(self, key: str) -> str:
        """Return the values of a key of environment.json in these runs as text, each once."""
        return ", ".join(sorted({_environment(run, key) for run in self.runs}))

    @property
    def notes(self) -> list[str]:
        """Why the runs may not be one sample: different data, code, machines, threads."""
        notes = []
        if self.diverged:
            seeds = ", ".join(str(run.seed) for run in self.diverged)
            notes.append(f"diverged with seed {seeds}: excluded from the mean, counted as missed.")
        for run in self.duplicates:
            notes.append(f"seed {run.seed} occurs again in {run.path}: counted once.")
        blocks = _list_blocks(self.runs)
        if len(blocks) > 1:
            listed = ", ".join(blocks)
            notes.append(f"its seeds were evaluated on different blocks of images: {listed}.")
        for key, label in SAMPLE_KEYS.items():
            if key == "data_sha256" and len(blocks) > 1:
                continue
            counts = Counter(sorted(_environment(run, key) for run in self.runs))
            if len(counts) > 1:
                listed = ", ".join(f"{value} ({count})" for value, count in counts.items())
                notes.append(f"runs differ in {label}: {listed}.")
        return [f"{self.name}: {note}" for note in (*notes, *self.remarks)]

    @property
    def mean_text(self) -> str:
        """Mean accuracy in percent with three decimals, never rounded up."""
        return f"{math.floor(1000 * self.accuracy.mean + 1e-6) / 1000:.3f}"

    @property
    def interval_text(self) -> str:
        """The 95 % interval of the mean accuracy in percent; `-` for a single seed."""
        interval = self.accuracy.interval
        return f"{interval[0]:.3f}–{interval[1]:.3f}" if interval else "-"

    @property
    def table_row(self) -> tuple[str, ...]:
        """Accuracy and cost as text, in the columns of TABLE_HEAD."""
        return (
            self.name,
            str(len(self.runs)),
            self.mean_text,
            "-" if self.accuracy.sd is None else f"{self.accuracy.sd:.3f}",
            self.interval_text,
            *(percent(e.correct, e.total) for e in (self.min, self.max)),
            "pending" if self.num_passed is None else f"{self.num_passed}/{self.num_judged}",
            "-" if self.best is None else f"{self.best.mean:.3f}",
            self.split,
            f"{self.params:,}",
            f"{self.epochs:g}",
            f"{self.seconds:.1f}",
        )

    def to_json(self) -> dict[str, Any]:
        sample = self.accuracy
        return {
            "name": self.name,
            "recipe": self.runs[0].recipe.name,
            "split": self.split,
            "seeds": len(self.runs),
            "params": self.params,
            "epochs": round_json(self.epochs),
            "accuracy": round_json(sample.mean),
            "sd": round_json(sample.sd),
            "interval": round_json(sample.interval),
            "min": round_json(_percent(self.min)),
            "max": round_json(_percent(self.max)),
            "met": self.num_passed,
            "diverged": [run.seed for run in self.diverged],
            "best_epoch": round_json(self.best.mean) if self.best else None,
            "seconds": round_json(self.seconds),
            "seed": [run.seed for run in self.runs],
            "correct": [evaluation.correct for evaluation in self.last],
            "total": self.last[0].total,
            "folders": [str(run.path) for run in self.runs],
            "notes": self.notes,
        }


def group_runs(name: str, runs: Sequence[RunRecord]) -> SeedGroup | None:
    """Group runs of one recipe; None where none has finished with an accuracy."""
    judged = tuple(run for run in runs if is_judged(run))
    diverged = tuple(run for run in runs if run.state == "diverged")
    return SeedGroup(name, judged, diverged) if judged else None


def seeds_table(groups: Sequence[SeedGroup], width: int) -> str:
    """Return the accuracy and cost of each recipe over its seeds, in `width` columns."""
    rows = [TABLE_HEAD, *(group.table_row for group in groups)]
    return "\n\n".join([stacked_table(rows, _TABLE_ALIGN, width), *note_lines(groups, width)])


def seeds_html(groups: Sequence[SeedGroup]) -> str:
    """Return the same table as HTML, and a dot for the accuracy of each seed."""
    notes = "".join(html_text(note) for note in note_lines(groups, 10_000))
    accuracies = [(group.name, group.accuracy.values) for group in groups]
    split = groups[0].split if groups else ""
    rows = [TABLE_HEAD, *(group.table_row for group in groups)]
    if len(groups) <= _MAX_COLUMNS:
        head, *body = zip(*rows, strict=True)
        tables = [html_table(head, body, "l" + "r" * len(groups))]
    else:
        parts = (range(5), (0, *range(5, 9)), (0, *range(9, 13)))
        tables = [_columns_html(rows, columns) for columns in parts]
    return (
        html_columns(*tables)
        + notes
        + dot_plot(accuracies, f"{split} accuracy, %: each seed, and the mean", PERCENT)
    )


def _columns_html(rows: Sequence[Sequence[str]], columns: Sequence[int]) -> str:
    head, *body = ([row[i] for i in columns] for row in rows)
    return html_table(head, body, "".join(_TABLE_ALIGN[i] for i in columns))


def note_lines(groups: Iterable[SeedGroup], width: int) -> list[str]:
    return [wrap(f"Note: {note}", width) for group in groups for note in group.notes]


def compare_groups(
    pairs: Sequence[tuple[SeedGroup, SeedGroup]],
) -> tuple[SignificanceTest, ...]:
    """Test for each pair (a, b) whether `b` differs from `a`, corrected for several pairs."""
    return statistics.correct_tests([_compare(a, b, len(pairs)) for a, b in pairs])


def _compare(a: SeedGroup, b: SeedGroup, num_comparisons: int) -> SignificanceTest:
    """Test whether `b` differs from `a`.

    Paired by the seeds that both have, if there are two or more; else as two samples; two single
    runs by their images.
    """
    by_seed = {run.seed: value for run, value in zip(b.runs, b.accuracy.values, strict=True)}
    pairs = [
        (value, by_seed[run.seed])
        for run, value in zip(a.runs, a.accuracy.values, strict=True)
        if run.seed is not None and run.seed in by_seed
    ]
    if len(pairs) > 1:
        return statistics.paired_t_test(a.name, b.name, pairs, num_comparisons)
    if len(a.runs) > 1 or len(b.runs) > 1:
        values = a.accuracy.values, b.accuracy.values
        return statistics.welch_t_test(a.name, b.name, *values, num_comparisons)
    difference = b.accuracy.mean - a.accuracy.mean
    wrong_a, wrong_b = (set(group.last[0].misclassified) for group in (a, b))
    if not (a.last[0].misclassified or a.last[0].correct == a.last[0].total) or a.split != "test":
        return SignificanceTest(a.name, b.name, difference, None, None, "one seed each")
    only_a, only_b = len(wrong_b - wrong_a), len(wrong_a - wrong_b)
    return statistics.mcnemar_test(a.name, b.name, difference, only_a, only_b)


def require_same_split(groups: Sequence[SeedGroup]) -> None:
    """Raise InputError unless all were evaluated on the same images."""
    judged = {_describe_images(group) for group in groups}
    if len(judged) > 1:
        raise InputError(
            f"the runs were evaluated on different images: {'; '.join(sorted(judged))}."
        )


def _describe_images(group: SeedGroup) -> str:
    """Name the images that the runs of a group were evaluated on."""
    data, blocks = group.runs[0].recipe.data, ""
    if group.split == "val" and data.val_by:
        blocks = f", by {data.val_by}"
        if data.val_by == "block":
            blocks += f" {', '.join(_list_blocks(group.runs))}"
    return f"{data.name}, {group.split} ({group.last[0].total} images{blocks})"


def _list_blocks(runs: Iterable[RunRecord]) -> list[str]:
    """Return the blocks of images that runs held out, each once."""
    blocks = {run.recipe.data.val_block for run in runs}
    numbers = sorted(block for block in blocks if block is not None)
    return [*map(str, numbers), *(["the last"] if None in blocks else [])]


def is_judged(run: RunRecord) -> bool:
    """Whether a run finished and was evaluated after its last epoch."""
    return run.state == "finished" and (
        _result(run)["test"]["correct"] is not None or run.last_val is not None
    )


def _percent(evaluation: Evaluation) -> float:
    return 100 * evaluation.correct / evaluation.total


def _result(run: RunRecord) -> dict[str, Any]:
    assert run.result is not None
    return run.result


def _environment(run: RunRecord, key: str) -> str:
    value = run.environment.get(key)
    if key == "code":
        value = (value or {}).get("sha256") if isinstance(value, dict) else None
    return str(value)[:12] if key == "code" or key.endswith("sha256") else str(value)
