"""Numbers for JSON: exact decimals in place of the floats beside them."""

from __future__ import annotations

from fractions import Fraction
from statistics import fmean

from hypothesis import given
from hypothesis import strategies as st

from whit.system.numbers import round_json


def test_a_mean_of_percentages_is_its_exact_decimal() -> None:
    values = [100 * correct / 400 for correct in (387, 388, 388, 386.8)]
    assert str(round_json(fmean(values))) == "96.8625"
    assert round_json(96.86250000000001) == 96.8625
    assert round_json((96.86250000000001, 1, None)) == [96.8625, 1, None]
    assert round_json(None) is None
    assert round_json(True) is True


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=16))
def test_means_over_seeds_are_within_half_a_millionth_of_the_fraction(correct: list[int]) -> None:
    exact = Fraction(100 * sum(correct), 10_000 * len(correct))
    shown = round_json(fmean(100 * n / 10_000 for n in correct))
    assert abs(Fraction(str(shown)) - exact) <= Fraction(1, 2_000_000) + Fraction(1, 10**11)
