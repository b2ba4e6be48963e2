"""One operation as executed, and what a rule finds out about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from whit.analysis.receptive_field import AXES, Dims, ReceptiveField, untracked_dims

MEAN_TOLERANCE = 1e-3  # how far sum * factor may be from a true mean


class OperationMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Base of the modes that see every operation of a pass."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Answer torch: no need to shield this mode from dynamo, whose import takes seconds."""
        return False


@dataclass
class Operand:
    """A tensor argument: its field if it depends on the image, and what it was made from."""

    tensor: Tensor
    field: ReceptiveField | None  # None: does not depend on the image
    stored: bool  # depends on stored numbers
    random: bool = False  # depends on random numbers

    @property
    def dims(self) -> Dims:
        return self.field.dims if self.field else untracked_dims(self.tensor.shape)

    def constant_value(self) -> float | None:
        """Return the one value of all elements, if it depends on nothing but the code."""
        if (
            self.field
            or self.stored
            or self.random
            or not self.tensor.numel()
            or self.tensor.is_complex()
        ):
            return None
        if self.tensor.layout != torch.strided or self.tensor.is_nested:
            return None
        low, high = self.tensor.min().item(), self.tensor.max().item()
        return float(low) if low == high else None


@dataclass
class OpCall:
    """One operation as executed: aten name, its arguments, and operands in argument order."""

    name: str
    args: tuple[Any, ...]
    pointwise: bool
    operands: list[Operand]
    find_operand: Callable[[Any], Operand]  # by tensor
    outputs: list[Tensor]
    inside_linear: bool = False  # in F.linear
    inside_attention: bool = False  # in a function that is attention by name
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def fields(self) -> list[ReceptiveField]:
        """The fields of the operands that depend on the image."""
        return [operand.field for operand in self.operands if operand.field]

    @property
    def image_tensor(self) -> Tensor:
        """The first operand that depends on the image."""
        return next(operand.tensor for operand in self.operands if operand.field)

    @property
    def field(self) -> ReceptiveField:
        """The field of the first operand that depends on the image."""
        return self.fields[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.outputs[0].shape)

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether a batch normalization takes its statistics from the batch itself."""
        return self.name != "_native_batch_norm_legit_no_training" and bool(self.arg(5, True))

    def arg(self, position: int, default: Any = None) -> Any:
        return self.args[position] if position < len(self.args) else default

    def int_args(self, position: int, count: int, default: Any = None) -> list[int]:
        """Return a number or list argument as `count` numbers; one number is repeated."""
        return broadcast_ints(self.arg(position, default), count)

    def reduced_dims(self, position: int, default: int | None = None) -> list[int]:
        """Return the dims that argument `position`, or `dim`, names: all of them without it."""
        rank = self.image_tensor.dim()
        dims = self.arg(position, self.kwargs.get("dim", default))
        if dims is None or dims == []:
            return list(range(rank))
        return sorted({i % rank for i in broadcast_ints(dims, 1)})


@dataclass
class RuleResult:
    """What a rule finds: the receptive field of the results, and the kind of the operation.

    Along `whole_axes` each value also depends on all positions, which the field leaves out.
    """

    field: ReceptiveField
    kind: str | None
    whole_axes: frozenset[str] = frozenset()


Rule = Callable[[OpCall, str | None], RuleResult]  # takes the call and the kind of its name


def broadcast_ints(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * count if len(values) == 1 else values


def is_global_mean(before: ReceptiveField, after: ReceptiveField) -> bool:
    """Return whether averaging a full, unweighted map of more than 1x1 left one position."""
    weighted = before.weighted_axes & {*AXES}
    scaled = before.summed and abs(before.gain - 1) >= MEAN_TOLERANCE
    single = before.num_positions > 1 and after.num_positions == 1
    return single and not (before.cropped or weighted or scaled)


def get_aten_name(func: Any) -> str:
    """Return the aten name of an operation without its overload and in-place underscore.

    An operation of another library keeps its namespace: its name alone says nothing.
    """
    namespace, _, name = func._schema.name.rpartition("::")
    if namespace not in ("aten", ""):
        return f"{namespace}::{name}"
    return str(name[:-1] if name.endswith("_") and not name.endswith("__") else name)


def has_addend(name: str) -> bool:
    """Return whether the first argument of a matrix product is added to it."""
    return name.startswith(("add", "baddbmm", "_sparse_addmm"))


def is_numbered(func: Any) -> bool:
    """Return whether an operation has a number in the order of execution.

    torch lets `arange` and its like end in a detach under some modes and not under others.
    """
    return get_aten_name(func) != "detach"
