"""Statistics of accuracies over seeds: means with confidence intervals, and significance tests.

Intervals are Student's t at 95 %. They describe the variation over seeds on the same images, not
over other images.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean, stdev
from typing import Any

from whit.system.numbers import round_json

LEVEL = 0.95
_MAX_SEEDS = 1000  # far more than anybody trains
_MIN_P = 0.0001  # smaller p-values are printed as below it
_NO_SPREAD = 1e-9  # points: far below one image of any test split, far above what floats lose


@dataclass(frozen=True)
class SampleStats:
    """Percentages over seeds. `sd` and `interval` (of the mean) are None for a single seed.

    Student's t knows no bounds, so the interval is cut at 0 and 100 %.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def sd(self) -> float | None:
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        if self.sd is None:
            return None
        half = t_critical(len(self.values) - 1) * self.sd / math.sqrt(len(self.values))
        return _clip(self.mean, half, 0.0, 100.0)

    @property
    def lower_end(self) -> float | None:
        """The lower end of the one-sided 95 % interval of the mean: it lies above with 95 %."""
        if self.sd is None:
            return None
        t = t_critical(len(self.values) - 1, 2 * LEVEL - 1)  # both tails are outside of a level
        return max(self.mean - t * self.sd / math.sqrt(len(self.values)), 0.0)


@dataclass(frozen=True, repr=False)
class SignificanceTest:
    """`b` - `a` in percentage points of accuracy, with its 95 % interval where there is one.

    `p_value` is the probability of a difference at least as large if the recipes were equal; None
    where a single seed, or seeds without variance, allow no test. Where it is one of
    `num_comparisons` tests, `adjusted_p` is the p-value after Holm's correction, which decides
    significance; the interval is not corrected. `seeds_needed` is about how many more seeds per
    recipe would make a difference of this size significant; None when it already is, or when more
    than 1,000 would be needed.
    """

    a: str
    b: str
    difference_pp: float
    interval: tuple[float, float] | None
    p_value: float | None
    method: str
    seeds_needed: int | None = None
    adjusted_p: float | None = None
    num_comparisons: int = 1

    @property
    def is_significant(self) -> bool:
        p_value = self.p_value if self.adjusted_p is None else self.adjusted_p
        return p_value is not None and p_value < 1 - LEVEL

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "difference": round_json(self.difference_pp),
            "interval": round_json(self.interval),
            "p_value": _json_p(self.p_value),
            "adjusted_p_value": _json_p(self.adjusted_p),
            "method": self.method,
            "is_significant": self.is_significant,
            "seeds_needed": self.seeds_needed,
            "text": str(self),
        }

    def __str__(self) -> str:
        text = f"{self.b} vs. {self.a}: {self.difference_pp:+.3f} percentage points"
        if self.interval:
            low, high = self.interval
            text += f", 95 % interval {low:+.3f} to {high:+.3f}"
        if self.p_value is not None:
            text += f", {format_p(self.p_value)}"
        if self.adjusted_p is not None:
            text += f", Holm-adjusted for {self.num_comparisons} comparisons "
            text += format_p(self.adjusted_p)
        return f"{text} ({self.method}): {self._conclusion()}"

    __repr__ = __str__  # the same at a prompt as printed

    def _conclusion(self) -> str:
        if self.is_significant and self.interval is None:
            return (
                "these two trained networks differ significantly. One seed says little about their "
                "recipes: train more seeds."
            )
        if self.is_significant:
            better, worse = (self.b, self.a) if self.difference_pp > 0 else (self.a, self.b)
            return f"statistically significant, {better} is better than {worse}."
        if self.p_value is None:
            return "no significance test is possible; train more seeds per recipe."
        text = "not statistically significant"
        if self.interval is None:
            return f"{text}; train more seeds per recipe."
        if self.seeds_needed is None:
            return f"{text}; even {_MAX_SEEDS:,} seeds could not resolve a difference this small."
        return (
            f"{text}; about {self.seeds_needed:,} more seed{'s' if self.seeds_needed > 1 else ''} "
            "per recipe would be needed to detect a difference this large."
        )


def format_p(p_value: float) -> str:
    """Return `p = 0.012`, or `p < 0.0001`: a p-value is never printed as 0."""
    return f"p < {_MIN_P:.4f}" if p_value < _MIN_P else f"p = {p_value:.2g}"


def _json_p(p_value: float | None) -> float | None:
    """Return six significant digits; a p-value too small for a float is the smallest one."""
    return None if p_value is None else float(f"{max(p_value, sys.float_info.min):.6g}")


def paired_t_test(
    a: str, b: str, pairs: Sequence[tuple[float, float]], num_comparisons: int = 1
) -> SignificanceTest:
    """Compare two recipes by the seeds that both were trained with."""
    gaps = [value_b - value_a for value_a, value_b in pairs]
    n, sd = len(gaps), stdev(gaps)
    test = _t_test(
        fmean(gaps), error=sd / math.sqrt(n), dof=n - 1, sd=sd, n=n, num_comparisons=num_comparisons
    )
    return test.to_test(a, b, f"paired t-test, n = {n}")


def welch_t_test(
    a: str,
    b: str,
    values_a: Sequence[float],
    values_b: Sequence[float],
    num_comparisons: int = 1,
) -> SignificanceTest:
    """Compare two samples of different seeds by Welch's t-test (Biometrika 34, 1947).

    One of them may be a single seed: its variance is then taken to be that of the other.
    """
    n_a, n_b = len(values_a), len(values_b)
    variance_a, variance_b = (
        stdev(sample if len(sample) > 1 else other) ** 2
        for sample, other in ((values_a, values_b), (values_b, values_a))
    )
    part_a, part_b = variance_a / n_a, variance_b / n_b
    if n_a == 1 or n_b == 1:
        dof = float(max(n_a, n_b) - 1)
    else:
        squares = part_a**2 / (n_a - 1) + part_b**2 / (n_b - 1)
        dof = (part_a + part_b) ** 2 / squares if squares else float(n_a + n_b - 2)
    test = _t_test(
        fmean(values_b) - fmean(values_a),
        error=math.sqrt(part_a + part_b),
        dof=dof,
        sd=math.sqrt(variance_a + variance_b),
        n=min(n_a, n_b),
        num_comparisons=num_comparisons,
    )
    return test.to_test(a, b, f"Welch's t-test, n = {n_a} and {n_b}")


def mcnemar_test(a: str, b: str, difference: float, only_a: int, only_b: int) -> SignificanceTest:
    """Compare two single runs by the images that only one of them classifies correctly.

    McNemar's exact test (Psychometrika 12, 1947) compares these two networks, not their recipes.
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    p_value = min(1.0, 2 * tail / 2**n)
    method = f"McNemar's exact test, {n} images differ, one seed each"
    return SignificanceTest(a, b, difference, None, p_value, method)


@dataclass(frozen=True)
class _TTest:
    difference: float
    interval: tuple[float, float] | None
    p_value: float | None
    seeds_needed: int | None

    def to_test(self, a: str, b: str, method: str) -> SignificanceTest:
        if self.p_value is None:
            method += ", no variance"
        return SignificanceTest(
            a, b, self.difference, self.interval, self.p_value, method, self.seeds_needed
        )


def _t_test(
    difference: float, *, error: float, dof: float, sd: float, n: int, num_comparisons: int
) -> _TTest:
    """Test a difference of standard error `error`; `sd` is that of one seed of each recipe."""
    if error < _NO_SPREAD:
        # A few seeds may agree by chance to within one image, which says nothing of the next seed.
        return _TTest(difference, None, None, None)
    half = t_critical(dof) * error
    p_value = t_two_sided_p(abs(difference) / error, dof)
    # Holm's method always rejects below this share, and a test that it accepts lies above it.
    alpha = (1 - LEVEL) / num_comparisons
    seeds_needed = None
    if p_value >= alpha and difference:
        counts = range(2, _MAX_SEEDS + 1)
        halves = ((k, t_critical(k - 1, 1 - alpha) * sd / math.sqrt(k)) for k in counts)
        seeds_needed = next((max(1, k - n) for k, h in halves if h < abs(difference)), None)
    return _TTest(difference, _clip(difference, half, -100.0, 100.0), p_value, seeds_needed)


def _clip(centre: float, half: float, low: float, high: float) -> tuple[float, float]:
    """Return centre ± half, without what no accuracy or difference of accuracies can be."""
    return max(centre - half, low), min(centre + half, high)


def holm_adjust(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple comparisons by Holm's step-down method.

    Rejecting those below 5 % bounds the probability of any false rejection by 5 %, whatever the
    dependence of the tests (Holm, Scandinavian Journal of Statistics 6(2), 1979, 65-70).
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def correct_tests(tests: Sequence[SignificanceTest]) -> tuple[SignificanceTest, ...]:
    """Return the tests of one comparison with Holm's correction, where there are several."""
    tested = [test.p_value for test in tests if test.p_value is not None]
    if len(tested) < 2:
        return tuple(tests)
    adjusted = iter(holm_adjust(tested))
    return tuple(
        test
        if test.p_value is None
        else replace(test, adjusted_p=next(adjusted), num_comparisons=len(tested))
        for test in tests
    )


def describe_correction(tests: Sequence[SignificanceTest]) -> str | None:
    """Return one sentence about the correction of `tests`; None where there is none."""
    counts = {test.num_comparisons for test in tests if test.adjusted_p is not None}
    if not counts:
        return None
    return (
        f"Significance is judged by p-values adjusted for {counts.pop()} comparisons (Holm's "
        "method); the intervals are not adjusted."
    )


@cache
def t_critical(dof: float, level: float = LEVEL) -> float:
    """Return t with P(|T| < t) = level for Student's t with `dof` degrees of freedom."""
    low, high = 0.0, 1.0
    while t_two_sided_p(high, dof) > 1 - level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if t_two_sided_p(middle, dof) > 1 - level:
            low = middle
        else:
            high = middle
    return high


def t_two_sided_p(t: float, dof: float) -> float:
    """Return P(|T| >= t) for Student's t: an incomplete beta function (DLMF 8.17)."""
    return _regularized_incomplete_beta(dof / (dof + t * t), dof / 2, 0.5)


def _regularized_incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction (8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, its mirror does not
        return 1 - _regularized_incomplete_beta(1 - x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    # Lentz's method: value = c1 d1 c2 d2 ... of the fraction 1 / (1 + d_1 / (1 + d_2 / ...)).
    value, c, d = 1.0, 1.0, 0.0
    for step in range(300):
        m = step // 2
        if step == 0:
            part = 1.0
        elif step % 2 == 0:
            part = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            part = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / ((1 + part * d) or 1e-300)
        c = 1 + part / c or 1e-300
        value *= c * d
        if abs(1 - c * d) < 1e-12 and step > 2:
            break
    return front * (value - 1) / a
