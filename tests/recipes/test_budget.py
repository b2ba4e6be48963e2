"""The budget: limits are exact, every broken rule is found, nothing is rounded in favour."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whit.analysis.kinds import LAYER_KINDS
from whit.recipes.budget import Budget, Limit, Metrics
from whit.system.numbers import exact_decimal, floor_percent, percent

FULL = Budget(
    {
        "params": "< 20000",
        "epochs": "< 20",
        "accuracy": ">= 99.40",
        "require": ("batchnorm", "dropout", "gap"),
        "forbid": ("linear",),
    }
)
KEPT = Metrics(
    params=19_999,
    epochs=Fraction(19),
    correct=9940,
    total=10_000,
    kinds=frozenset({"conv", "batchnorm", "dropout", "gap"}),
)


def rules(metrics: Metrics) -> list[str]:
    return [violation.rule for violation in FULL.violations(metrics)]


def test_kept() -> None:
    assert FULL.violations(KEPT) == ()
    assert FULL.verdict(KEPT) == "met"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"params": 20_000}, "params"),
        ({"epochs": Fraction(20)}, "epochs"),
        ({"epochs": Fraction(60_001 * 20 - 20_000, 60_000)}, None),  # 19.667: under 20
        ({"epochs": 20 + Fraction(1, 60_000)}, "epochs"),
        ({"correct": 9939}, "accuracy"),  # 99.39, which some print as 99.4
        ({"kinds": frozenset({"batchnorm", "dropout"})}, "require gap"),
        ({"kinds": KEPT.kinds | {"linear"}}, "forbid linear"),
        ({"leaked": 1}, "test images in training"),
        ({"selected_on_test": True}, "selection on test"),
    ],
)
def test_one_rule_at_a_time(change: dict[str, object], rule: str | None) -> None:
    metrics = Metrics(**{**vars(KEPT), **change})
    assert rules(metrics) == ([rule] if rule else [])
    assert FULL.verdict(metrics) == ("missed" if rule else "met")


def test_all_violations_at_once() -> None:
    metrics = Metrics(30_000, Fraction(20), 9000, 10_000, frozenset({"linear"}))
    assert rules(metrics) == [
        "params",
        "epochs",
        "accuracy",
        "require batchnorm",
        "require dropout",
        "require gap",
        "forbid linear",
    ]


def test_leaked_images_count_as_wrong_and_only_matter_when_they_matter() -> None:
    assert rules(Metrics(**{**vars(KEPT), "correct": 9960, "leaked": 20})) == []
    assert rules(Metrics(**{**vars(KEPT), "correct": 9960, "leaked": 21})) == [
        "test images in training"
    ]


def test_pending_until_everything_is_known() -> None:
    assert FULL.verdict(Metrics(params=10)) == "pending"
    assert FULL.verdict(Metrics(params=20_000)) == "missed"
    assert Budget().verdict(Metrics()) == "met"


def test_twenty_is_not_under_twenty_in_words() -> None:
    (violation,) = FULL.violations(Metrics(**{**vars(KEPT), "epochs": Fraction(20)}))
    assert "20 is not < 20" in violation.message


@pytest.mark.parametrize("text", ["20000", "< ", "== 3", "< -1", "<> 3", "< 1e3", "< x", ""])
def test_not_a_limit(text: str) -> None:
    with pytest.raises(ValueError, match="is not a limit"):
        Limit.parse(text)


def test_limit_keeps_its_digits() -> None:
    assert str(Limit.parse(">=99.40")) == ">= 99.40"
    assert Limit.parse("< 20_000").value == 20_000


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_percent_is_never_rounded_up(correct: int, total: int) -> None:
    correct = min(correct, total)
    exact = Fraction(100 * correct, total)
    assert (
        Fraction(percent(correct, total))
        <= exact
        < Fraction(percent(correct, total)) + (Fraction(1, 100))
    )
    assert Fraction(str(floor_percent(correct, total))) <= exact


@given(st.fractions(0, 100))
def test_an_excess_of_epochs_is_never_shown_away(epochs: Fraction) -> None:
    shown = Fraction(exact_decimal(epochs))
    assert shown >= epochs
    assert (shown.denominator == 1) == (epochs.denominator == 1)


def test_rows_say_what_violations_say() -> None:
    for metrics in (KEPT, Metrics(), Metrics(30_000, Fraction(20), 9000, 10_000, frozenset())):
        missed = [rule for rule, _, _, kept in FULL.rows(metrics) if kept is False]
        assert missed == [violation.rule for violation in FULL.violations(metrics)]


def test_every_kind_is_explained() -> None:
    assert all(LAYER_KINDS.values())


def test_numbers_that_are_not_counted_leave_the_verdict_pending() -> None:
    budget = Budget({"params": "< 20"})
    metrics = Metrics(params=1, unverified=("the forward pass reads a file",))
    assert budget.verdict(metrics) == "pending"
    assert budget.violations(metrics) == ()
    assert budget.rows(metrics)[-1] == ("every number counted", "yes", "?", None)
    assert budget.verdict(Metrics(params=30, unverified=metrics.unverified)) == "missed"
    assert Budget().verdict(metrics) == "pending"


def test_a_network_that_judges_images_together_meets_no_budget() -> None:
    metrics = Metrics(params=1, batch_dependence="the output depends on other images")
    for budget in (Budget(), Budget({"params": "< 20"})):
        assert budget.verdict(metrics) == "missed"
        (violation,) = budget.violations(metrics)
        assert violation.rule == "each image judged alone"
        assert "the output depends on other images" in violation.message
