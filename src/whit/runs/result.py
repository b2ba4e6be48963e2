"""The results of a run as values: evaluations, epochs, the result and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from whit.recipes.budget import COUNTED_RULE, Budget, Metrics, Verdict, Violation
from whit.recipes.recipe import Recipe
from whit.system.display.html_tables import (
    html_block,
    html_columns,
    html_list,
    html_table,
    html_text,
)
from whit.system.display.line_plot import PERCENT, UNBOUNDED, Series, line_plot
from whit.system.display.records import Records
from whit.system.numbers import floor_percent, json_number, percent
from whit.system.text_tables import align_columns, wrap

RULE_STATUS = {True: "pass", False: "FAIL", None: "pending"}  # whether a limit is met, in tables
# Why a verdict is pending although the network was trained and evaluated.
_NOT_COUNTED = "not every number that inference reads could be counted"
# Why the accuracy of a pending verdict is unknown.
_NOT_TRAINED, _NOT_EVALUATED = "not trained yet", "not evaluated on test"


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a split. `loss` is the mean cross-entropy in nats per image.

    `misclassified` holds the indices in the split of those images.
    """

    split: str
    correct: int
    total: int
    loss: float | None  # None when it is not a finite number
    seconds: float = 0.0
    misclassified: tuple[int, ...] = field(default=(), repr=False)

    @property
    def accuracy(self) -> float:
        """Percent, never rounded up."""
        return floor_percent(self.correct, self.total)

    def __str__(self) -> str:
        loss = "not finite" if self.loss is None else f"{self.loss:.4f}"
        return (
            f"{self.split.capitalize()} set: Average loss: {loss}, "
            f"Accuracy: {self.correct}/{self.total} ({percent(self.correct, self.total)}%)"
        )


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training; `correct` counts the training images as the model saw them."""

    epoch: int
    images_seen: int  # since the start of the run
    steps: int  # since the start of the run
    lr: float  # at the last step
    loss: float  # mean over the epoch's images, nats
    correct: int
    total: int
    seconds: float  # training alone
    evaluations: tuple[Evaluation, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the line of the log; misclassified images are listed only in the result."""
        value = asdict(self)
        for evaluation in value["evaluations"]:
            del evaluation["misclassified"]
        return value


@dataclass(frozen=True, repr=False)
class RunResult:
    """The content of `result.json`, with the budget and the metrics of the verdict."""

    verdict: Verdict
    violations: tuple[Violation, ...]
    params: int
    epochs: Fraction
    test: Evaluation | None  # None when the recipe does not evaluate on test
    test_evaluations: int
    best: tuple[int, Evaluation] | None  # epoch, on the split that was evaluated most often
    seconds_train: float
    seconds_total: float
    images_seen: int
    seed: int
    weights_sha256: str
    notes: tuple[str, ...] = ()
    state: Literal["finished", "diverged"] = "finished"
    optimizer_sha256: str = ""  # of the optimizer's tensors after the last step
    accepted_changes: tuple[dict[str, Any], ...] = ()  # when it was resumed
    teacher: dict[str, Any] | None = None  # its cost, of a run with distillation
    diverged: dict[str, Any] | None = None  # epoch, step, loss, lr
    budget: Budget = field(default_factory=Budget, compare=False)
    metrics: Metrics = field(default_factory=Metrics, compare=False)
    folder: Path | None = None
    records: tuple[EpochRecord, ...] = field(default=(), compare=False)  # one an epoch

    @property
    def history(self) -> Records:
        """One dict an epoch: loss and accuracy of training and of evaluations, rate, seconds."""
        return history_rows(self.records)

    def to_json(self) -> dict[str, Any]:
        keys = ("correct", "total", "accuracy", "loss")
        test: dict[str, Any] = {key: getattr(self.test, key, None) for key in keys}
        if self.test:
            test["misclassified"] = list(self.test.misclassified)
        test |= {
            "evaluations": self.test_evaluations,
            "selected_on_test": self.metrics.selected_on_test,
        }
        best = None
        if self.best:
            epoch, evaluation = self.best
            best = {"epoch": epoch, "correct": evaluation.correct, "split": evaluation.split}
        return {
            "state": self.state,
            **({"diverged": self.diverged} if self.diverged else {}),
            "verdict": self.verdict,
            "violations": [violation.to_json() for violation in self.violations],
            **self.metrics.network_json(),
            "epochs": json_number(self.epochs),
            "test": test,
            "best_epoch": best,
            "seconds": {"train": self.seconds_train, "total": self.seconds_total},
            "images_seen": self.images_seen,
            "seed": self.seed,
            "weights_sha256": self.weights_sha256,
            "optimizer_sha256": self.optimizer_sha256,
            **({"teacher": self.teacher} if self.teacher else {}),
            "accepted_changes": list(self.accepted_changes),
            "notes": list(self.notes),
        }

    def text(self, width: int = 100) -> str:
        """Return the verdict, notes and cost as text of at most `width` columns."""
        verdict = verdict_text(self.budget, self.metrics, width, _NOT_EVALUATED)
        return "\n".join([verdict, *self._details(width)])

    def _details(self, width: int) -> list[str]:
        """Return what is known beside the verdict, as lines of at most `width` columns."""
        lines = []
        last = self.records[-1].epoch if self.records else self.epochs
        if self.best and self.best[0] != last:
            epoch, evaluation = self.best
            best = (
                f"Best epoch on {evaluation.split}: {epoch}, {evaluation.correct}/"
                f"{evaluation.total} (for information; the verdict uses the last epoch)."
            )
            lines.append(wrap(best, width))
        lines += [wrap(f"Note: {note}", width) for note in self.notes]
        cost = (
            f"Trained {self.images_seen:,} images in {self.seconds_train:.1f} s "
            f"({self.seconds_total:.1f} s in total), seed {self.seed}."
        )
        lines.append(wrap(cost, width))
        if self.folder:
            lines.append(f"Run folder: {self.folder}")
        return lines

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__  # the same at a prompt as printed

    def _repr_html_(self) -> str:
        verdict = verdict_html(self.budget, self.metrics, _NOT_EVALUATED)
        details = html_text("\n".join(self._details(100)))
        return html_block(html_columns(verdict, history_plots(self.history)), details)


def history_rows(records: Sequence[EpochRecord]) -> Records:
    """Return epochs as flat dicts with equal keys; accuracy is in percent, never rounded up.

    A split that is not evaluated after each epoch has None after the others.
    """
    splits = list(dict.fromkeys(e.split for record in records for e in record.evaluations))
    rows = Records()
    for record in records:
        row: dict[str, Any] = {
            "epoch": record.epoch,
            "train_loss": record.loss,
            "train_accuracy": floor_percent(record.correct, record.total),
        }
        for split in splits:
            found = next((e for e in record.evaluations if e.split == split), None)
            row[f"{split}_loss"] = found.loss if found else None
            row[f"{split}_accuracy"] = found.accuracy if found else None
        rows.append(
            {
                **row,
                "lr": record.lr,
                "seconds": record.seconds,
                "images_seen": record.images_seen,
                "steps": record.steps,
            }
        )
    return rows


def history_plots(history: Records) -> str:
    """Return loss and accuracy over epochs as HTML; nothing for a single epoch."""
    if len(history) < 2:
        return ""
    plots = []
    measures = (("loss", "loss", UNBOUNDED), ("accuracy", "accuracy, %", PERCENT))
    for measure, label, bounds in measures:
        keys = [key for key in history[0] if key.endswith(f"_{measure}")]
        series = [
            Series(key.removesuffix(f"_{measure}"), [(row["epoch"], row[key]) for row in history])
            for key in keys
        ]
        plots.append(line_plot(series, "epoch", label, bounds))
    return html_columns(*plots)


def pending_reason(recipe: Recipe) -> str:
    """Return why the accuracy of a network of this recipe is unknown."""
    return _NOT_TRAINED if recipe.eval.test else _NOT_EVALUATED


def _verdict_sentence(budget: Budget, metrics: Metrics, pending: str) -> str:
    verdict = budget.verdict(metrics)
    if verdict != "pending":
        return f"Verdict: {verdict}."
    unknown = [rule for rule, _, _, passes in budget.rows(metrics) if passes is None]
    known_reasons = {
        "accuracy": pending,
        "epochs": "planned epochs unknown",
        COUNTED_RULE: _NOT_COUNTED,
    }
    reasons = [reason for rule, reason in known_reasons.items() if rule in unknown]
    others = [rule for rule in unknown if rule not in known_reasons]
    if not metrics.kinds_known:
        reasons.append("the forward pass could not be analyzed completely")
        others = [rule for rule in others if not rule.startswith(("require ", "forbid "))]
    if others:
        reasons.append(f"unknown: {', '.join(others)}")
    return f"Verdict: pending ({'; '.join(reasons)})."


def verdict_html(budget: Budget, metrics: Metrics, pending: str = _NOT_TRAINED) -> str:
    """Return the same as `verdict_text`, as HTML."""
    cells = [(*row[:3], RULE_STATUS[row[3]]) for row in budget.rows(metrics)]
    if not cells:
        return html_text(verdict_text(budget, metrics))
    return (
        html_table(("budget", "limit", "value", ""), cells, "lrrl")
        + html_text(_verdict_sentence(budget, metrics, pending), bold=True)
        + html_list([violation.message for violation in budget.violations(metrics)])
    )


def budget_json(budget: Budget, metrics: Metrics) -> list[dict[str, str]]:
    """Return each rule of the budget with its limit, its value and its status, as in tables."""
    return [
        {"rule": rule, "limit": limit, "value": value, "status": RULE_STATUS[passes]}
        for rule, limit, value, passes in budget.rows(metrics)
    ]


def forward_passes_text(metrics: Metrics, width: int = 100) -> str:
    """Return the cost of test-time augmentation; empty when a decision is one forward pass."""
    passes = metrics.forward_passes
    if passes == 1:
        return ""
    macs = "?" if metrics.macs is None else f"{metrics.macs // passes:,}"
    total = "?" if metrics.macs is None else f"{metrics.macs:,}"
    return wrap(
        f"{passes} forward passes per decision, {macs} MACs each, {total} in total "
        "(test-time augmentation).",
        width,
    )


def verdict_text(
    budget: Budget, metrics: Metrics, width: int = 100, pending: str = _NOT_TRAINED
) -> str:
    """Return the budget as a small table of limits and values, then the verdict.

    `pending` is the reason why the accuracy of a pending verdict is unknown.
    """
    rows = budget.rows(metrics)
    if not rows:
        return "Verdict: met (no limits set)."
    cells = [(rule, limit, value, RULE_STATUS[passes]) for rule, limit, value, passes in rows]
    lines = align_columns([("budget", "limit", "value", ""), *cells], "llll")
    lines.append(_verdict_sentence(budget, metrics, pending))
    lines += [wrap(f"  - {violation.message}", width) for violation in budget.violations(metrics)]
    return "\n".join(lines)
