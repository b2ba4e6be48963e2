"""The tensors of a module while its graph is captured: name, shape and axes.

Operators that only rearrange dimensions (permute, view, flatten, squeeze) add no operation: each
value records which axes of a map its dimensions stand for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from whit.export.ir.graph import Operation, Shape
from whit.export.ir.ops.operator import Operator
from whit.export.ir.ops.spatial import FLATTEN

# Batch size of the captured forward pass: a prime that divides no other size, so that each size
# that it divides is recognized as a multiple of the batch size.
BATCH = 251
Axes = tuple[tuple[str, ...], ...]  # the axes in each dimension: (), ("C",), ("H", "W"), ...


class Layout:
    """The axes that most operators expect."""

    MAP: Axes = ((), ("C",), ("H",), ("W",))
    VECTOR: Axes = ((), ("C",))
    BY_CHANNEL: Axes = ((), ("C",), (), ())  # a vector as a map of 1x1


class UnsupportedOp(Exception):
    """An operation that cannot be represented in a graph; the message says which and why.

    is_operator: whether it is so with any arguments.
    """

    def __init__(self, message: str, *, is_operator: bool = False):
        super().__init__(message)
        self.is_operator = is_operator


@dataclass(frozen=True)
class ValueView:
    """A value of the graph as seen through a tensor of the module; `axes` per dimension."""

    name: str
    shape: Shape
    axes: Axes

    @property
    def is_map(self) -> bool:
        return self.axes == Layout.MAP

    @property
    def has_channels(self) -> bool:
        """Whether per-channel constants can be applied to it directly."""
        return self.axes in (Layout.MAP, Layout.VECTOR, Layout.BY_CHANNEL)

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip("CHW", (*self.shape, 1, 1), strict=False))

    @property
    def lengths(self) -> tuple[int, ...]:
        """The size of each dimension after the batch dimension."""
        return tuple(prod(self.sizes[axis] for axis in group) for group in self.axes[1:])


def overload_name(node: Node) -> str:
    """Return the name of an ATen operator, with its overload unless that is the default one."""
    return str(node.target).removeprefix("aten.").removesuffix(".default")


def operator_name(node: Node) -> str:
    """Return the name of an ATen operator without its overload."""
    return overload_name(node).partition(".")[0]


@dataclass(frozen=True)
class TensorValue:
    """A value of the graph as a tensor of any rank; `sizes`: all, -k for k times the batch size."""

    name: str
    sizes: Shape


@dataclass(frozen=True)
class Expanded:
    """A value repeated to `lengths`, until its consumer broadcasts it."""

    value: ValueView
    lengths: tuple[int, ...]


class GraphBuilder:
    """Collects the operations and constants of a graph while it is captured.

    shapes: of every value that an operation reads or computes. site: where the operations that are
    being added were called.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.constants: dict[str, Tensor] = {}
        self.shapes: dict[str, Shape] = {}
        self.site = ""
        self._name_by_key: dict[tuple[Any, ...], str] = {}  # so that a shared tensor is stored once
        self._kept_alive: list[Tensor] = []
        self._flattened: dict[str, ValueView] = {}
        self._counts: Counter[str] = Counter()
        self.onnx_reason = ""  # of the operations added next

    def add(
        self,
        operator: Operator,
        inputs: Sequence[ValueView | TensorValue],
        shape: Shape,
        attributes: dict[str, Any] | None = None,
        constants: dict[str, Tensor] | None = None,
        axes: Axes | None = None,
    ) -> ValueView:
        """Append an operation and return its output, a map or a vector unless `axes` are given."""
        attributes = attributes or {}
        stem = attributes.get("function") or operator.stem or operator.kind
        self._counts[stem] += 1
        name = f"{stem}{'_' * stem[-1].isdigit()}{self._counts[stem]}"
        named = {role: self._store(f"{name}.{role}", t) for role, t in (constants or {}).items()}
        names = tuple(value.name for value in inputs)
        op = Operation(name, operator, names, shape, attributes, named, self.site, self.onnx_reason)
        self.operations.append(op)
        views = [value for value in inputs if isinstance(value, ValueView)]
        self.shapes |= {value.name: value.shape for value in views} | {name: shape}
        return ValueView(name, shape, axes or (Layout.MAP if len(shape) == 3 else Layout.VECTOR))

    def as_vector(self, value: ValueView) -> ValueView:
        """Return a map flattened in CHW order."""
        if len(value.shape) == 1:
            return value
        if value.name not in self._flattened:
            self._flattened[value.name] = self.add(FLATTEN, [value], (prod(value.shape),))
        return self._flattened[value.name]

    def as_channel_vector(self, value: ValueView) -> ValueView:
        """Return a 1x1 map as the vector of its channels; any other value unchanged."""
        if len(value.shape) != 3 or value.shape[1:] != (1, 1):
            return value
        axes = tuple(tuple(axis for axis in group if axis == "C") for group in value.axes)
        return ValueView(self.as_vector(value).name, value.shape[:1], axes)

    def as_flat_vector(self, value: ValueView) -> ValueView:
        """Return a flattened map as a vector; any other value unchanged."""
        if len(value.axes) != 2 or value.axes[0]:
            return value
        (order,) = value.axes[1:]
        long = [axis for axis in order if value.sizes[axis] > 1]
        if long != sorted(long):
            raise UnsupportedOp("a map flattened in another order than CHW is not supported here")
        return ValueView(self.as_vector(value).name, (prod(value.shape),), Layout.VECTOR)

    def _store(self, name: str, tensor: Tensor) -> str:
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        stored = self._name_by_key.setdefault(key, name)
        if stored == name:
            self._kept_alive.append(tensor)  # so that no other tensor gets its address
            self.constants[name] = tensor.double()
        return stored


def as_map(value: Any, what: str) -> ValueView:
    """Return the value if its dimensions are those of a map (C, H, W); else raise UnsupportedOp."""
    if not isinstance(value, ValueView):
        raise UnsupportedOp(f"{what} of a constant is not supported")
    if value.axes == Layout.MAP:
        return value
    if len(value.shape) == 1:
        raise UnsupportedOp(f"{what} of one value per channel is not supported")
    raise UnsupportedOp(f"{what} after dimensions were permuted or merged is not supported")


def collapse(constant: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return a constant with one element along each dimension over which it does not vary.

    `lengths`: of the operand after the batch dimension; a longer constant broadcasts that operand,
    so its length is kept. Raises UnsupportedOp if it differs between the images of a batch.
    """
    rank = 1 + len(lengths)
    constant = constant.reshape((1,) * (rank - constant.ndim) + tuple(constant.shape))
    for dim, length in enumerate((BATCH, *lengths)):
        first = constant.narrow(dim, 0, 1)
        if constant.shape[dim] == length > 1 and bool((constant == first).all()):
            constant = first
    if constant.shape[0] > 1:
        raise UnsupportedOp("a constant that differs between the images of a batch")
    return constant


def require_float(dtype: torch.dtype | None, what: str) -> None:
    """Raise UnsupportedOp for a result type that float32 arithmetic does not replace."""
    if dtype not in (None, torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        raise UnsupportedOp(f"{what} to {name} is not supported, only to float32 or float64")


def is_channel_vector(value: Any) -> bool:
    """Whether a value is a vector that represents a 1x1 map."""
    return (
        isinstance(value, ValueView) and value.axes == Layout.BY_CHANNEL and len(value.shape) == 1
    )


def normalize_axes(value: ValueView, axes: Axes) -> Axes:
    """Return the axes of a map if `axes` are equivalent: axes of size 1 may be missing."""
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
    """Return the number of positions of a window along an axis of `size`."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
