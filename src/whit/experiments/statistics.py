"""What a sample of seeds shows: its mean with an interval, and whether a difference is real.

All intervals are Student's t at 95 %; they speak of more seeds on the same images, not of other
images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Any

LEVEL = 0.95
_MAX_SEEDS = 1000  # more than anybody will train; beyond it a number would say little
_NO_SPREAD = 1e-9  # points: far below one image of any test split, far above what floats lose


@dataclass(frozen=True)
class SampleStats:
    """Percentages over seeds. `sd` and `interval` (of the mean) are None for a single seed."""

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
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class SignificanceTest:
    """`b` - `a` in points of accuracy, with its 95 % interval where there is one.

    `p_value` is how often chance alone would give one at least as large, None where a single
    seed, or several without any spread, cannot say. `seeds_needed` is how many further seeds on
    each side would probably show a difference of this size; None when it is significant already or
    more than 1,000 would be needed.
    """

    a: str
    b: str
    difference_pp: float
    interval: tuple[float, float] | None
    p_value: float | None
    method: str
    seeds_needed: int | None = None

    @property
    def is_significant(self) -> bool:
        return self.p_value is not None and self.p_value < 1 - LEVEL

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "difference": self.difference_pp,
            "interval": self.interval,
            "p_value": self.p_value,
            "method": self.method,
            "is_shown": self.is_significant,
            "more_seeds": self.seeds_needed,
            "said": str(self),
        }

    def __str__(self) -> str:
        text = f"{self.b} against {self.a}: {self.difference_pp:+.3f} points"
        if self.interval:
            low, high = self.interval
            text += f", 95 % interval {low:+.3f} to {high:+.3f}"
        if self.p_value is not None:
            text += f", p = {self.p_value:.2g}"
        return f"{text} ({self.method}): {self._conclusion()}"

    def _conclusion(self) -> str:
        if self.is_significant and self.interval is None:
            return "these two networks differ. Of their recipes one seed says little: train more."
        if self.is_significant:
            better, worse = (self.b, self.a) if self.difference_pp > 0 else (self.a, self.b)
            return f"the evidence suffices: {better} is better than {worse}."
        text = "the evidence does not suffice to call one better"
        if self.interval is None:
            return f"{text}; train more seeds of each."
        if self.seeds_needed is None:
            return f"{text}, and {_MAX_SEEDS:,} seeds would not either if it is as small as seen."
        return (
            f"{text}; if the difference is as large as seen, about {self.seeds_needed:,} more "
            f"seed{'s' if self.seeds_needed > 1 else ''} of each would."
        )


def paired_t_test(a: str, b: str, pairs: Sequence[tuple[float, float]]) -> SignificanceTest:
    """Compare two recipes by the seeds that both were trained with: Student's t for pairs."""
    gaps = [value_b - value_a for value_a, value_b in pairs]
    n, sd = len(gaps), stdev(gaps)
    method = f"Student's t, {n} seeds in pairs"
    return _t_test(a, b, fmean(gaps), sd / math.sqrt(n), n - 1, sd, n, method)


def welch_t_test(
    a: str, b: str, values_a: Sequence[float], values_b: Sequence[float]
) -> SignificanceTest:
    """Compare two samples of different seeds by Welch's t (Biometrika 1947).

    One of them may be a single seed: its spread is then taken to be that of the other.
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
    method = f"Welch's t, {n_a} and {n_b} seeds"
    difference = fmean(values_b) - fmean(values_a)
    sd, error = math.sqrt(variance_a + variance_b), math.sqrt(part_a + part_b)
    return _t_test(a, b, difference, error, dof, sd, min(n_a, n_b), method)


def mcnemar_test(a: str, b: str, difference: float, only_a: int, only_b: int) -> SignificanceTest:
    """Compare two single runs by the images that only one of them got right: McNemar, exact.

    It says whether these two networks differ, not whether their recipes do (Biometrika 1947).
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    p_value = min(1.0, 2 * tail / 2**n)
    method = f"McNemar on {n} images, one seed each"
    return SignificanceTest(a, b, difference, None, p_value, method)


def _t_test(
    a: str, b: str, difference: float, error: float, dof: float, sd: float, n: int, method: str
) -> SignificanceTest:
    if error < _NO_SPREAD:
        # Few seeds tie by chance on a grain of one image, which says nothing of the next seed.
        method += ", which do not spread at all"
        return SignificanceTest(a, b, difference, None, None, method)
    half = t_critical(dof) * error
    p_value = t_two_sided_p(abs(difference) / error, dof)
    seeds_needed = None
    if p_value >= 1 - LEVEL and difference:
        # Of the fewest seeds on each side whose interval would leave out zero.
        counts = range(2, _MAX_SEEDS + 1)
        errors = ((k, t_critical(k - 1) * sd / math.sqrt(k)) for k in counts)
        seeds_needed = next((max(1, k - n) for k, half in errors if half < abs(difference)), None)
    interval = (difference - half, difference + half)
    return SignificanceTest(a, b, difference, interval, p_value, method, seeds_needed)


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
