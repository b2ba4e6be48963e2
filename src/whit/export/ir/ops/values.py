"""What a module's tensors are in a graph while it is captured: names, shapes, and axes.

What only moves axes (permute, view, flatten, squeeze) is no operation of a graph: each value knows
which of a map's axes its dimensions stand for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from whit.export.ir.graph import Operation, Shape
from whit.export.ir.ops.operator import Operator
from whit.export.ir.ops.spatial import FLATTEN

BATCH = 2  # images at once when the forward pass is captured; 1 could stand for anything
Axes = tuple[tuple[str, ...], ...]  # what each dimension holds: (), ("C",), ("H", "W"), ...


class Layout:
    """The axes of values as most operators take them."""

    MAP: Axes = ((), ("C",), ("H",), ("W",))
    VECTOR: Axes = ((), ("C",))
    BY_CHANNEL: Axes = ((), ("C",), (), ())  # a vector as a map of 1x1


class UnsupportedOp(Exception):
    """An operation that has no place in a graph; the message says which and why."""


@dataclass(frozen=True)
class ValueView:
    """A value of the graph as one of the module's tensors shows it; `axes` after the batch's."""

    name: str
    shape: Shape
    axes: Axes

    @property
    def is_map(self) -> bool:
        return self.axes == Layout.MAP

    @property
    def has_channels(self) -> bool:
        """Whether a constant by channel can be applied to it as it is."""
        return self.axes in (Layout.MAP, Layout.VECTOR, Layout.BY_CHANNEL)

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip("CHW", (*self.shape, 1, 1), strict=False))

    @property
    def lengths(self) -> tuple[int, ...]:
        """How long each dimension after the batch's is."""
        return tuple(prod(self.sizes[axis] for axis in group) for group in self.axes[1:])


@dataclass(frozen=True)
class Expanded:
    """A value or a constant repeated to `lengths`, until its consumer broadcasts it."""

    value: Any  # ValueView or Tensor
    lengths: tuple[int, ...]


class GraphBuilder:
    """The operations and constants of a graph while it is captured."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.constants: dict[str, Tensor] = {}
        self._name_by_key: dict[tuple[Any, ...], str] = {}  # so that a shared tensor is stored once
        self._kept_alive: list[Tensor] = []
        self._flattened: dict[str, ValueView] = {}
        self._counts: Counter[str] = Counter()

    def add(
        self,
        operator: Operator,
        inputs: Sequence[ValueView],
        shape: Shape,
        attributes: dict[str, Any] | None = None,
        constants: dict[str, Tensor] | None = None,
        axes: Axes | None = None,
    ) -> ValueView:
        """Append an operation and return its value, a map or a vector unless `axes` are given."""
        attributes = attributes or {}
        stem = attributes.get("function") or operator.stem or operator.kind
        self._counts[stem] += 1
        name = f"{stem}{'_' * stem[-1].isdigit()}{self._counts[stem]}"
        named = {role: self._store(f"{name}.{role}", t) for role, t in (constants or {}).items()}
        names = tuple(value.name for value in inputs)
        self.operations.append(Operation(name, operator, names, shape, attributes, named))
        return ValueView(name, shape, axes or (Layout.MAP if len(shape) == 3 else Layout.VECTOR))

    def as_vector(self, value: ValueView) -> ValueView:
        """Return a map's numbers in a vector, channel by channel and row by row."""
        if len(value.shape) == 1:
            return value
        if value.name not in self._flattened:
            self._flattened[value.name] = self.add(FLATTEN, [value], (prod(value.shape),))
        return self._flattened[value.name]

    def as_channel_vector(self, value: ValueView) -> ValueView:
        """Return a map of 1x1 as the vector of its channels; any other value as it is."""
        if len(value.shape) != 3 or value.shape[1:] != (1, 1):
            return value
        axes = tuple(tuple(axis for axis in group if axis == "C") for group in value.axes)
        return ValueView(self.as_vector(value).name, value.shape[:1], axes)

    def as_flat_vector(self, value: ValueView) -> ValueView:
        """Return a flattened value as the vector of its numbers; any other value as it is."""
        if len(value.axes) != 2 or value.axes[0]:
            return value
        (order,) = value.axes[1:]
        long = [axis for axis in order if value.sizes[axis] > 1]
        if long != sorted(long):
            raise UnsupportedOp("it uses numbers of a map that was flattened in another order")
        return ValueView(self.as_vector(value).name, (prod(value.shape),), Layout.VECTOR)

    def _store(self, name: str, tensor: Tensor) -> str:
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        stored = self._name_by_key.setdefault(key, name)
        if stored == name:
            self._kept_alive.append(tensor)  # another tensor must not get its address
            self.constants[name] = tensor.double()
        return stored


def as_map(value: Any, what: str) -> ValueView:
    """Return a value whose dimensions are those of a map, else raise UnsupportedOp."""
    if not isinstance(value, ValueView):
        raise UnsupportedOp(f"{what} of something that does not depend on the image")
    if value.axes == Layout.MAP:
        return value
    if len(value.shape) == 1:
        raise UnsupportedOp(f"{what} of one number a channel")
    raise UnsupportedOp(f"{what} of dimensions that were exchanged or merged")


def is_channel_vector(value: Any) -> bool:
    """Whether a value is a vector that stands for a map of 1x1."""
    return (
        isinstance(value, ValueView) and value.axes == Layout.BY_CHANNEL and len(value.shape) == 1
    )


def normalize_axes(value: ValueView, axes: Axes) -> Axes:
    """Return the axes of a whole map where that is what they are: an axis of 1 may stand bare."""
    if value.shape == (1,) and not any(axes):
        return {4: Layout.BY_CHANNEL, 2: Layout.VECTOR}.get(len(axes), axes)
    if len(axes) != 4 or len(value.shape) != 3:
        return axes
    full = all(
        group == (axis,) or (group == () and value.sizes[axis] == 1)
        for group, axis in zip(axes[1:], "CHW", strict=True)
    )
    return Layout.MAP if full else axes


def pair(value: Any, default: int) -> tuple[int, int]:
    if value is None or value == []:
        return default, default
    if isinstance(value, int):
        return value, value
    pair = tuple(value)
    return (pair[0], pair[0]) if len(pair) == 1 else (pair[0], pair[1])


def window_positions(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Return how many positions a window takes along an axis of `size`."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
