"""From a module to plain operations: what torch.export writes down of its forward pass, named.

torch.export lists the ATen operations of one pass in evaluation mode, without views in place and
without Dropout. What only moves axes (permute, view, flatten, squeeze) becomes bookkeeping here:
each value knows which of a map's axes its dimensions stand for.
"""

from __future__ import annotations

import operator
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from whit.errors import ModelError
from whit.export.graph import INPUT, Graph, Kind, Operation, Shape

Axes = tuple[tuple[str, ...], ...]  # what each dimension holds: (), ("C",), ("H", "W"), ...
_MAP: Axes = ((), ("C",), ("H",), ("W",))
_VECTOR: Axes = ((), ("C",))
_BY_CHANNEL: Axes = ((), ("C",), (), ())  # a vector as a map of 1x1


class Unreadable(Exception):
    """An operation that has no place in a graph; the message says which and why."""


class _Named(Exception):
    """An operation on what could not be read, which was named already."""


@dataclass(frozen=True)
class Seen:
    """A value of the graph as one of the module's tensors shows it; `axes` after the batch's."""

    name: str
    shape: Shape
    axes: Axes

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip("CHW", (*self.shape, 1, 1), strict=False))


def read_graph(
    model: nn.Module, image_shape: tuple[int, int, int], classes: tuple[str, ...], name: str
) -> Graph:
    """Return the operations of `model`'s forward pass in evaluation mode, nothing folded yet.

    Constants are float64, so that folding loses nothing.

    Raises ModelError that names every operation which has no plain form.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.export warns of torch's own parts
            program = torch.export.export(
                model.eval(), (torch.zeros(2, *image_shape),), strict=False
            ).run_decompositions({})
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"{name}: cannot be exported: torch.export finds no fixed list of operations in its "
            f"forward pass ({said[0]})."
        ) from None
    return _Reader(program, image_shape, classes, name).graph()


class _Reader:
    """Reads a program node by node; `handlers` has a method for each ATen operation."""

    def __init__(
        self,
        program: torch.export.ExportedProgram,
        image_shape: tuple[int, int, int],
        classes: tuple[str, ...],
        name: str,
    ):
        self.program = program
        self.image_shape = image_shape
        self.classes = classes
        self.name = name
        self.values: dict[Node, Any] = {}
        self.operations: list[Operation] = []
        self.constants: dict[str, Tensor] = {}
        self.of_tensor: dict[tuple[Any, ...], str] = {}  # so that a shared tensor is stored once
        self.kept_alive: list[Tensor] = []
        self.counts: Counter[str] = Counter()

    def graph(self) -> Graph:
        problems: dict[str, None] = {}
        signature = self.program.graph_signature
        stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        held = {**self.program.state_dict, **self.program.constants}
        lifted = signature.inputs_to_lifted_tensor_constants
        output: Any = None
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                if node.name in stored:
                    self.values[node] = held[stored[node.name]].detach()
                elif node.name in lifted:
                    self.values[node] = held[lifted[node.name]].detach()
                else:
                    self.values[node] = Seen(INPUT, self.image_shape, _MAP)
            elif node.op == "output":
                output = node.args[0]
            else:
                try:
                    self.values[node] = self._value_of(node)
                except _Named:
                    continue
                except Unreadable as error:
                    problems[f"{self.name}: cannot be exported: {error}."] = None
        if problems:
            raise ModelError(list(problems))
        last = self.values[output[0]]
        if not isinstance(last, Seen) or prod(last.shape) != len(self.classes):
            raise ModelError(f"{self.name}: cannot be exported: it does not end in one vector.")
        self._put_last(self.as_vector(last).name)
        return Graph(
            self.name, self.image_shape, self.classes, tuple(self.operations), self.constants
        )

    def _put_last(self, output: str) -> None:
        """Drop the operations after the one that gives the logits: nothing reads them."""
        while self.operations and self.operations[-1].name != output:
            self.operations.pop()
        wanted = {output}
        for op in reversed(self.operations):
            if op.name in wanted:
                wanted.update(op.inputs)
        self.operations = [op for op in self.operations if op.name in wanted]
        used = {name for op in self.operations for name in op.constants.values()}
        self.constants = {name: value for name, value in self.constants.items() if name in used}

    def _value_of(self, node: Node) -> Any:
        for argument in node.all_input_nodes:
            if argument not in self.values:
                raise _Named
        if node.target is operator.getitem:
            return self.values[node.args[0]][node.args[1]]  # type: ignore[index]
        target = str(node.target)
        handler = _HANDLERS.get(target.removeprefix("aten.").partition(".")[0])
        if handler is None:
            raise Unreadable(_reason_of(node))
        given = torch.fx.node.map_arg(node.args, lambda argument: self.values[argument])
        return handler(self, *given, **node.kwargs)

    def add(
        self,
        kind: Kind,
        inputs: Sequence[Seen],
        shape: Shape,
        attributes: dict[str, Any] | None = None,
        constants: dict[str, Tensor] | None = None,
    ) -> Seen:
        """Append an operation and return its value."""
        stem = (attributes or {}).get("function") or _STEMS.get(kind, kind)
        self.counts[stem] += 1
        name = f"{stem}{'_' * stem[-1].isdigit()}{self.counts[stem]}"
        named = {role: self._stored(f"{name}.{role}", t) for role, t in (constants or {}).items()}
        inside = tuple(value.name for value in inputs)
        self.operations.append(Operation(name, kind, inside, shape, attributes or {}, named))
        return Seen(name, shape, _MAP if len(shape) == 3 else _VECTOR)

    def as_vector(self, value: Seen) -> Seen:
        """Return a map's numbers in a row, channel by channel and line by line."""
        if len(value.shape) == 1:
            return value
        return self.add("flatten", [value], (prod(value.shape),))

    def _stored(self, name: str, tensor: Tensor) -> str:
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        found = self.of_tensor.setdefault(key, name)
        if found == name:
            self.kept_alive.append(tensor)  # another tensor must not get its address
            self.constants[name] = tensor.double()
        return found


_STEMS = {"maxpool": "pool", "avgpool": "pool", "mean": "gap"}


def _reason_of(node: Node) -> str:
    operation = str(node.target).removeprefix("aten.").removesuffix(".default")
    return f"it uses {operation}, which has no plain form here"


def _is_column(value: Any) -> bool:
    """Whether a value is a vector that stands for a map of 1x1."""
    return isinstance(value, Seen) and value.axes == _BY_CHANNEL and len(value.shape) == 1


def _as_map(value: Any, what: str) -> Seen:
    """Return a value whose dimensions are those of a map. Raises Unreadable when they are not."""
    if not isinstance(value, Seen):
        raise Unreadable(f"{what} of something that does not depend on the image")
    if value.axes == _MAP:
        return value
    raise Unreadable(f"{what} of dimensions that were exchanged or merged")


def _pair(value: Any, default: int) -> tuple[int, int]:
    if value is None or value == []:
        return default, default
    if isinstance(value, int):
        return value, value
    pair = tuple(value)
    return (pair[0], pair[0]) if len(pair) == 1 else (pair[0], pair[1])


def _swept(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _conv(
    reader: _Reader,
    image: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Seen:
    if not isinstance(weight, Tensor):
        raise Unreadable("it uses a convolution whose weights depend on the image")
    if _is_column(image) and tuple(weight.shape[1:]) == (*image.shape, 1, 1):
        row = Seen(image.name, image.shape, _VECTOR)
        made = _linear(reader, row, weight.flatten(1), bias)
        return Seen(made.name, made.shape, _BY_CHANNEL)
    value = _as_map(image, "a convolution")
    kernel, strides, spread = weight.shape[2:], _pair(stride, 1), _pair(dilation, 1)
    if padding == "valid":
        padding = 0
    if padding == "same":
        around = [d * (k - 1) for k, d in zip(kernel, spread, strict=True)]
        if any(total % 2 for total in around):
            # As torch does it: the odd zero stands behind.
            left, top = around[1] // 2, around[0] // 2
            value = _pad(reader, value, [left, around[1] - left, top, around[0] - top])
            around = [0, 0]
        padding = [total // 2 for total in around]
    pads = _pair(padding, 0)
    size = tuple(
        _swept(*each) for each in zip(value.shape[1:], kernel, strides, pads, spread, strict=True)
    )
    bias = torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias
    attributes = {"stride": strides, "padding": pads, "dilation": spread, "groups": groups}
    return reader.add(
        "conv", [value], (len(weight), *size), attributes, {"weight": weight, "bias": bias}
    )


def _linear(reader: _Reader, vector: Any, weight: Tensor, bias: Tensor | None = None) -> Seen:
    if not isinstance(vector, Seen) or not isinstance(weight, Tensor):
        raise Unreadable("it uses a product of two values that depend on the image")
    if len(vector.axes) != 2 or vector.axes[0]:
        raise Unreadable("it uses a linear layer at each place of a map")
    order = vector.axes[1]
    natural = [axis for axis in "CHW" if axis in order]
    if list(order) != natural:  # rows were flattened in another order: move the columns instead
        sizes = [vector.sizes[axis] for axis in order]
        moved = weight.view(len(weight), *sizes)
        weight = moved.permute(0, *(1 + order.index(axis) for axis in natural)).flatten(1)
    bias = torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias
    row = reader.as_vector(vector)
    return reader.add("linear", [row], (len(weight),), {}, {"weight": weight, "bias": bias})


def _addmm(reader: _Reader, bias: Any, vector: Any, weight: Any) -> Seen:
    return _linear(reader, vector, weight.t() if isinstance(weight, Tensor) else weight, bias)


def _matmul(reader: _Reader, vector: Any, weight: Any) -> Seen:
    return _linear(reader, vector, weight.t() if isinstance(weight, Tensor) else weight)


def _batch_norm(
    reader: _Reader,
    value: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    momentum: float,
    eps: float,
) -> list[Seen]:
    if not isinstance(value, Seen) or value.axes not in (_MAP, _VECTOR, _BY_CHANNEL):
        raise Unreadable("it uses BatchNorm over dimensions that were exchanged or merged")
    scale = (var.double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.double()
    offset = -mean.double() * scale
    if bias is not None:
        offset = offset + bias.double()
    constants = {"scale": scale, "offset": offset}
    made = reader.add("scale", [value], value.shape, {}, constants)
    return [Seen(made.name, made.shape, value.axes)]


def _activation(function: str, **settings: float) -> Callable[..., Seen]:
    def handler(reader: _Reader, value: Any, *given: Any, **named: Any) -> Seen:
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
            bounds = (*given, None, None)[:2]
            if bounds not in ((0, None), (0, 6)):
                raise Unreadable(f"it cuts values at {bounds[0]} and {bounds[1]}")
            attributes["function"] = "relu6" if bounds[1] else "relu"
        constants = {}
        if function == "prelu":
            (slope,) = given
            if not isinstance(slope, Tensor):
                raise Unreadable("it uses prelu with a slope that depends on the image")
            if slope.numel() > 1 and value.axes not in (_MAP, _VECTOR, _BY_CHANNEL):
                raise Unreadable("it uses prelu over dimensions that were exchanged or merged")
            constants["slope"] = slope.flatten().expand(value.shape[0])
        made = reader.add("activation", [value], value.shape, attributes, constants)
        return Seen(made.name, made.shape, value.axes)

    return handler


def _max_pool(
    reader: _Reader,
    image: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> Seen:
    value = _as_map(image, "a pooling")
    kernels = _pair(kernel, 1)
    strides = kernels if stride is None or stride == [] else _pair(stride, 1)
    return _pool(reader, "maxpool", value, kernels, strides, _pair(padding, 0), ceil, dilation)


def _avg_pool(
    reader: _Reader,
    image: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil: bool = False,
    counts_padding: bool = True,
    divisor: int | None = None,
) -> Seen:
    value = _as_map(image, "a pooling")
    if divisor is not None:
        raise Unreadable("it uses avg_pool2d with a divisor of its own")
    kernels = _pair(kernel, 1)
    strides = kernels if stride is None or stride == [] else _pair(stride, 1)
    pads = _pair(padding, 0)
    return _pool(reader, "avgpool", value, kernels, strides, pads, ceil, 1, counts_padding)


def _pool(
    reader: _Reader,
    kind: Kind,
    value: Seen,
    kernels: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int],
    ceil: bool,
    dilation: Any,
    counts_padding: bool = True,
) -> Seen:
    spread = _pair(dilation, 1)
    each = list(zip(value.shape[1:], kernels, strides, pads, spread, strict=True))
    size = tuple(_swept(*numbers) for numbers in each)
    if ceil and any(
        (full + 2 * pad - wide * (kernel - 1) - 1) % stride
        for full, kernel, stride, pad, wide in each
    ):
        raise Unreadable("it uses a pooling with ceil_mode that reaches beyond the map")
    if kind == "avgpool" and kernels == value.shape[1:] and pads == (0, 0):
        mean = reader.add("mean", [value], value.shape[:1])
        return Seen(mean.name, mean.shape, _BY_CHANNEL)
    attributes: dict[str, Any] = {"kernel": kernels, "stride": strides, "padding": pads}
    if kind == "maxpool":
        attributes["dilation"] = spread
    else:
        attributes["counts_padding"] = counts_padding
    return reader.add(kind, [value], (value.shape[0], *size), attributes)


def _adaptive(kind: str) -> Callable[..., Any]:
    def handler(reader: _Reader, image: Any, output: Any) -> Any:
        value = _as_map(image, "a pooling")
        wanted = _pair(output, 1)
        if any(size % out for size, out in zip(value.shape[1:], wanted, strict=True)):
            raise Unreadable(
                f"it uses adaptive pooling of {value.shape[1]}x{value.shape[2]} to "
                f"{wanted[0]}x{wanted[1]}, whose windows differ in size"
            )
        kernel = [size // out for size, out in zip(value.shape[1:], wanted, strict=True)]
        if kind == "maxpool":
            pooled = _max_pool(reader, value, kernel)
            return [pooled, None]  # torch gives the places of the largest, too
        return _avg_pool(reader, value, kernel)

    return handler


def _adaptive_max(reader: _Reader, image: Any, output: Any) -> Any:
    return _adaptive("maxpool")(reader, image, output)


def _mean(
    reader: _Reader, value: Any, dims: Any = None, keepdim: bool = False, dtype: Any = None
) -> Seen:
    if not isinstance(value, Seen):
        raise Unreadable("it uses a mean of something that does not depend on the image")
    rank = len(value.axes)
    gone = {dim % rank for dim in ([dims] if isinstance(dims, int) else dims or range(rank))}
    axes = {axis for dim in gone for axis in value.axes[dim]}
    if 0 in gone:
        raise Unreadable("it uses a mean over the images of a batch")
    left = {axis for axis in ("H", "W") if value.sizes[axis] > 1 and len(value.shape) == 3} - axes
    if "C" in axes or left:
        raise Unreadable("it uses a mean over something else than the whole map")
    kept = tuple(
        () if dim in gone else group
        for dim, group in enumerate(value.axes)
        if keepdim or dim not in gone
    )
    kept = tuple(tuple(axis for axis in group if axis == "C") for group in kept)
    if len(value.shape) == 1:  # each channel's map is one number already
        return Seen(value.name, value.shape, kept)
    made = reader.add("mean", [value], value.shape[:1])
    return Seen(made.name, made.shape, kept)


def _amax(reader: _Reader, image: Any, dims: Any = (), keepdim: bool = False) -> Seen:
    value = _as_map(image, "a largest value")
    if {dim % 4 for dim in dims} != {2, 3}:
        raise Unreadable("it uses amax over something else than the whole map")
    pooled = reader.as_vector(_max_pool(reader, value, value.shape[1:]))
    return Seen(pooled.name, pooled.shape, _BY_CHANNEL if keepdim else _VECTOR)


def _view(reader: _Reader, value: Any, shape: Sequence[int]) -> Any:
    if isinstance(value, Tensor):
        return value.reshape(shape)
    sizes = value.sizes
    atoms = [axis for group in value.axes[1:] for axis in group if sizes[axis] > 1]
    wanted = list(shape)
    if wanted[0] not in (2, -1):  # 2: the batch that was exported
        raise Unreadable("it uses a view that mixes the images of a batch")
    if -1 in wanted:
        whole = 2 * prod(sizes[axis] for axis in atoms)
        wanted[wanted.index(-1)] = whole // -prod(wanted)
    groups: list[tuple[str, ...]] = [()]
    for size in wanted[1:]:
        group: list[str] = []
        while prod(sizes[axis] for axis in group) < size and atoms:
            group.append(atoms.pop(0))
        if prod(sizes[axis] for axis in group) != size:
            raise Unreadable("it uses a view that takes channels or places apart")
        groups.append(tuple(group))
    return Seen(value.name, value.shape, _settled(value, tuple(groups)))


def _permute(reader: _Reader, value: Any, order: Sequence[int]) -> Any:
    if isinstance(value, Tensor):
        return value.permute(*order)
    turned = tuple(value.axes[dim] for dim in order)
    if order[0] % len(order) != 0:
        raise Unreadable("it exchanges the images of a batch with something else")
    return Seen(value.name, value.shape, _settled(value, turned))


def _settled(value: Seen, axes: Axes) -> Axes:
    """Return the axes of a whole map where that is what they are: an axis of 1 may stand bare."""
    if len(axes) != 4 or len(value.shape) != 3:
        return axes
    full = all(
        group == (axis,) or (group == () and value.sizes[axis] == 1)
        for group, axis in zip(axes[1:], "CHW", strict=True)
    )
    return _MAP if full else axes


def _transpose(reader: _Reader, value: Any, a: int, b: int) -> Any:
    rank = value.ndim if isinstance(value, Tensor) else len(value.axes)
    order = list(range(rank))
    order[a], order[b] = order[b], order[a]
    return _permute(reader, value, order)


def _squeeze(reader: _Reader, value: Any, dims: Any = None) -> Any:
    if isinstance(value, Tensor):
        return value.squeeze(dims) if dims is not None else value.squeeze()
    rank = len(value.axes)
    gone = {d % rank for d in ([dims] if isinstance(dims, int) else dims or range(1, rank))}
    kept = tuple(
        group
        for dim, group in enumerate(value.axes)
        if dim not in gone or dim == 0 or prod(value.sizes[axis] for axis in group) > 1
    )
    return Seen(value.name, value.shape, _settled(value, kept))


def _unsqueeze(reader: _Reader, value: Any, dim: int) -> Any:
    if isinstance(value, Tensor):
        return value.unsqueeze(dim)
    axes = list(value.axes)
    axes.insert(dim % (len(axes) + 1), ())
    return Seen(value.name, value.shape, _settled(value, tuple(axes)))


def _same(reader: _Reader, value: Any, *given: Any, **named: Any) -> Any:
    return value


def _pad(reader: _Reader, value: Any, around: Sequence[int], fill: float = 0.0) -> Seen:
    value = _as_map(value, "a padding")
    if fill != 0 or len(around) > 4 or any(number < 0 for number in around):
        raise Unreadable("it uses a padding with something else than zeros around the map")
    left, right, top, bottom = (*around, 0, 0, 0, 0)[:4]
    channels, height, width = value.shape
    shape = (channels, height + top + bottom, width + left + right)
    return reader.add("pad", [value], shape, {"around": (left, right, top, bottom)})


def _binary(kind: Kind) -> Callable[..., Any]:
    def handler(reader: _Reader, a: Any, b: Any, alpha: float = 1) -> Any:
        if alpha != 1:
            raise Unreadable(f"it uses {kind} with a factor")
        if not isinstance(a, Seen) and not isinstance(b, Seen):
            return _OF_CONSTANTS[kind](a, b)
        if isinstance(a, Seen) and isinstance(b, Seen):
            return _of_two(reader, kind, a, b)
        if isinstance(a, Seen):
            return _by_constant(reader, kind, a, b)
        if kind == "subtract":
            return _by_constant(reader, "add", _by_constant(reader, "multiply", b, -1.0), a)
        return _by_constant(reader, kind, b, a)

    return handler


_OF_CONSTANTS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
}


def _of_two(reader: _Reader, kind: Kind, a: Seen, b: Seen) -> Seen:
    if a.shape == b.shape and a.axes == b.axes:
        made = reader.add(kind, [a, b], a.shape)
        return Seen(made.name, made.shape, a.axes)
    if a.axes == _MAP and b.axes == _BY_CHANNEL and a.shape[0] == b.shape[0]:
        return reader.add(kind, [a, b], a.shape)
    if b.axes == _MAP and a.axes == _BY_CHANNEL and kind != "subtract" and a.shape[0] == b.shape[0]:
        return reader.add(kind, [b, a], b.shape)
    raise Unreadable(f"it uses {kind} of two values of different shapes")


def _by_constant(reader: _Reader, kind: Kind, value: Seen, by: Any) -> Seen:
    channels = value.shape[0]
    constant = torch.as_tensor(by, dtype=torch.float64)
    if constant.numel() > 1:
        at = next((dim for dim, group in enumerate(value.axes) if group == ("C",)), None)
        if at is None:
            raise Unreadable(f"it uses {kind} by a constant over merged dimensions")
        shape = (1,) * (len(value.axes) - constant.ndim) + tuple(constant.shape)
        if any(size > 1 for dim, size in enumerate(shape) if dim != at):
            raise Unreadable(f"it uses {kind} by a constant that differs from place to place")
    constant = constant.flatten().expand(channels).clone()
    one, zero = torch.ones_like(constant), torch.zeros_like(constant)
    constants = {
        "add": {"scale": one, "offset": constant},
        "subtract": {"scale": one, "offset": -constant},
        "multiply": {"scale": constant, "offset": zero},
    }[kind]
    made = reader.add("scale", [value], value.shape, {}, constants)
    return Seen(made.name, made.shape, value.axes)


def _div(reader: _Reader, a: Any, b: Any) -> Any:
    if isinstance(b, Seen):
        raise Unreadable("it divides by a value that depends on the image")
    if not isinstance(a, Seen):
        return a / b
    return _by_constant(reader, "multiply", a, 1 / torch.as_tensor(b, dtype=torch.float64))


def _concat(reader: _Reader, values: Sequence[Any], dim: int = 0) -> Seen:
    if not all(isinstance(value, Seen) for value in values):
        raise Unreadable("it uses cat with something that does not depend on the image")
    axes = values[0].axes
    at = dim % len(axes)
    if axes[at] != ("C",) or any(value.axes != axes for value in values):
        raise Unreadable("it uses cat along something else than the channels")
    if any(value.shape[1:] != values[0].shape[1:] for value in values):
        raise Unreadable("it uses cat of maps of different sizes")
    shape = (sum(value.shape[0] for value in values), *values[0].shape[1:])
    made = reader.add("concat", values, shape)
    return Seen(made.name, made.shape, axes)


def _split(reader: _Reader, value: Any, size: int | Sequence[int], dim: int = 0) -> list[Seen]:
    if not isinstance(value, Seen) or value.axes[dim % len(value.axes)] != ("C",):
        raise Unreadable("it uses split along something else than the channels")
    channels = value.shape[0]
    sizes = size if not isinstance(size, int) else [size] * -(-channels // size)
    parts, start = [], 0
    for each in sizes:
        stop = min(channels, start + each)
        parts.append(_slice(reader, value, dim, start, stop))
        start = stop
    return parts


def _slice(
    reader: _Reader, value: Any, dim: int = 0, start: Any = 0, stop: Any = None, step: int = 1
) -> Any:
    if isinstance(value, Tensor):
        raise Unreadable("it cuts a constant")
    group = value.axes[dim % len(value.axes)]
    size = prod(value.sizes[axis] for axis in group)
    first = 0 if start is None else min(size, start if start >= 0 else max(0, size + start))
    last = size if stop is None else min(size, stop if stop >= 0 else max(0, size + stop))
    if (first, last, step) == (0, size, 1) or dim % len(value.axes) == 0:
        return value
    if group != ("C",) or step != 1 or last <= first:
        raise Unreadable("it cuts something else than a range of channels")
    attributes = {"start": first, "stop": last}
    made = reader.add("slice", [value], (last - first, *value.shape[1:]), attributes)
    return Seen(made.name, made.shape, value.axes)


def _softmax(kind: Kind) -> Callable[..., Any]:
    def handler(reader: _Reader, value: Any, dim: int, *given: Any) -> Seen:
        if not isinstance(value, Seen) or value.axes[dim % len(value.axes)] != ("C",):
            raise Unreadable(f"it uses {kind} over something else than the classes")
        if prod(value.shape) != value.shape[0]:
            raise Unreadable(f"it uses {kind} at each place of a map")
        row = reader.as_vector(value)
        made = reader.add(kind, [row], row.shape)
        return Seen(made.name, made.shape, value.axes)

    return handler


_HANDLERS: dict[str, Callable[..., Any]] = {
    "conv2d": _conv,
    "linear": _linear,
    "addmm": _addmm,
    "mm": _matmul,
    "matmul": _matmul,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive("avgpool"),
    "adaptive_max_pool2d": _adaptive_max,
    "mean": _mean,
    "amax": _amax,
    "view": _view,
    "_unsafe_view": _view,
    "reshape": _view,
    "permute": _permute,
    "transpose": _transpose,
    "t": lambda reader, value: _transpose(reader, value, 0, 1),
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "clone": _same,
    "contiguous": _same,
    "alias": _same,
    "detach": _same,
    "_to_copy": _same,
    "dropout": _same,
    "feature_dropout": _same,
    "constant_pad_nd": _pad,
    "pad": lambda reader, value, around, mode="constant", fill=None: (
        _pad(reader, value, around, fill or 0.0)
        if mode == "constant"
        else _refuse(f"it uses padding by {mode}")
    ),
    "add": _binary("add"),
    "sub": _binary("subtract"),
    "rsub": lambda reader, a, b, alpha=1: _binary("subtract")(reader, b, a, alpha),
    "mul": _binary("multiply"),
    "div": _div,
    "cat": _concat,
    "split": _split,
    "split_with_sizes": _split,
    "slice": _slice,
    "softmax": _softmax("softmax"),
    "_softmax": _softmax("softmax"),
    "log_softmax": _softmax("log_softmax"),
    "_log_softmax": _softmax("log_softmax"),
    "relu": _activation("relu"),
    "relu6": _activation("relu6"),
    "hardtanh": _activation("clamp"),
    "clamp": _activation("clamp"),
    "clamp_min": _activation("clamp"),
    "leaky_relu": _activation("leaky_relu", slope=0.01),
    "prelu": _activation("prelu"),
    "_prelu_kernel": _activation("prelu"),
    "elu": _activation("elu", slope=1.0),
    "gelu": _activation("gelu"),
    "silu": _activation("silu"),
    "hardswish": _activation("hardswish"),
    "hardsigmoid": _activation("hardsigmoid"),
    "sigmoid": _activation("sigmoid"),
    "tanh": _activation("tanh"),
}


def _refuse(why: str) -> Any:
    raise Unreadable(why)
