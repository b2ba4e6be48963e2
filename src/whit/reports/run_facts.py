"""A run with its audit, its layers and its error analysis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import isfinite
from typing import cast

from torch import nn

from whit.analysis import Audit
from whit.data.datasets import load_dataset
from whit.data.splits import Split
from whit.errors import InputError
from whit.recipes.budget import Metrics, Verdict, Violation
from whit.runs import layout
from whit.runs.reader import RunRecord, weights_problem
from whit.system.console import OnStage, ignore_stage
from whit.training.plan import find_source, make_plan
from whit.verification import error_analysis
from whit.verification.provenance import diff_inputs
from whit.verification.restore import load_run_model
from whit.verification.verify import AuditResult, audit_run, find_tampering


@dataclass(frozen=True)
class RunFacts:
    """A run, recomputed where possible.

    `audit_result` is None when nothing could be recomputed; `problem` then holds the reason, and
    `mismatches` the altered files. `analysis_problem` is the reason for an audit result without an
    error analysis. `images` is the split, if its digest is that of the run's data.
    """

    run: RunRecord
    audit_result: AuditResult | None
    problem: str | None
    analysis_problem: str | None
    audit: Audit | None
    analysis: error_analysis.ErrorAnalysis | None
    images: Split | None
    mismatches: tuple[Violation, ...]

    @property
    def split(self) -> str:
        return "test" if self.run.recipe.eval.test else "val"

    @property
    def verdict(self) -> Verdict:
        """The recomputed verdict; else the recorded one, `missed` if files were altered."""
        if self.audit_result:
            return self.audit_result.verdict
        if self.mismatches:
            return "missed"
        return cast(Verdict, self.run.result["verdict"]) if self.run.result else "pending"

    @property
    def metrics(self) -> Metrics:
        """The recomputed metrics; else the recorded ones."""
        if self.audit_result:
            return self.audit_result.metrics
        result = self.run.result
        metrics = (
            Metrics.from_audit(self.audit, self.run.recipe.eval.forward_passes)
            if self.audit
            else Metrics()
        )
        if result is None:
            return metrics
        test = result["test"] if self.run.recorded_state == "finished" else {}
        return replace(
            metrics,
            params=result["params"],
            epochs=Fraction(result["epochs"]) if isfinite(result["epochs"]) else None,
            correct=test.get("correct"),
            total=test.get("total"),
        )


def collect_run_facts(
    run: RunRecord, model: nn.Module | None = None, on_stage: OnStage = ignore_stage
) -> RunFacts:
    """Recompute all that the files of a run allow.

    `model` is the network of a run that was given one in Python; `on_stage` is called with the
    name of each slow stage. Raises InputError for altered weights that cannot be loaded.
    """
    problem = weights_problem(run, allow_edited=True)
    if problem:  # an unfinished run is described by its state
        return _collect_recorded(run, model, problem if run.recorded_state == "finished" else None)
    on_stage(f"evaluating {run.path} on its {'test' if run.recipe.eval.test else 'val'} images")
    try:
        audit_result, evaluated = audit_run(run, model)
    except InputError as error:
        if f"altered {layout.WEIGHTS}" in {violation.rule for violation in find_tampering(run)}:
            raise
        return _collect_recorded(run, model, " ".join(error.problems))
    analysis_problem, analysis, images = None, None, None
    try:
        if evaluated:
            images = evaluated.dataset.test
            disputed = error_analysis.known_label_errors(run)
            analysis = error_analysis.analyze_logits(
                evaluated.logits, images, evaluated.dataset.classes, disputed
            )
        else:
            loaded = load_run_model(run, model)
            images, analysis = loaded.split, error_analysis.analyze_run(loaded)
    except InputError as error:
        analysis_problem = " ".join(error.problems)
    audit, mismatches = audit_result.audit, audit_result.mismatches
    return RunFacts(run, audit_result, None, analysis_problem, audit, analysis, images, mismatches)


def load_run_split(run: RunRecord) -> Split | None:
    """Return the split that a run was evaluated on; None if it is missing here or has changed."""
    recipe = run.local_recipe
    try:
        dataset = load_dataset(recipe.data)
    except InputError:
        return None
    if diff_inputs(run, {"data_sha256": dataset.fingerprint}):
        return None
    return dataset.test if recipe.eval.test else dataset.val


def audit_recipe(run: RunRecord, model: nn.Module | None = None) -> Audit | None:
    """Return the layers of a run's recipe; None if the model cannot be built here."""
    try:
        return make_plan(run.local_recipe, model, find_source(run)).audit
    except InputError:
        return None


def _collect_recorded(run: RunRecord, model: nn.Module | None, problem: str | None) -> RunFacts:
    images = load_run_split(run) if run.recorded_state == "finished" else None
    mismatches = tuple(find_mismatches(run))
    return RunFacts(run, None, problem, None, audit_recipe(run, model), None, images, mismatches)


def find_mismatches(run: RunRecord) -> list[Violation]:
    """Return what was altered in a finished run, by its recorded SHA-256 digests.

    The weights and the layer table may be missing from a folder that is kept as a record.
    """
    if run.result is None:
        return []
    optional = (f"altered {layout.WEIGHTS}", f"altered {layout.AUDIT}")
    return [v for v in find_tampering(run) if not (v.rule in optional and v.value == "None")]
