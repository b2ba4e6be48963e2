"""A run with all that can be found out about it: the judgement, the layers, the findings."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isfinite

from torch import nn

from whit.auditing import Audit
from whit.budget import Usage, Verdict, Violation
from whit.data.datasets import load_dataset
from whit.data.splits import Split
from whit.error_analysis import Findings, counted, disputed_of, findings_of
from whit.errors import InputError
from whit.judge import Judgement, altered, judge_run
from whit.models.source import refuse_inside
from whit.planning import plan
from whit.run_record import RunRecord, why_no_weights
from whit.trained import load_trained


@dataclass(frozen=True)
class Account:
    """A run as it was found here and now.

    `judgement` is None where nothing could be recomputed; `problem` then says why, and
    `mismatches` what was altered. `unread` says why there are no findings beside a judgement.
    `images` are the split's, where they are known to be those of the run.
    """

    run: RunRecord
    judgement: Judgement | None
    problem: str | None
    unread: str | None
    audit: Audit | None
    findings: Findings | None
    images: Split | None
    mismatches: tuple[Violation, ...]

    @property
    def split(self) -> str:
        return "test" if self.run.recipe.train.test else "val"

    @property
    def verdict(self) -> Verdict:
        """The judgement's; else the recorded one, which a broken seal makes `missed`."""
        if self.judgement:
            return self.judgement.verdict
        if self.mismatches:
            return "missed"
        verdict: Verdict = (self.run.result or {"verdict": "open"})["verdict"]
        return verdict

    @property
    def usage(self) -> Usage:
        """What the judgement found; else what the run says of itself."""
        if self.judgement:
            return self.judgement.usage
        result = self.run.result
        kinds = self.audit.kinds if self.audit else None
        if result is None:
            return Usage(params=self.audit.params.total if self.audit else None, kinds=kinds)
        test = result["test"] if self.run.state == "finished" else {}
        return Usage(
            params=result["params"],
            epochs=Fraction(result["epochs"]) if isfinite(result["epochs"]) else None,
            correct=test.get("correct"),
            total=test.get("total"),
            kinds=kinds,
        )


def account_of(run: RunRecord, model: nn.Module | None = None) -> Account:
    """Find out about a run all that can be.

    `model` is the network of a run that was given one in Python. Raises InputError for weights
    that were altered until nobody can load them.
    """
    problem = why_no_weights(run)
    if problem:  # of a run that did not finish its state says enough
        return _unjudged(run, model, problem if run.state == "finished" else None)
    try:
        judgement, tested = judge_run(run, model)
    except InputError as error:
        broken = {violation.rule for violation in altered(run)}
        if "altered weights.safetensors" in broken:
            raise
        return _unjudged(run, model, " ".join(error.problems))
    unread = None
    findings, images = None, None
    try:
        if tested:
            images = tested.dataset.test
            findings = counted(tested.logits, images, tested.dataset.classes, disputed_of(run))
        else:
            trained = load_trained(run, model)
            images, findings = trained.split, findings_of(trained)
    except InputError as error:
        unread = " ".join(error.problems)
    mismatches = judgement.mismatches
    return Account(run, judgement, None, unread, judgement.audit, findings, images, mismatches)


def split_of(run: RunRecord) -> Split | None:
    """Return the images that a run was judged on; None where they are not here, or others."""
    recipe = run.recipe
    try:
        dataset = load_dataset(recipe.data.name, val=recipe.data.val)
    except InputError:
        return None
    if dataset.fingerprint != run.environment.get("data_sha256"):
        return None
    return dataset.test if recipe.train.test else dataset.val


def audit_of(run: RunRecord, model: nn.Module | None = None) -> Audit | None:
    """Return the layers of a run by its recipe alone; None where it cannot be built here."""
    try:
        refuse_inside(run.recipe.model.name, run.path)
        return plan(run.recipe, model).audit
    except InputError:
        return None


def _unjudged(run: RunRecord, model: nn.Module | None, problem: str | None) -> Account:
    images = split_of(run) if run.state == "finished" else None
    found = tuple(mismatches_of(run))
    return Account(run, None, problem, None, audit_of(run, model), None, images, found)


def mismatches_of(run: RunRecord) -> list[Violation]:
    """Return what was altered in a run that has ended, by its seal alone.

    Weights and table may be left out of a folder that is kept as a record; that is no lie.
    """
    if run.result is None:
        return []
    left_out = ("altered weights.safetensors", "altered audit.txt")
    return [v for v in altered(run) if not (v.rule in left_out and v.value == "None")]
