"""What works on each number: activations, sums and products, softmax."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from whit.export.ir.graph import Kind
from whit.export.ir.ops.axes import repeated
from whit.export.ir.ops.layers import conv
from whit.export.ir.ops.values import (
    BY_CHANNEL,
    MAP,
    VECTOR,
    Growing,
    Seen,
    Spread,
    Unreadable,
)


def activation(function: str, **settings: float) -> Callable[..., Seen | Spread]:
    def handler(graph: Growing, value: Any, *given: Any, **named: Any) -> Seen | Spread:
        if isinstance(value, Spread):
            return Spread(handler(graph, value.value, *given, **named), value.lengths)
        if not isinstance(value, Seen):
            raise Unreadable(f"it uses {function} of something that does not depend on the image")
        attributes: dict[str, Any] = {"function": function}
        if function == "leaky_relu":
            attributes["slope"] = float(given[0]) if given else settings["slope"]
        elif function == "elu":
            if any(number != 1 for number in given[1:]):
                raise Unreadable("it uses elu with other scales than 1")
            attributes["slope"] = float(given[0]) if given else settings["slope"]
        elif function == "gelu" and named.get("approximate", "none") != "none":
            raise Unreadable("it uses gelu by an approximation")
        elif function == "clamp":
            bounds = tuple(_bound(each) for each in (*given, None, None)[:2])
            if bounds not in ((0, None), (0, 6)):
                raise Unreadable(f"it cuts values at {bounds[0]} and {bounds[1]}")
            attributes["function"] = "relu6" if bounds[1] else "relu"
        constants = {}
        if function == "prelu":
            (slope,) = given
            if not isinstance(slope, Tensor):
                raise Unreadable("it uses prelu with a slope that depends on the image")
            if slope.numel() > 1 and value.axes not in (MAP, VECTOR, BY_CHANNEL):
                raise Unreadable("it uses prelu over dimensions that were exchanged or merged")
            constants["slope"] = slope.flatten().expand(value.shape[0])
        made = graph.add("activation", [value], value.shape, attributes, constants)
        return Seen(made.name, made.shape, value.axes)

    return handler


def _bound(given: Any) -> Any:
    if isinstance(given, Seen):
        raise Unreadable("it cuts values at a bound that depends on the image")
    if isinstance(given, Tensor) and given.numel() > 1:
        raise Unreadable("it cuts values at more than one bound")
    return given.item() if isinstance(given, Tensor) else given


def binary(kind: Kind) -> Callable[..., Any]:
    def handler(graph: Growing, a: Any, b: Any, alpha: float = 1) -> Any:
        if alpha != 1:
            b = binary("multiply")(graph, b, alpha)
        if isinstance(a, Spread) and isinstance(b, Spread) and a.lengths == b.lengths:
            return Spread(handler(graph, a.value, b.value), a.lengths)
        if isinstance(a, Spread) and _is_number(b):
            return Spread(handler(graph, a.value, b), a.lengths)
        if isinstance(b, Spread) and _is_number(a):
            return Spread(handler(graph, a, b.value), b.lengths)
        a, b = _not_spread(kind, a, b), _not_spread(kind, b, a)
        if not isinstance(a, Seen) and not isinstance(b, Seen):
            return _OF_CONSTANTS[kind](a, b)
        if isinstance(a, Seen) and isinstance(b, Seen):
            return _of_two(graph, kind, a, b)
        if isinstance(a, Seen):
            return _by_constant(graph, kind, a, b)
        if kind == "subtract":
            return _by_constant(graph, "add", _by_constant(graph, "multiply", b, -1.0), a)
        return _by_constant(graph, kind, b, a)

    return handler


def _is_number(value: Any) -> bool:
    return value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, int | float)


def _not_spread(kind: Kind, value: Any, other: Any) -> Any:
    """Return a value that was expanded to the size of the other as it was before."""
    if not isinstance(value, Spread):
        return value
    if not isinstance(other, Seen) or value.lengths != other.lengths:
        raise Unreadable(f"it uses {kind} of two values of different shapes")
    return value.value


_OF_CONSTANTS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
}


def _of_two(graph: Growing, kind: Kind, a: Seen, b: Seen) -> Seen:
    if (a.shape, a.axes) != (b.shape, b.axes):
        flat = len(a.axes) == 2 and a.lengths == b.lengths
        as_one = graph.as_row if flat else graph.as_column
        a, b = as_one(a), as_one(b)
    if (a.shape, a.axes) == (b.shape, b.axes):
        made = graph.add(kind, [a, b], a.shape)
        return Seen(made.name, made.shape, a.axes)
    if b.axes == MAP and a.axes in (MAP, BY_CHANNEL) and a.shape[0] == 1 < b.shape[0]:
        return _of_two(graph, kind, repeated(graph, a, b.shape[0]), b)
    if a.axes == MAP and b.axes in (MAP, BY_CHANNEL) and b.shape[0] == 1 < a.shape[0]:
        return _of_two(graph, kind, a, repeated(graph, b, a.shape[0]))
    if kind == "subtract" and b.axes == MAP and a.axes == BY_CHANNEL:
        return _of_two(graph, "add", _by_constant(graph, "multiply", b, -1.0), a)
    if b.axes == MAP and kind != "subtract":
        a, b = b, a
    if a.axes == MAP and b.axes == BY_CHANNEL and a.shape[0] == b.shape[0]:
        return graph.add(kind, [a, b], a.shape)
    raise Unreadable(f"it uses {kind} of two values of different shapes")


def _by_constant(graph: Growing, kind: Kind, value: Seen, by: Any) -> Seen:
    channels = value.shape[0]
    if isinstance(by, Tensor):  # what was expanded is one number many times
        by = by[tuple(slice(0, 1 if step == 0 else None) for step in by.stride())]
    constant = torch.as_tensor(by, dtype=torch.float64)
    if constant.ndim > len(value.axes):
        raise Unreadable(f"it uses {kind} by a constant of more dimensions than the value")
    if constant.numel() > 1:
        at = next((dim for dim, group in enumerate(value.axes) if group == ("C",)), None)
        if at is None:
            raise Unreadable(f"it uses {kind} by a constant over merged dimensions")
        shape = (1,) * (len(value.axes) - constant.ndim) + tuple(constant.shape)
        if any(size > 1 for dim, size in enumerate(shape) if dim != at):
            raise Unreadable(f"it uses {kind} by a constant that differs from place to place")
    repeated = constant.numel() > channels
    if repeated and value.axes != MAP:
        raise Unreadable(f"it uses {kind} of one number by several")
    constant = constant.flatten().expand(max(channels, constant.numel())).clone()
    one, zero = torch.ones_like(constant), torch.zeros_like(constant)
    scale, offset = {
        "add": (one, constant),
        "subtract": (one, -constant),
        "multiply": (constant, zero),
    }[kind]
    if repeated:  # one channel becomes several
        return conv(graph, value, scale.view(-1, 1, 1, 1), offset)
    made = graph.add("scale", [value], value.shape, {}, {"scale": scale, "offset": offset})
    return Seen(made.name, made.shape, value.axes)


def div(graph: Growing, a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode is not None:
        raise Unreadable(f"it uses division with rounding by {rounding_mode}")
    if isinstance(b, Seen):
        raise Unreadable("it divides by a value that depends on the image")
    if not isinstance(a, Seen):
        return a / b
    return _by_constant(graph, "multiply", a, 1 / torch.as_tensor(b, dtype=torch.float64))


def softmax(kind: Kind) -> Callable[..., Any]:
    def handler(graph: Growing, value: Any, dim: int, *given: Any) -> Seen:
        if not isinstance(value, Seen) or value.axes[dim % len(value.axes)] != ("C",):
            raise Unreadable(f"it uses {kind} over something else than the classes")
        if prod(value.shape) != value.shape[0]:
            raise Unreadable(f"it uses {kind} at each place of a map")
        row = graph.as_vector(value)
        made = graph.add(kind, [row], row.shape)
        return Seen(made.name, made.shape, value.axes)

    return handler
