"""The result of a run, from what was measured: images seen and classified correctly."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

from whit.data.splits import Dataset
from whit.errors import Diverged
from whit.models.weights import sha256
from whit.recipes.budget import Violation
from whit.runs.compatibility import describe_change
from whit.runs.result import EpochRecord, Evaluation, RunResult
from whit.training.plan import Plan
from whit.training.state import TrainingState


def build_result(
    plan: Plan,
    dataset: Dataset,
    state: TrainingState,
    records: list[EpochRecord],
    changes: list[dict[str, Any]],
    weights: bytes,
    dependence: str | None = None,
) -> RunResult:
    """Return the result of a run that has ended. `weights` is the content of its weights file.

    `dependence` says why the trained network's output depends on more than the image.
    """
    evaluations = records[-1].evaluations if records else ()
    test = next((e for e in evaluations if e.split == "test"), None)
    epochs = Fraction(state.seen, len(dataset.train))
    metrics = replace(
        plan.metrics,
        epochs=epochs,
        correct=test.correct if test else None,
        total=test.total if test else None,
        leaked=dataset.overlap,
        batch_dependence=plan.audit.batch_dependence or dependence,
    )
    budget = plan.recipe.budget.to_budget()
    num_evaluations = sum(e.split == "test" for record in records for e in record.evaluations)
    return RunResult(
        verdict=budget.verdict(metrics),
        violations=budget.violations(metrics),
        params=plan.audit.params.total,
        epochs=epochs,
        test=test,
        test_evaluations=num_evaluations,
        best=best_epoch(records),
        seconds_train=sum(record.seconds for record in records),
        seconds_total=0.0,
        images_seen=state.seen,
        seed=state.seed,
        weights_sha256=sha256(weights),
        optimizer_sha256=state.optimizer_sha256(),
        notes=_notes(plan, num_evaluations, dataset, changes),
        teacher=plan.teacher.to_json() if plan.teacher else None,
        accepted_changes=tuple(changes),
        budget=budget,
        metrics=metrics,
        records=tuple(records),
    )


def diverged_result(result: RunResult, error: Diverged) -> RunResult:
    """Return the result of a run that diverged: no test accuracy, and the budget is missed."""
    loss = error.loss if math.isfinite(error.loss) else None  # JSON has no NaN
    violation = Violation("diverged", "finite", str(error.loss), str(error))
    return replace(
        result,
        state="diverged",
        verdict="missed",
        violations=(violation,),
        test=None,
        diverged={"epoch": error.epoch, "step": error.step, "loss": loss, "lr": error.lr},
    )


def best_epoch(records: list[EpochRecord]) -> tuple[int, Evaluation] | None:
    """Return the best epoch on the split that was evaluated most often; the earliest of equals."""
    evaluations = [(record.epoch, e) for record in records for e in record.evaluations]
    if not evaluations:
        return None
    splits = [evaluation.split for _, evaluation in evaluations]
    split = max(splits, key=splits.count)
    candidates = [item for item in evaluations if item[1].split == split]
    return max(candidates, key=lambda item: (item[1].correct, -item[0]))


def _notes(
    plan: Plan, num_evaluations: int, dataset: Dataset, changes: list[dict[str, Any]]
) -> tuple[str, ...]:
    """Return notes on how the result came about."""
    notes = list(dataset.notes)
    notes += [f"{note}." for note in (plan.audit.expects_logits, *plan.audit.unverified) if note]
    if plan.teacher:
        notes.append(f"distilled from {plan.teacher}; the teacher is not part of the budget.")
    if num_evaluations > 1:
        notes.append(
            f"evaluated on test {num_evaluations} times, after each epoch; no weights were "
            "selected on it."
        )
    for change in changes:
        what, epoch = describe_change(change), change["epoch"]
        if change.get("by_load"):
            notes.append(f"in epoch {epoch} the load of the machine changed {what}.")
        else:
            notes.append(f"resumed in epoch {epoch} with an accepted change: {what}.")
    return tuple(notes)
