"""What a model and its training may cost, and what they must reach.

A budget is judged three times by three means: on what `plan` predicts, on what a run measured,
and on what `audit` recomputes. All three hand a `Usage` to `Budget.violations`, so the rules
are the same; what is not known yet is None and is not judged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Literal

from whit.analysis.kinds import LAYER_KINDS

Verdict = Literal["met", "missed", "open"]

_LIMIT = re.compile(r"\s*(<=|>=|<|>)\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*")


@dataclass(frozen=True)
class Limit:
    """A bound such as `< 20000` or `>= 99.40`, kept exactly as written."""

    sign: Literal["<", "<=", ">", ">="]
    text: str

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read `< 20000`; raises ValueError for anything else."""
        match = _LIMIT.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is not a limit such as '< 20000' or '>= 99.40'")
        sign, number = match.groups()
        return cls(sign, number.replace("_", ""))  # type: ignore[arg-type]

    @property
    def value(self) -> Fraction:
        return Fraction(self.text)

    def allows(self, value: Fraction | int) -> bool:
        """Exact comparison: 99.39 never passes `>= 99.40`, whatever a float would print."""
        return {
            "<": value < self.value,
            "<=": value <= self.value,
            ">": value > self.value,
            ">=": value >= self.value,
        }[self.sign]

    def __str__(self) -> str:
        return f"{self.sign} {self.text}"


@dataclass(frozen=True)
class Violation:
    """One broken rule: which, the limit, the value found, and how to mend it."""

    rule: str
    limit: str
    value: int | float | str
    message: str

    def to_json(self) -> dict[str, int | float | str]:
        return {
            "rule": self.rule,
            "limit": self.limit,
            "value": self.value,
            "message": self.message,
        }


@dataclass(frozen=True)
class Usage:
    """What was predicted, measured or recomputed; None where it is not known.

    `epochs` is images seen / images in the training split. `correct` of `total` test images
    were right after the last epoch. `kinds` are the layer kinds that the forward pass uses.
    `leaked` counts test images that also stand in the training or validation split.
    `selected_on_test` is true when the weights judged were chosen by their test accuracy.
    """

    params: int | None = None
    epochs: Fraction | None = None
    correct: int | None = None
    total: int | None = None
    kinds: frozenset[str] | None = None
    leaked: int = 0
    selected_on_test: bool = False


@dataclass(frozen=True)
class Budget:
    """The limits of a recipe's `[budget]`; an absent limit is None and always kept."""

    params: Limit | None = None
    epochs: Limit | None = None
    accuracy: Limit | None = None
    require: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()

    def violations(self, usage: Usage) -> tuple[Violation, ...]:
        """Return every broken rule, in the order of the fields."""
        found = []
        if self.params and usage.params is not None and not self.params.allows(usage.params):
            over = usage.params - int(self.params.value) + (self.params.sign == "<")
            found.append(
                Violation(
                    "params",
                    str(self.params),
                    usage.params,
                    f"{usage.params:,} parameters, allowed {self.params}: "
                    f"make it smaller by {over:,} or more (frozen weights and buffers count).",
                )
            )
        if self.epochs and usage.epochs is not None and not self.epochs.allows(usage.epochs):
            shown = exact_decimal(usage.epochs)
            found.append(
                Violation(
                    "epochs",
                    str(self.epochs),
                    json_number(usage.epochs),
                    f"{shown} epochs, allowed {self.epochs}: {shown} is not {self.epochs}; "
                    "lower train.epochs.",
                )
            )
        if self.accuracy and usage.correct is not None:
            assert usage.total is not None
            reached = Fraction(100 * usage.correct, usage.total)
            if not self.accuracy.allows(reached):
                found.append(
                    Violation(
                        "accuracy",
                        str(self.accuracy),
                        floor_percent(usage.correct, usage.total),
                        f"{usage.correct}/{usage.total} = "
                        f"{percent(usage.correct, usage.total)} % on the test split after the "
                        f"last epoch, wanted {self.accuracy}: train longer, or a better model.",
                    )
                )
            elif usage.leaked and not self.accuracy.allows(
                Fraction(100 * max(0, usage.correct - usage.leaked), usage.total)
            ):
                # An image that was trained on proves nothing, so it is counted as wrong here.
                found.append(
                    Violation(
                        "test images in training",
                        "0",
                        usage.leaked,
                        f"{usage.leaked:,} of the {usage.total:,} test images also stand in the "
                        f"training data; without them {self.accuracy} is not shown: "
                        "take them out of the training data.",
                    )
                )
        if usage.selected_on_test:
            found.append(
                Violation(
                    "selection on test",
                    "last epoch",
                    "chosen by test accuracy",
                    "the weights were chosen by their accuracy on the test split: "
                    "judge the last epoch, or choose on the validation split.",
                )
            )
        if usage.kinds is not None:
            for kind in self.require:
                if kind not in usage.kinds:
                    found.append(
                        Violation(
                            f"require {kind}",
                            "present",
                            "absent",
                            f"no {kind} in the forward pass ({LAYER_KINDS[kind]}): "
                            f"add one, or take {kind!r} out of budget.require.",
                        )
                    )
            for kind in self.forbid:
                if kind in usage.kinds:
                    found.append(
                        Violation(
                            f"forbid {kind}",
                            "absent",
                            "present",
                            f"a {kind} layer is in the forward pass ({LAYER_KINDS[kind]}): "
                            f"replace it, or take {kind!r} out of budget.forbid.",
                        )
                    )
        return tuple(found)

    def verdict(self, usage: Usage) -> Verdict:
        """`missed` if a rule is broken, `open` if one cannot be judged yet, else `met`."""
        if self.violations(usage):
            return "missed"
        unknown = (
            (self.params and usage.params is None)
            or (self.epochs and usage.epochs is None)
            or (self.accuracy and usage.correct is None)
            or ((self.require or self.forbid) and usage.kinds is None)
        )
        return "open" if unknown else "met"

    def rows(self, usage: Usage) -> list[tuple[str, str, str, bool | None]]:
        """Return (rule, limit, value, kept) of every rule, for a table; None is not known yet."""
        broken = {violation.rule for violation in self.violations(usage)}
        rows: list[tuple[str, str, str, bool | None]] = []
        if self.params:
            value = "?" if usage.params is None else f"{usage.params:,}"
            rows.append(("params", str(self.params), value, _kept(usage.params, "params", broken)))
        if self.epochs:
            value = "?" if usage.epochs is None else exact_decimal(usage.epochs)
            rows.append(("epochs", str(self.epochs), value, _kept(usage.epochs, "epochs", broken)))
        if self.accuracy:
            value = "?"
            if usage.correct is not None and usage.total is not None:
                value = f"{percent(usage.correct, usage.total)} ({usage.correct}/{usage.total})"
            kept = _kept(usage.correct, "accuracy", broken)
            rows.append(("accuracy", str(self.accuracy), value, kept))
        for rule, kinds in (("require", self.require), ("forbid", self.forbid)):
            for kind in kinds:
                value = "?"
                if usage.kinds is not None:
                    value = "present" if kind in usage.kinds else "absent"
                limit = "present" if rule == "require" else "absent"
                name = f"{rule} {kind}"
                rows.append((name, limit, value, _kept(usage.kinds, name, broken)))
        return rows


def _kept(known: object, rule: str, broken: set[str]) -> bool | None:
    return None if known is None else rule not in broken


def percent(correct: int, total: int) -> str:
    """Return the accuracy in percent with two decimals, never rounded up: 99.39 for 9,939."""
    hundredths = 10_000 * correct // total
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def floor_percent(correct: int, total: int) -> float:
    """Return the accuracy in percent as a float of at most four decimals, never rounded up."""
    return (1_000_000 * correct // total) / 10_000


def exact_decimal(value: Fraction) -> str:
    """Return `20`, `2.5`, or `3.001` rounded up, so that an excess never disappears.

    A broken number is never shown as a whole one: 19.99998 keeps as many digits as that takes.
    """
    if value.denominator == 1:
        return str(value.numerator)
    digits = 3
    while not (scaled := ceil(value * 10**digits)) % 10**digits:
        digits += 3
    whole, rest = divmod(scaled, 10**digits)
    return f"{whole}.{rest:0{digits}d}".rstrip("0")


def json_number(value: Fraction) -> int | float:
    """Return an int where the value is whole, else the nearest float."""
    return value.numerator if value.denominator == 1 else float(value)
