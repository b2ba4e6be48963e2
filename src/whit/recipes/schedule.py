"""Learning-rate schedules by name: progress in [0, 1] to a factor of the peak rate.

Each is one entry of SCHEDULES. Progress is images seen / images planned, never a step number, so a
schedule stays valid when the batch size, the data set or the number of epochs changes. Where torch
counts in epochs (`step`, `multistep`), so do the keys here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from whit.errors import did_you_mean
from whit.recipes.field_types import Positive, Real, Section, key_field
from whit.system.validation_errors import field_error

Factor = Annotated[Real, Field(ge=0, le=1000)]
Progress = Annotated[Real, Field(ge=0, le=1)]
DEFAULT_SCHEDULE = "linear"


class Schedule(Section):
    """A schedule; its fields are the keys of `[schedule]`."""

    name: str

    @abstractmethod
    def factor_at(self, progress: float, epochs: int) -> float:
        """Return the factor of the peak rate at `progress` of a run of `epochs` epochs."""


class Linear(Schedule):
    """Piecewise linear through the points (`at`, `factor`); constant outside of them."""

    name: Literal["linear"]
    at: tuple[Progress, ...] = key_field(
        (0.0, 0.25, 1.0), "positions of the points, increasing", "progress"
    )
    factor: tuple[Factor, ...] = key_field(
        (0.1, 1.0, 0.0), "factor at each of the points", "multiple of optim.lr"
    )

    @model_validator(mode="after")
    def _check_points(self) -> Linear:
        if len(self.at) != len(self.factor) or not self.at:
            raise ValueError("at and factor must have the same length, at least 1")
        if any(a >= b for a, b in zip(self.at, self.at[1:], strict=False)):
            raise ValueError("at must increase from each point to the next")
        return self

    def factor_at(self, progress: float, epochs: int) -> float:
        return PiecewiseLinear(self.at, self.factor)(progress)


class Constant(Schedule):
    """The peak rate throughout."""

    name: Literal["constant"]

    def factor_at(self, progress: float, epochs: int) -> float:
        return 1.0


class OneCycle(Schedule):
    """`torch.optim.lr_scheduler.OneCycleLR`: up to the peak rate, then far below the initial one.

    Cosine annealing in two phases (arXiv 1708.07120); `optim.lr` is torch's `max_lr`.
    """

    name: Literal["onecycle"]
    pct_start: Annotated[Real, Field(gt=0, lt=1)] = key_field(
        0.3, "when the peak learning rate is reached", "progress"
    )
    div_factor: Annotated[Real, Field(ge=1, le=1e6)] = key_field(
        25.0, "peak learning rate / initial learning rate"
    )
    final_div_factor: Annotated[Real, Field(ge=1, le=1e9)] = key_field(
        1e4, "initial learning rate / final learning rate"
    )

    def factor_at(self, progress: float, epochs: int) -> float:
        start = 1 / self.div_factor
        if progress < self.pct_start:
            return _anneal(start, 1.0, progress / self.pct_start)
        end = start / self.final_div_factor
        return _anneal(1.0, end, (progress - self.pct_start) / (1 - self.pct_start))


class Cosine(Schedule):
    """A linear warm-up, then half a cosine from the peak rate down to `min_factor`.

    Without warm-up it is `torch.optim.lr_scheduler.CosineAnnealingLR` (arXiv 1608.03983).
    """

    name: Literal["cosine"]
    warmup: Annotated[Real, Field(ge=0, lt=1)] = key_field(
        0.0, "when the linear warm-up ends", "progress"
    )
    min_factor: Annotated[Real, Field(ge=0, le=1)] = key_field(
        0.0, "final learning rate", "multiple of optim.lr"
    )

    def factor_at(self, progress: float, epochs: int) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        return _anneal(1.0, self.min_factor, (progress - self.warmup) / (1 - self.warmup))


class Step(Schedule):
    """`torch.optim.lr_scheduler.StepLR`: times `gamma` after every `step_size` epochs."""

    name: Literal["step"]
    step_size: Positive = key_field(1, "epochs between two decreases", "epochs")
    gamma: Annotated[Real, Field(gt=0, le=1)] = key_field(
        0.1, "multiplies the learning rate at each decrease"
    )

    def factor_at(self, progress: float, epochs: int) -> float:
        return float(self.gamma ** (_epochs_done(progress, epochs) // self.step_size))


class MultiStep(Schedule):
    """`torch.optim.lr_scheduler.MultiStepLR`: times `gamma` after each of the epochs given."""

    name: Literal["multistep"]
    milestones: tuple[Positive, ...] = key_field(
        (), "epochs after which the learning rate decreases, increasing", "epochs"
    )
    gamma: Annotated[Real, Field(gt=0, le=1)] = key_field(
        0.1, "multiplies the learning rate at each decrease"
    )

    @model_validator(mode="after")
    def _check_milestones(self) -> MultiStep:
        if not self.milestones:
            raise ValueError("milestones is missing: list epochs, e.g. [5, 8]")
        if any(a >= b for a, b in zip(self.milestones, self.milestones[1:], strict=False)):
            raise ValueError("milestones must increase from each epoch to the next")
        return self

    def factor_at(self, progress: float, epochs: int) -> float:
        done = _epochs_done(progress, epochs)
        return float(self.gamma ** sum(done >= milestone for milestone in self.milestones))


SCHEDULES: dict[str, type[Schedule]] = {
    "linear": Linear,
    "constant": Constant,
    "onecycle": OneCycle,
    "cosine": Cosine,
    "step": Step,
    "multistep": MultiStep,
}


def parse_schedule(value: Any) -> Any:
    """Validate a `[schedule]` table by its name. Raises an error for an unknown one."""
    if not isinstance(value, dict):
        return value
    name = value.get("name", DEFAULT_SCHEDULE)
    if not isinstance(name, str) or name not in SCHEDULES:
        near = did_you_mean(name, SCHEDULES) if isinstance(name, str) else ""
        raise field_error(
            f"schedule.name = {name!r}: no such schedule.{near} Allowed: {', '.join(SCHEDULES)}"
        )
    return SCHEDULES[name].model_validate({**value, "name": name})


@dataclass(frozen=True)
class PiecewiseLinear:
    """Linear interpolation of the points (at[i], factor[i]); constant outside of them."""

    at: tuple[float, ...]
    factor: tuple[float, ...]

    def __call__(self, progress: float) -> float:
        if progress <= self.at[0]:
            return self.factor[0]
        for i in range(1, len(self.at)):
            left, right = self.at[i - 1], self.at[i]
            if progress < right:
                fraction = (progress - left) / (right - left)
                return self.factor[i - 1] + fraction * (self.factor[i] - self.factor[i - 1])
        return self.factor[-1]


def _anneal(start: float, end: float, fraction: float) -> float:
    """Return the value at `fraction` of half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(fraction, 1.0))) / 2


def _epochs_done(progress: float, epochs: int) -> int:
    # progress is a quotient of integers: rounding must not push an integer product below itself.
    return math.floor(progress * epochs + 1e-9)
