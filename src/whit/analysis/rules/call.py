"""One operation as executed, and what a rule finds out about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from whit.analysis.receptive_field import (
    AXES,
    Dims,
    Run,
    Sight,
    Window,
    contract,
    plain_dims,
)

NEAR_ONE = 1e-3  # how far sum * factor may be from a true mean


@dataclass
class Operand:
    """A tensor argument: its sight if it depends on the image, and what it was made from."""

    tensor: Tensor
    sight: Sight | None  # None: does not depend on the image
    stored: bool  # depends on stored numbers

    @property
    def dims(self) -> Dims:
        return self.sight.dims if self.sight else plain_dims(self.tensor.shape)

    def same_value(self) -> float | None:
        """Return the one value of all elements, if the tensor is made and not stored."""
        if self.sight or self.stored or not self.tensor.numel() or self.tensor.is_complex():
            return None
        low, high = self.tensor.min().item(), self.tensor.max().item()
        return float(low) if low == high else None


@dataclass
class Call:
    """One operation as executed: aten name, its arguments, and operands in argument order."""

    name: str
    args: tuple[Any, ...]
    pointwise: bool
    operands: list[Operand]
    by_tensor: Callable[[Any], Operand]
    outputs: list[Tensor]
    through_linear: bool = False  # inside F.linear
    through_attention: bool = False  # inside a function that is attention by name

    @property
    def data(self) -> list[Operand]:
        return [operand for operand in self.operands if operand.sight]

    @property
    def first(self) -> Sight:
        sight = self.data[0].sight
        assert sight is not None
        return sight

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.outputs[0].shape)

    def at(self, position: int, default: Any = None) -> Any:
        return self.args[position] if position < len(self.args) else default


@dataclass
class Finding:
    """What a rule found: the sight of the results, and the kind of the operation."""

    sight: Sight
    kind: str | None


def contracted(sight: Sight, runs: Sequence[Run]) -> tuple[Window, Window] | None:
    return None if sight.windows is None else contract(sight.windows, runs)


def shifted(windows: tuple[Window, Window], axis: str, by: Fraction) -> tuple[Window, Window]:
    rows, cols = (
        replace(window, start=window.start + by) if name == axis and not window.fixed else window
        for name, window in zip(AXES, windows, strict=True)
    )
    return rows, cols


def each(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * count if len(values) == 1 else values


def is_whole_mean(before: Sight, after: Sight) -> bool:
    """Tell whether averaging made one position of a whole, unweighted map of more than 1x1."""
    spread = before.weighted & {*AXES}
    scaled = before.summed and abs(before.gain - 1) >= NEAR_ONE
    return before.positions > 1 and after.positions == 1 and not (before.cut or spread or scaled)


def uses_batch_statistics(call: Call) -> bool:
    """Tell whether a batch normalisation takes its statistics from the batch itself."""
    return call.name != "_native_batch_norm_legit_no_training" and bool(call.at(5, True))


def base_name(func: Any) -> str:
    """Return the aten name of an operation without its overload and in-place underscore."""
    name: str = func._schema.name.split("::")[-1]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def is_counted(func: Any) -> bool:
    """Whether an operation has a number in the order of execution.

    torch lets `arange` and its like end in a detach under some modes and not under others.
    """
    return base_name(func) != "detach"


def is_pointwise(func: Any) -> bool:
    return torch.Tag.pointwise in func.tags
