"""Budgets: limits on a model and its training, and the verdict.

A budget is judged three times: on what `plan` predicts, on what a run measured, and on what
`audit` recomputes. All three pass `Metrics` to `Budget.violations`, so the rules are the same; a
metric that is not known yet is None, and its rule is pending. Each key of `[budget]` is one rule:
the recipe's schema, verdicts, tables and violations all iterate over `RULES`.
"""

from __future__ import annotations

import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from whit.analysis.kinds import LAYER_KINDS
from whit.errors import WhitError, did_you_mean
from whit.system.numbers import exact_decimal, floor_percent, json_number, percent

if TYPE_CHECKING:
    from whit.analysis import Audit

Verdict = Literal["met", "missed", "pending"]

_SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_LIMIT = re.compile(r"\s*(<=|>=|<|>)\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*")

COUNTED_RULE = "every number counted"  # in every budget, pending where something is not counted


@dataclass(frozen=True)
class Limit:
    """A bound such as `< 20000` or `>= 99.40`, stored exactly as written."""

    sign: Literal["<", "<=", ">", ">="]
    text: str

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read `< 20000`; raises ValueError if it is not a limit."""
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
        return bool(_SIGNS[self.sign](value, self.value))

    def __str__(self) -> str:
        return f"{self.sign} {self.text}"


@dataclass(frozen=True)
class Violation:
    """One violated rule: its name, the limit, the actual value, and how to fix it."""

    rule: str
    limit: str
    value: int | float | str
    message: str

    def to_json(self) -> dict[str, int | float | str]:
        return asdict(self)


@dataclass(frozen=True)
class Metrics:
    """What was predicted, measured or recomputed; None where it is not known.

    `epochs` is images seen / images in the training split. `correct` of `total` test images
    were classified correctly after the last epoch. `kinds` are the layer kinds of the forward
    pass; without `kinds_known` it was not seen whole, and kinds that are not among them are
    unknown. `macs` are multiply-adds for one decision, which takes `forward_passes` passes;
    `receptive_field` is in input pixels, (rows, columns) if they differ. `leaked` counts test
    images that are also in the training or validation split. `selected_on_test` is true when the
    weights were selected by their test accuracy. `unverified` are
    sentences about numbers that inference may read and that could not be counted.
    `batch_dependence` says why the output for an image depends on other images or other calls.
    """

    params: int | None = None
    epochs: Fraction | None = None
    correct: int | None = None
    total: int | None = None
    kinds: frozenset[str] | None = None
    macs: int | None = None
    forward_passes: int = 1
    receptive_field: float | tuple[float, float] | None = None
    leaked: int = 0
    selected_on_test: bool = False
    kinds_known: bool = True
    unverified: tuple[str, ...] = ()
    batch_dependence: str | None = None

    @classmethod
    def from_audit(cls, audit: Audit, forward_passes: int) -> Metrics:
        """Return the metrics of a network that needs `forward_passes` passes per decision."""
        macs = None if audit.macs is None else audit.macs * forward_passes
        return cls(
            audit.params.total,
            kinds=audit.kinds,
            macs=macs,
            forward_passes=forward_passes,
            receptive_field=audit.receptive_field,
            kinds_known=audit.kinds_known,
            unverified=audit.unverified,
            batch_dependence=audit.batch_dependence,
        )

    def network_json(self) -> dict[str, Any]:
        """Return the metrics of the network for `result.json`; a pair becomes a list."""
        size: Any = self.receptive_field
        return {
            "params": self.params,
            "macs": self.macs,
            "forward_passes": self.forward_passes,
            "receptive_field": list(size) if isinstance(size, tuple) else size,
        }


Row = tuple[str, str, str, bool | None]  # rule, limit, value, whether it passes (None: unknown)
Check = tuple[
    Row | None, Violation | None
]  # a rule without a row is shown only where it is violated


class LimitRule(ABC):
    """A bound on one number. A new one is a subclass of this and its entry in RULES.

    `key` is its name in `[budget]`, and that of the metric unless `measure` says otherwise.
    `example` shows how the bound is written, and which sign it takes.
    """

    key: str
    example: str
    description: str  # what it bounds, for the reference of keys
    unit: str
    default = None
    is_percent = False

    @property
    def annotation(self) -> Any:
        """The type of the key's value in a recipe, for pydantic."""
        return Annotated[str | None, BeforeValidator(self.validate)]

    def validate(self, value: object) -> str | None:
        """Return the text in its standard form. Raises ValueError if it is not such a limit."""
        if value is None:
            return None
        if not isinstance(value, str):
            raise ValueError(f'a limit is a string with a comparison, such as "{self.example}"')
        try:
            limit = Limit.parse(value)
            is_over_100 = limit.value > 100  # fails with thousands of digits
        except ValueError:
            raise ValueError(
                f'a limit is a comparison and a number, such as "{self.example}"'
            ) from None
        sign = self.example[0]
        if limit.sign[0] != sign:
            raise ValueError(f'the comparison must be {sign} or {sign}=, as in "{self.example}"')
        if self.is_percent and is_over_100:
            raise ValueError(f"{self.key} is in percent, at most 100")
        return str(limit)

    def measure(self, metrics: Metrics) -> Any:
        """Return the number that the limit bounds; None while it is not known."""
        return getattr(metrics, self.key)

    @abstractmethod
    def explain(self, value: Any, limit: Limit, metrics: Metrics) -> str:
        """Return how the number violates the limit, and how to fix it."""

    def format(self, value: Any, metrics: Metrics) -> str:
        """Return the number for a table."""
        return f"{value:,}"

    def to_json(self, value: Any) -> int | float:
        return json_number(Fraction(value))

    def check(self, limit: str | None, metrics: Metrics) -> Iterator[Check]:
        """Check the key's value in a recipe, None where it is absent, against the metrics."""
        if limit is None:
            return
        value, bound = self.measure(metrics), Limit.parse(limit)
        if value is None:
            yield (self.key, limit, "?", None), None
            return
        violation = None
        if not bound.allows(value):
            message = self.explain(value, bound, metrics)
            violation = Violation(self.key, limit, self.to_json(value), message)
        yield (self.key, limit, self.format(value, metrics), violation is None), violation


class ParamsRule(LimitRule):
    key, example = "params", "< 20000"
    description, unit = "every number that is stored and needed for inference", "parameters"

    def explain(self, value: int, limit: Limit, metrics: Metrics) -> str:
        excess = value - int(limit.value) + (limit.sign == "<")
        return (
            f"{value:,} parameters, allowed {limit}: "
            f"remove at least {excess:,} (frozen weights and buffers count)."
        )


class EpochsRule(LimitRule):
    key, example = "epochs", "< 20"
    description, unit = "images seen / images in the training split", "epochs"

    def format(self, value: Fraction, metrics: Metrics) -> str:
        return exact_decimal(value)

    def explain(self, value: Fraction, limit: Limit, metrics: Metrics) -> str:
        epochs = exact_decimal(value)
        return f"{epochs} epochs, allowed {limit}: {epochs} is not {limit}; lower train.epochs."


class AccuracyRule(LimitRule):
    """Percent of the test split after the last epoch; images seen in training do not count."""

    key, example, is_percent = "accuracy", ">= 99.40", True
    description, unit = "on the test split after the last epoch", "percent"

    def measure(self, metrics: Metrics) -> Fraction | None:
        correct, total = metrics.correct, metrics.total
        return None if correct is None or total is None else Fraction(100 * correct, total)

    def format(self, value: Fraction, metrics: Metrics) -> str:
        return f"{percent(*(value / 100).as_integer_ratio())} ({metrics.correct}/{metrics.total})"

    def to_json(self, value: Fraction) -> float:
        return floor_percent(*(value / 100).as_integer_ratio())

    def explain(self, value: Fraction, limit: Limit, metrics: Metrics) -> str:
        return (
            f"{metrics.correct}/{metrics.total} = {percent(*(value / 100).as_integer_ratio())} % "
            f"on the test split after the last epoch, required {limit}: train longer, or use a "
            "better model."
        )

    def check(self, limit: str | None, metrics: Metrics) -> Iterator[Check]:
        yield from super().check(limit, metrics)
        value, leaked, total = self.measure(metrics), metrics.leaked, metrics.total
        if limit and value is not None and total:
            bound = Limit.parse(limit)
            # A training image is no evidence, so it counts as misclassified here.
            unseen = max(Fraction(0), value - Fraction(100 * leaked, total))
            if bound.allows(value) and not bound.allows(unseen):
                message = (
                    f"{leaked:,} of the {total:,} test images are also in the training data; "
                    f"without them {limit} is not reached: remove them from the training data."
                )
                yield None, Violation("test images in training", "0", leaked, message)
        if metrics.selected_on_test:
            message = (
                "the weights were selected by their accuracy on the test split: use those of the "
                "last epoch, or select on the validation split."
            )
            chosen = "selected by test accuracy"
            yield None, Violation("selection on test", "last epoch", chosen, message)


@dataclass(frozen=True)
class KindsRule:
    """Layer kinds of which each must be `present` in the forward pass, or `absent`."""

    key: str
    state: str
    problem: str  # with {kind} and {meaning}
    description: str
    unit = "layer kinds"
    default = ()

    @property
    def annotation(self) -> Any:
        return Annotated[tuple[str, ...], AfterValidator(self.validate)]

    def validate(self, kinds: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [kind for kind in kinds if kind not in LAYER_KINDS]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is not a layer kind.{did_you_mean(unknown[0], LAYER_KINDS)} "
                f"Allowed: {', '.join(LAYER_KINDS)}"
            )
        return kinds

    def check(self, limit: tuple[str, ...] | None, metrics: Metrics) -> Iterator[Check]:
        for kind in limit or ():
            rule = f"{self.key} {kind}"
            if metrics.kinds is None:
                yield (rule, self.state, "?", None), None
                continue
            if kind not in metrics.kinds and not metrics.kinds_known:
                yield (rule, self.state, "unknown", None), None
                continue
            state = "present" if kind in metrics.kinds else "absent"
            violation = None
            if state != self.state:
                problem = self.problem.format(kind=kind, meaning=LAYER_KINDS[kind])
                message = f"{problem}, or remove {kind!r} from budget.{self.key}."
                violation = Violation(rule, self.state, state, message)
            yield (rule, self.state, state, violation is None), violation


# In the order of the keys in a recipe, of the rows of a table and of the violations.
RULES: tuple[LimitRule | KindsRule, ...] = (
    ParamsRule(),
    EpochsRule(),
    AccuracyRule(),
    KindsRule(
        "require",
        "present",
        "no {kind} in the forward pass ({meaning}): add one",
        "each must be in the forward pass",
    ),
    KindsRule(
        "forbid",
        "absent",
        "a {kind} layer is in the forward pass ({meaning}): replace it",
        "none may be in the forward pass",
    ),
)


def check_judged_alone(metrics: Metrics) -> Iterator[Check]:
    """Check that the output for an image depends on that image alone, as every budget requires."""
    if metrics.batch_dependence:
        message = f"{metrics.batch_dependence}: each image must be judged alone."
        rule = "each image judged alone"
        value = "depends on more than that image"
        yield (
            (rule, "yes", "no", False),
            Violation(rule, "that image alone", value, message),
        )


def check_counted(metrics: Metrics) -> Iterator[Check]:
    """Check that every number that inference reads could be counted."""
    if metrics.unverified:
        yield (COUNTED_RULE, "yes", "?", None), None


@dataclass(frozen=True)
class Budget:
    """The validated values of a recipe's `[budget]` by key; absent or None means no limit."""

    limits: Mapping[str, Any] = field(default_factory=dict)

    def _checks(self, metrics: Metrics) -> Iterator[Check]:
        for rule in RULES:
            yield from rule.check(self.limits.get(rule.key), metrics)
        yield from check_judged_alone(metrics)
        yield from check_counted(metrics)

    def violations(self, metrics: Metrics) -> tuple[Violation, ...]:
        """Return every violation, in the order of RULES."""
        return tuple(violation for _, violation in self._checks(metrics) if violation)

    def rows(self, metrics: Metrics) -> list[Row]:
        """Return (rule, limit, value, passes) of every rule, for a table; None is unknown."""
        return [row for row, _ in self._checks(metrics) if row]

    def verdict(self, metrics: Metrics) -> Verdict:
        """`missed` if a rule is violated, `pending` if one cannot be checked, else `met`.

        Nothing is `met` by a network whose forward pass was not seen whole.
        """
        if self.violations(metrics):
            return "missed"
        if not metrics.kinds_known:
            return "pending"
        return "pending" if any(row[3] is None for row in self.rows(metrics)) else "met"


class BudgetInfeasible(WhitError):
    """The model can never meet its budget, so nothing was trained; `violations` has the reasons."""

    exit_code = 1

    def __init__(self, violations: Sequence[Violation]):
        self.violations = tuple(violations)
        super().__init__("\n".join(violation.message for violation in violations))
