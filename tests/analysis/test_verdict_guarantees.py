"""Every cheat of the catalogue has its outcome, and no honest habit is accused."""

from __future__ import annotations

import re
import warnings
from fractions import Fraction
from pathlib import Path

import pytest
from cheats import CASES, HONEST, IMAGE, Base, Case

from whit.analysis import Audit, audit_model
from whit.recipes.budget import Budget, Metrics

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "verdict-guarantees.md"
OUTCOMES = {
    "dependent": "missed",
    "counted": "counted",
    "unverified": "pending",
    "noted": "noted",
    "honest": "honest",
}


def audit(case: Case) -> Audit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao warns that it will move
        model = case.build()
    return audit_model(model, IMAGE, 10)


def judge(found: Audit) -> str:
    """Return the verdict where accuracy and epochs are as required."""
    metrics = Metrics.from_audit(found, 1)
    assert metrics.params == found.params.total
    budget = Budget({"params": f"< {HONEST + 50}", "accuracy": ">= 99.40"})
    known = {"epochs": Fraction(1), "correct": 10_000, "total": 10_000}
    return budget.verdict(Metrics(**{**vars(metrics), **known}))


def test_the_base_is_honest() -> None:
    found = audit_model(Base(), IMAGE, 10)
    assert found.params.total == HONEST
    assert found.notes == ()
    assert judge(found) == "met"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.build.__name__)
def test_the_outcome(case: Case) -> None:
    found = audit(case)
    added = found.params.total - HONEST
    if case.outcome == "dependent":
        assert found.batch_dependence is not None
        assert judge(found) == "missed"
        return
    assert found.batch_dependence is None
    if case.outcome == "unverified":
        assert found.unverified
        assert set(found.unverified) <= set(found.notes)
        assert judge(found) != "met"
        return
    assert found.unverified == ()
    assert added == case.numbers
    assert sum(layer.params for layer in found.layers) == found.params.total
    if case.outcome == "noted":
        assert found.expects_logits in found.notes or "never reach the output" in found.notes[0]
    else:
        assert found.expects_logits is None


def test_a_cause_names_the_line() -> None:
    (case,) = (case for case in CASES if case.build.__name__ == "BatchMean")
    assert re.search(
        r"mean \(cheats.py, line \d+, in forward\)", audit(case).batch_dependence or ""
    )


def test_the_page_lists_the_cases() -> None:
    """The tables of the page are the catalogue: what is tried, and what comes of it."""
    rows = re.findall(r"^\| (.+?) \| (\w+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    listed = [(text, outcome) for text, outcome in rows if outcome in OUTCOMES.values()]
    assert listed == [(case.text, OUTCOMES[case.outcome]) for case in CASES]
    assert sum(outcome != "honest" for _, outcome in listed) >= 30
