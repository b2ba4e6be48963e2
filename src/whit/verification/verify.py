"""The audit of a run: recomputed from weights and log, ignoring stored results."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.analysis import Audit, audit_model
from whit.data.datasets import load_dataset, probe_dataset
from whit.data.normalization import Normalize, build_normalize
from whit.data.splits import Dataset, Split
from whit.errors import InputError, SourceError, did_you_mean
from whit.models.build import build_initialized_model, load_model
from whit.models.run_source import explain_copy, explain_misfit, has_copy
from whit.models.tta import with_tta
from whit.models.user_code import Source, collect_missing_packages
from whit.models.weights import sha256
from whit.recipes.budget import Metrics, Verdict, Violation
from whit.recipes.model_ref import check_model_name, is_model_path
from whit.recipes.recipe import DEFAULT_RECIPE, Recipe, builtin_recipes, load_recipe
from whit.runs import layout
from whit.runs.compatibility import REPRODUCIBILITY_KEYS, diff_environments
from whit.runs.environment import describe_environment
from whit.runs.manifest import NOT_READ, verify_manifest
from whit.runs.reader import RunRecord, read_run, weights_problem
from whit.runs.result import (
    Evaluation,
    budget_json,
    forward_passes_text,
    pending_reason,
    verdict_html,
    verdict_text,
)
from whit.system.console import OnStage, ignore_stage
from whit.system.display.html_tables import html_block, html_list, html_text
from whit.system.numbers import percent
from whit.system.text_tables import wrap
from whit.training.evaluation import find_trained_dependence, predict
from whit.training.hardware.threads import use_free_cores
from whit.training.plan import find_source, make_plan
from whit.training.target import load_target
from whit.verification.provenance import current_digests, diff_inputs

# Logits this close may swap places when sums are computed in another order.
_TIE_TOLERANCE = 1e-3
_MISMATCHES = "The recorded result does not match (verdict: missed):"


@dataclass(frozen=True, repr=False)
class AuditResult:
    """A model's layers, the metrics of its training, and the verdict.

    `mismatches` are values in a run folder that contradict its own weights or log; a single one
    gives the verdict `missed`.
    """

    recipe: Recipe
    audit: Audit
    metrics: Metrics
    mismatches: tuple[Violation, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def violations(self) -> tuple[Violation, ...]:
        return self.recipe.budget.to_budget().violations(self.metrics) + self.mismatches

    @property
    def verdict(self) -> Verdict:
        return "missed" if self.mismatches else self.recipe.budget.to_budget().verdict(self.metrics)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.audit.to_json(),
            "macs": self.metrics.macs,
            "forward_passes": self.metrics.forward_passes,
            "recipe": self.recipe.name,
            "budget": budget_json(self.recipe.budget.to_budget(), self.metrics),
            "violations": [violation.to_json() for violation in self.violations],
            "verdict": self.verdict,
            "notes": [*self.audit.all_notes, *self.notes],
        }

    def table(self, width: int = 100) -> str:
        verdict = verdict_text(
            self.recipe.budget.to_budget(), self.metrics, width, pending_reason(self.recipe)
        )
        passes = forward_passes_text(self.metrics, width)
        lines = [self.audit.table(width), *([passes] if passes else []), "", verdict]
        if self.mismatches:
            lines.append(_MISMATCHES)
            lines += [wrap(f"  - {mismatch.message}", width) for mismatch in self.mismatches]
        lines += [wrap(f"Note: {note}", width) for note in self.notes]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__  # the same at a prompt as printed

    def _repr_html_(self) -> str:
        passes = html_text(forward_passes_text(self.metrics, 10_000))
        verdict = verdict_html(
            self.recipe.budget.to_budget(), self.metrics, pending_reason(self.recipe)
        )
        parts = [self.audit.html(), passes, verdict]
        if self.mismatches:
            parts.append(html_text(_MISMATCHES, bold=True))
            parts.append(html_list([mismatch.message for mismatch in self.mismatches]))
        parts += [html_text(f"Note: {note}") for note in self.notes]
        return html_block(*parts, title=self.audit.name)


@use_free_cores()
def audit(
    target: str | Path | nn.Module,
    recipe: Recipe | None = None,
    model: nn.Module | None = None,
    on_stage: OnStage = ignore_stage,
    changes: Sequence[str] = (),
    *,
    run_whole_file: bool = False,
    trust_model_files: bool = False,
) -> AuditResult:
    """Audit a run folder, a recipe, `file.py:Class`, `notebook.ipynb:Class`, a `.safetensors`
    with its recipe, or a model in Python.

    A model without a recipe is audited with data and budget of the default recipe. `model` is the
    network of a run folder or `.safetensors` that no recipe can build; the weights are loaded into
    it. `changes` are `key=value` overrides of the recipe. `run_whole_file` executes all statements
    of a model's file; `trust_model_files` executes the copy of a user's own model in a run folder,
    if its file is missing or has changed. Raises InputError when the target is none of these.
    """
    if isinstance(target, nn.Module):
        return _audit_model(target, recipe, type(target).__name__)
    path = Path(target)
    if is_model_path(str(target)):
        check_model_name(str(target))
        return _audit_file(str(target), recipe, changes, run_whole_file)
    if path.suffix == ".safetensors":
        if recipe is None:
            raise InputError(
                f"{path}: a weights file does not contain its recipe: add --recipe RECIPE."
            )
        return _audit_weights(path, recipe.with_overrides(changes), model, on_stage=on_stage)[0]
    if recipe is not None:
        raise InputError(f"{target}: has its own recipe: omit --recipe.")
    if os.path.isdir(path):
        if changes:
            raise InputError(f"{target}: has its own recipe, which is not changed: omit --set.")
        if run_whole_file:
            raise InputError(f"{target}: its recipe says what is executed: omit --run-whole-file.")
        run = read_run(path, trust_model_files=trust_model_files, allow_edited=True)
        return audit_run(run, model, on_stage)[0]
    if str(target) not in builtin_recipes() and not os.path.isfile(path):
        raise InputError(
            f"{target}: nothing to audit: neither a run folder, a file nor a built-in recipe."
            f"{did_you_mean(str(target), builtin_recipes())}"
        )
    planned = make_plan(load_target(target, None, changes, run_whole_file=run_whole_file))
    return AuditResult(planned.recipe, planned.audit, planned.metrics)


def _audit_file(
    target: str, recipe: Recipe | None, changes: Sequence[str], run_whole_file: bool
) -> AuditResult:
    """Audit a user's model file, of which nothing but the model is read."""
    base = recipe or load_recipe(DEFAULT_RECIPE)
    loaded = load_target(target, base, changes, run_whole_file=run_whole_file)
    name = loaded.model.name
    image_shape, classes, _ = probe_dataset(loaded.data)
    model = build_initialized_model(loaded, image_shape, classes)
    with collect_missing_packages() as missing:
        result = _audit_model(model, loaded.model_copy(update={"name": base.name}), name)
    if missing and result.audit.output_problem:
        raise SourceError(f"{target} {missing[0]}.")
    notes = [] if recipe else [_default_note(base)]
    notes.append(
        f"only the model {name.rpartition(':')[2]} was read: for how many epochs, on what data and "
        "with what result it is trained is unknown."
    )
    return replace(result, notes=(*notes, *result.notes))


def _default_note(recipe: Recipe) -> str:
    return f"budget and image shape are those of the recipe {recipe.name!r}."


def _audit_model(model: nn.Module, recipe: Recipe | None, name: str) -> AuditResult:
    base = recipe or load_recipe(DEFAULT_RECIPE)
    image_shape, classes, _ = probe_dataset(base.data)
    audit = audit_model(model, image_shape, classes, name=name)
    metrics = Metrics.from_audit(audit, base.eval.forward_passes)
    notes = [] if recipe else [_default_note(base)]
    is_said = audit.failure or any(str(audit.output_problem) in note for note in audit.notes)
    if audit.output_problem and not is_said:
        notes.append(f"{audit.output_problem}.")
    return AuditResult(base, audit, metrics, notes=tuple(notes))


@dataclass(frozen=True)
class EvaluatedModel:
    """Weights in their model, evaluated on the test split; `logits` are (N, K)."""

    model: nn.Module
    dataset: Dataset
    normalize: Normalize
    logits: Tensor
    test: Evaluation


def _audit_weights(
    path: Path,
    recipe: Recipe,
    model: nn.Module | None,
    seed: int = 0,
    on_stage: OnStage = ignore_stage,
    source: Source | None = None,
) -> tuple[AuditResult, EvaluatedModel | None]:
    image_shape, classes, _ = probe_dataset(recipe.data)
    model = load_model(recipe, path, model, seed, source)
    audit = audit_model(model, image_shape, classes, name=recipe.model.name)
    metrics = Metrics.from_audit(audit, recipe.eval.forward_passes)
    if not recipe.eval.test:  # a recipe for tuning does not evaluate on test
        return AuditResult(recipe, audit, metrics), None
    dataset = load_dataset(recipe.data)
    model.to("cpu", memory_format=torch.channels_last)  # type: ignore[call-overload]
    normalize = build_normalize(recipe.data, dataset, torch.device("cpu"))
    network, model = model, with_tta(model, recipe.eval.tta_shifts)
    on_stage(f"evaluating {recipe.name} on {len(dataset.test):,} test images")
    logits = predict(model, dataset.test, normalize)
    test = _count_correct(logits, dataset.test)
    dependence = audit.batch_dependence or find_trained_dependence(network, dataset, normalize)
    metrics = replace(
        metrics,
        correct=test.correct,
        total=test.total,
        leaked=dataset.overlap,
        batch_dependence=dependence,
    )
    evaluated = EvaluatedModel(model, dataset, normalize, logits, test)
    return AuditResult(recipe, audit, metrics), evaluated


def _count_correct(logits: Tensor, split: Split) -> Evaluation:
    """Return what `evaluate` returns, from logits (N, K)."""
    wrong = (logits.argmax(1) != split.labels).nonzero().flatten().tolist()
    loss = F.cross_entropy(logits, split.labels).item()
    mean_loss = loss if math.isfinite(loss) else None
    correct = len(split) - len(wrong)
    return Evaluation(split.name, correct, len(split), mean_loss, misclassified=tuple(wrong))


@use_free_cores()
def audit_run(
    run: RunRecord, model: nn.Module | None = None, on_stage: OnStage = ignore_stage
) -> tuple[AuditResult, EvaluatedModel | None]:
    """Audit a finished run; return also its evaluated model, None without test split.

    Raises InputError when the run has no weights or no log, or what it needs is missing.
    """
    source, recipe = find_source(run), run.local_recipe
    if problem := weights_problem(run, allow_edited=True):
        raise InputError(f"{run.path}: {problem}: nothing to audit.")
    if not run.log:
        raise InputError(f"{run.path / layout.LOG}: contains no epoch.")
    _, _, num_images = probe_dataset(recipe.data)
    if recipe.data.val_size >= num_images:
        raise InputError(
            f"{run.path / layout.RECIPE}: data.val_size = {recipe.data.val_size}: the training "
            f"data has only {num_images} images."
        )
    assert run.result is not None
    weights = run.path / layout.WEIGHTS
    try:
        result, evaluated = _audit_weights(weights, recipe, model, run.seed or 0, on_stage, source)
    except InputError as error:
        raise explain_misfit(error, run.path, run.environment, source) from None
    epochs = Fraction(run.log[-1].images_seen, num_images - recipe.data.val_size)
    metrics = result.metrics
    notes = _notes(run, source)
    notes = tuple(note for note in notes if note.removesuffix(".") not in result.audit.notes)
    if evaluated and (note := _explain_ties(run, evaluated)):
        metrics = replace(metrics, correct=run.result["test"]["correct"])
        notes = (*notes, note)
    logged = [e.correct for row in run.log for e in row.evaluations if e.split == "test"]
    # Weights as good as the best evaluation, but not as the last, were selected on test.
    selected = bool(logged) and metrics.correct != logged[-1] and metrics.correct == max(logged)
    metrics = replace(metrics, epochs=epochs, selected_on_test=selected)
    mismatches = [*find_tampering(run), *_find_changed_inputs(run, evaluated, source)]
    mismatches += _find_mismatches(run, metrics, sha256(weights.read_bytes()), logged)
    return replace(result, metrics=metrics, mismatches=tuple(mismatches), notes=notes), evaluated


def _explain_ties(run: RunRecord, evaluated: EvaluatedModel) -> str | None:
    """Return a note if, on another machine than the run's, only near ties are predicted otherwise.

    Summation in another order changes a logit by about 1e-5. None where all predictions agree, or
    where more differ.
    """
    recorded = (run.result or {})["test"].get("misclassified")
    if not isinstance(recorded, list):
        return None
    differing = sorted(set(recorded) ^ set(evaluated.test.misclassified))
    if not differing or not 0 <= differing[0] <= differing[-1] < len(evaluated.dataset.test):
        return None
    now = describe_environment(torch.device("cpu"), 0, torch.get_num_threads())
    now |= {
        key: run.environment.get(key) for key in ("data_sha256", "model_sha256", "teacher_sha256")
    }
    if not diff_environments(run.environment, now):
        return None
    with torch.inference_mode():
        images = evaluated.dataset.test.images[differing].float()
        best = evaluated.model.eval()(evaluated.normalize(images)).topk(2).values  # (N, 2)
    if float((best[:, 0] - best[:, 1]).max()) > _TIE_TOLERANCE:
        return None
    return (
        f"on this machine {len(differing)} test image(s) get the other of two classes whose logits "
        f"differ by less than {_TIE_TOLERANCE}; the recorded count is used."
    )


def _find_changed_inputs(
    run: RunRecord, evaluated: EvaluatedModel | None, source: Source | None
) -> Iterator[Violation]:
    """Yield the inputs that changed since the run was trained."""
    dataset = evaluated.dataset if evaluated else None
    digests = current_digests(run.local_recipe, dataset, with_teacher=False, source=source)
    for change in diff_inputs(run, digests):
        what = REPRODUCIBILITY_KEYS[change["what"]]
        message = f"{run.path.name}: {what} changed since the run."
        is_users = change["what"] == "model_sha256" and not run.trust_model_files
        if is_users and has_copy(run.path, run.environment):
            message += f" {explain_copy(run.path)}"
        rule = f"record {what.split()[-1]}"
        yield Violation(rule, str(change["before"]), change["now"], message)


def find_tampering(run: RunRecord) -> Iterator[Violation]:
    """Yield every file of the run that differs from its manifest."""
    for name, recorded, now in verify_manifest(run.stored_result or {}, run.path):
        change = f"its SHA-256 was {recorded[:16]}..., now {now[:16]}..."
        if now == "None":
            change = "missing"
        elif now.startswith(NOT_READ):
            change = now.removeprefix(NOT_READ)
        message = f"{run.path / name}: altered after the run: {change}."
        yield Violation(f"altered {name}", recorded, now, message)


def _notes(run: RunRecord, source: Source | None) -> tuple[str, ...]:
    """Return notes on how the run came about."""
    result, code = run.result or {}, run.environment.get("code")
    notes = [note for note in result.get("notes") or [] if isinstance(note, str)]
    if source is not None and source.is_copy:
        notes.append(
            f"{run.recipe.model.name} is missing or has changed: the copy of its source, "
            f"{source.path}, was executed."
        )
    if isinstance(code, dict) and code.get("dirty"):
        notes.append(f"trained with uncommitted changes to commit {str(code.get('commit'))[:12]}.")
    return tuple(notes)


def _find_mismatches(
    run: RunRecord, metrics: Metrics, weights_sha256: str, logged: list[int]
) -> list[Violation]:
    """Compare result.json with weights and log; `logged` has the correct images on test."""
    result = run.result or {}
    test = result.get("test") or {}
    mismatches: list[Violation] = []

    def compare(rule: str, recorded: object, actual: object, what: str) -> None:
        if recorded != actual:
            message = f"{run.path.name}: {what}: result.json has {recorded}, recomputed {actual}."
            mismatches.append(Violation(f"record {rule}", str(recorded), str(actual), message))

    compare("weights", result.get("weights_sha256"), weights_sha256, "SHA-256 of the weights")
    compare("params", result.get("params"), metrics.params, "parameters")
    network = metrics.network_json()
    for key, what in (("macs", "multiply-adds"), ("receptive_field", "receptive field")):
        if "forward_passes" in result:  # results in schema 1 count differently
            compare(key, result.get(key), network[key], what)
    compare("epochs", result.get("epochs"), float(metrics.epochs or 0), "epochs in the log")
    correct = test.get("correct")
    recorded = None if correct is None else f"{correct}/{test.get('total')}"
    actual = None if metrics.correct is None else f"{metrics.correct}/{metrics.total}"
    compare("accuracy", recorded, actual, "test images classified correctly by these weights")
    if correct is not None and metrics.correct is not None and metrics.total is not None:
        accuracy = float(percent(metrics.correct, metrics.total))
        if isinstance(test.get("accuracy"), float) and test["accuracy"] > accuracy + 0.01:
            compare("rounding", test["accuracy"], accuracy, "accuracy in percent")
        if logged:
            compare("last epoch", correct, logged[-1], "correct at the last epoch")
    compare("evaluations", test.get("evaluations"), len(logged), "evaluations on test")
    compare("images", result.get("images_seen"), run.log[-1].images_seen, "images seen")
    verdict = run.recipe.budget.to_budget().verdict(metrics)
    compare("verdict", result.get("verdict"), verdict, "verdict")
    return mismatches
