"""Layers: convolution, linear, BatchNorm, pooling, means."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from whit.export.ir.graph import Kind
from whit.export.ir.ops.axes import pad
from whit.export.ir.ops.values import (
    BY_CHANNEL,
    MAP,
    VECTOR,
    Growing,
    Seen,
    Unreadable,
    as_map,
    is_column,
    pair,
)


def conv(
    graph: Growing,
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
    kernel, strides, spread = weight.shape[2:], pair(stride, 1), pair(dilation, 1)
    around = [d * (k - 1) for k, d in zip(kernel, spread, strict=True)]
    if padding == "valid":
        padding = 0
    if is_column(image):
        same = (around[0] // 2, around[1] // 2)
        pads = same if padding == "same" else pair(padding, 0)
        if padding != "same" and any(
            swept(1, *each) != 1 for each in zip(kernel, strides, pads, spread, strict=True)
        ):
            raise Unreadable("it uses a convolution with padding of a map of 1x1")
        return _of_column(graph, image, weight, bias, pads, spread, groups)
    value = as_map(image, "a convolution")
    if padding == "same":
        if any(total % 2 for total in around):
            # As torch does it: the odd zero stands behind.
            left, top = around[1] // 2, around[0] // 2
            value = pad(graph, value, [left, around[1] - left, top, around[0] - top])
            around = [0, 0]
        padding = [total // 2 for total in around]
    pads = pair(padding, 0)
    size = tuple(
        swept(*each) for each in zip(value.shape[1:], kernel, strides, pads, spread, strict=True)
    )
    bias = torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias
    attributes = {"stride": strides, "padding": pads, "dilation": spread, "groups": groups}
    return graph.add(
        "conv", [value], (len(weight), *size), attributes, {"weight": weight, "bias": bias}
    )


def _of_column(
    graph: Growing,
    column: Seen,
    weight: Tensor,
    bias: Tensor | None,
    pads: tuple[int, int],
    spread: tuple[int, int],
    groups: int,
) -> Seen:
    """A convolution from 1x1 to 1x1: a linear layer by the tap that meets the only number."""
    (row, row_rest), (line, line_rest) = map(divmod, pads, spread)
    beyond = row >= weight.shape[2] or line >= weight.shape[3]
    if beyond or row_rest or line_rest:  # the taps step over it
        taps = torch.zeros_like(weight[:, :, 0, 0])
    else:
        taps = weight[:, :, row, line]
    if groups > 1:
        taps = torch.block_diag(*taps.chunk(groups))  # type: ignore[no-untyped-call]
    made = linear(graph, Seen(column.name, column.shape, VECTOR), taps, bias)
    return Seen(made.name, made.shape, BY_CHANNEL)


def linear(graph: Growing, vector: Any, weight: Tensor, bias: Tensor | None = None) -> Seen:
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
    row = graph.as_vector(vector)
    return graph.add("linear", [row], (len(weight),), {}, {"weight": weight, "bias": bias})


def addmm(graph: Growing, bias: Any, vector: Any, weight: Any) -> Seen:
    return linear(graph, vector, weight.t() if isinstance(weight, Tensor) else weight, bias)


def matmul(graph: Growing, vector: Any, weight: Any) -> Seen:
    return linear(graph, vector, weight.t() if isinstance(weight, Tensor) else weight)


def batch_norm(
    graph: Growing,
    value: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    momentum: float,
    eps: float,
) -> list[Seen]:
    if not isinstance(value, Seen) or value.axes not in (MAP, VECTOR, BY_CHANNEL):
        raise Unreadable("it uses BatchNorm over dimensions that were exchanged or merged")
    scale = (var.double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.double()
    offset = -mean.double() * scale
    if bias is not None:
        offset = offset + bias.double()
    constants = {"scale": scale, "offset": offset}
    made = graph.add("scale", [value], value.shape, {}, constants)
    return [Seen(made.name, made.shape, value.axes)]


def max_pool(
    graph: Growing,
    image: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> Seen:
    value = as_map(image, "a pooling")
    return _pool(graph, "maxpool", value, kernel, stride, padding, ceil, dilation)


def avg_pool(
    graph: Growing,
    image: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil: bool = False,
    counts_padding: bool = True,
    divisor: int | None = None,
) -> Seen:
    value = as_map(image, "a pooling")
    if divisor is not None:
        raise Unreadable("it uses avg_pool2d with a divisor of its own")
    return _pool(graph, "avgpool", value, kernel, stride, padding, ceil, 1, counts_padding)


def _pool(
    graph: Growing,
    kind: Kind,
    value: Seen,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil: bool,
    dilation: Any,
    counts_padding: bool = True,
) -> Seen:
    kernels, pads, spread = pair(kernel, 1), pair(padding, 0), pair(dilation, 1)
    strides = kernels if stride is None or stride == [] else pair(stride, 1)
    each = list(zip(value.shape[1:], kernels, strides, pads, spread, strict=True))
    size = tuple(swept(*numbers) for numbers in each)
    if ceil and any(
        (full + 2 * pad - wide * (kernel - 1) - 1) % stride
        for full, kernel, stride, pad, wide in each
    ):
        raise Unreadable("it uses a pooling with ceil_mode that reaches beyond the map")
    if kind == "avgpool" and kernels == value.shape[1:] and pads == (0, 0):
        mean = graph.add("mean", [value], value.shape[:1])
        return Seen(mean.name, mean.shape, BY_CHANNEL)
    attributes: dict[str, Any] = {"kernel": kernels, "stride": strides, "padding": pads}
    if kind == "maxpool":
        attributes["dilation"] = spread
    else:
        attributes["counts_padding"] = counts_padding
    return graph.add(kind, [value], (value.shape[0], *size), attributes)


def adaptive(kind: str) -> Callable[..., Any]:
    def handler(graph: Growing, image: Any, output: Any) -> Any:
        wanted = pair(output, 1)
        if is_column(image) and wanted == (1, 1):
            return [image, None] if kind == "maxpool" else image
        value = as_map(image, "a pooling")
        if any(size % out for size, out in zip(value.shape[1:], wanted, strict=True)):
            raise Unreadable(
                f"it uses adaptive pooling of {value.shape[1]}x{value.shape[2]} to "
                f"{wanted[0]}x{wanted[1]}, whose windows differ in size"
            )
        kernel = [size // out for size, out in zip(value.shape[1:], wanted, strict=True)]
        if kind == "maxpool":
            pooled = max_pool(graph, value, kernel)
            return [pooled, None]  # torch gives the places of the largest, too
        return avg_pool(graph, value, kernel)

    return handler


def mean(
    graph: Growing, value: Any, dims: Any = None, keepdim: bool = False, dtype: Any = None
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
    made = graph.add("mean", [value], value.shape[:1])
    return Seen(made.name, made.shape, kept)


def total(
    graph: Growing, value: Any, dims: Any = None, keepdim: bool = False, dtype: Any = None
) -> Seen:
    """A sum over the whole map: its mean, so many times."""
    made = mean(graph, value, dims, keepdim, dtype)
    places = prod(value.shape[1:])
    one, zero = torch.ones(made.shape[0]), torch.zeros(made.shape[0])
    many = graph.add("scale", [made], made.shape, {}, {"scale": one * places, "offset": zero})
    return Seen(many.name, many.shape, made.axes)


def amax(graph: Growing, image: Any, dims: Any = (), keepdim: bool = False) -> Seen:
    if is_column(image) and {dim % 4 for dim in dims} == {2, 3}:
        return Seen(image.name, image.shape, BY_CHANNEL if keepdim else VECTOR)
    value = as_map(image, "a largest value")
    if {dim % 4 for dim in dims} != {2, 3}:
        raise Unreadable("it uses amax over something else than the whole map")
    pooled = graph.as_vector(max_pool(graph, value, value.shape[1:]))
    return Seen(pooled.name, pooled.shape, BY_CHANNEL if keepdim else VECTOR)


def swept(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
