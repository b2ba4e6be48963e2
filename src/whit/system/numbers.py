"""Numbers as text and JSON: percentages never rounded up, decimals never rounded down."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any


def percent(correct: int, total: int) -> str:
    """Return the accuracy in percent with two decimals, never rounded up: 99.39 for 9,939."""
    hundredths = 10_000 * correct // total
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def floor_percent(correct: int, total: int) -> float:
    """Return the accuracy in percent as a float of at most four decimals, never rounded up."""
    return (1_000_000 * correct // total) / 10_000


def exact_decimal(value: Fraction) -> str:
    """Return `20`, `2.5`, or `3.001` rounded up, so that an excess never disappears.

    A fraction never looks like an integer: 19.99998 keeps as many digits as that takes.
    """
    if value.denominator == 1:
        return str(value.numerator)
    digits = 3
    while not (scaled := ceil(value * 10**digits)) % 10**digits:
        digits += 3
    integer, rest = divmod(scaled, 10**digits)
    return f"{integer}.{rest:0{digits}d}".rstrip("0")


def json_number(value: Fraction) -> int | float:
    """Return an int where the value is an integer, else the nearest float."""
    return value.numerator if value.denominator == 1 else float(value)


def round_json(value: Any) -> Any:
    """Return a number, or each number in a tuple, with at most six decimals; None stays None.

    Means of percentages are exact decimals that floats miss by a little: 96.8625, not
    96.86250000000001.
    """
    if isinstance(value, tuple | list):
        return [round_json(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
