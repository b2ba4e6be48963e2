"""Parts of tensors: slices, indices, concatenation, padding, repetition, and pixel shuffle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whit.export.ir.graph import Operation
from whit.export.ir.ops.operator import Constants, Converter
from whit.export.ir.ops.tensors.aten_call import Call
from whit.export.ir.ops.tensors.tensor_layout import EXPAND, RESHAPE, TRANSPOSE
from whit.export.ir.ops.tensors.tensor_operator import TensorOperator, integers, number
from whit.export.ir.ops.values import TensorValue, UnsupportedOp, pair
from whit.export.onnx import OnnxWriter


def _run_slice(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    dim, start, stop, step = (op.attributes[name] for name in ("dim", "start", "stop", "step"))
    return inputs[0][(slice(None),) * dim + (slice(start, stop, step),)]


def _write_slice(writer: OnnxWriter, op: Operation) -> None:
    bounds = (integers(writer, [op.attributes[name]]) for name in ("start", "stop", "dim", "step"))
    writer.node("Slice", op.name, *op.inputs, *bounds)


# Attributes dim, start, stop, step.
SLICE = TensorOperator(kind="range", run=_run_slice, onnx=_write_slice)


def _run_gather(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    dim, index = op.attributes["dim"], torch.tensor(op.attributes["index"])
    return (
        inputs[0]
        .movedim(dim, 0)[index]
        .movedim(tuple(range(index.ndim)), tuple(range(dim, dim + index.ndim)))
    )


def _write_gather(writer: OnnxWriter, op: Operation) -> None:
    index = writer.array(f"{op.name}:index", op.attributes["index"], np.int64)
    writer.node("Gather", op.name, *op.inputs, index, axis=op.attributes["dim"])


# Elements along a dimension. Attributes dim; index: a number or nested lists of numbers.
GATHER = TensorOperator(kind="gather", run=_run_gather, onnx=_write_gather)
# Attribute dim.
CONCAT = TensorOperator(
    kind="join",
    run=lambda op, inputs, constants: torch.cat(inputs, op.attributes["dim"]),
    onnx="Concat",
    onnx_attributes=lambda op: {"axis": op.attributes["dim"]},
)


def _write_pad(writer: OnnxWriter, op: Operation) -> None:
    before, after = op.attributes["pads"][-2::-2], op.attributes["pads"][::-2]
    rest = [0] * (op.attributes["rank"] - len(before))
    pads = integers(writer, [*rest, *before, *rest, *after])
    writer.node("Pad", op.name, *op.inputs, pads, number(writer, op.attributes["value"]))


# A constant around a tensor. Attributes pads as in torch, value, rank.
PAD = TensorOperator(
    kind="surround",
    run=lambda op, inputs, constants: F.pad(
        inputs[0], op.attributes["pads"], value=op.attributes["value"]
    ),
    onnx=_write_pad,
)
# Attribute repeats, one of each dimension.
TILE = TensorOperator(
    kind="repeat",
    run=lambda op, inputs, constants: inputs[0].repeat(op.attributes["repeats"]),
    onnx=lambda writer, op: writer.node(
        "Tile", op.name, *op.inputs, integers(writer, op.attributes["repeats"])
    ),
)


def slice_range(call: Call, value: TensorValue, dim: int, start: int, stop: int) -> TensorValue:
    """Return a range along a dimension that is not that of the batch."""
    if (start, stop) == (0, value.sizes[dim]):
        return value
    sizes = [*value.sizes[:dim], stop - start, *value.sizes[dim + 1 :]]
    settings = {"dim": dim, "start": start, "stop": stop, "step": 1}
    return call.add(SLICE, [value], sizes, settings)


def gather(call: Call, value: TensorValue, dim: int, index: Any) -> TensorValue:
    """Return elements along a dimension; dimensions of `index` take its place."""
    array = np.array(index)
    sizes = [*value.sizes[:dim], *array.shape, *value.sizes[dim + 1 :]]
    return call.add(GATHER, [value], sizes, {"dim": dim, "index": array.tolist()})


def reshape(call: Call, value: TensorValue, sizes: Sequence[int]) -> TensorValue:
    return value if value.sizes == tuple(sizes) else call.add(RESHAPE, [value], sizes)


def transpose(call: Call, value: TensorValue, order: Sequence[int]) -> TensorValue:
    sizes = [value.sizes[dim] for dim in order]
    return call.add(TRANSPOSE, [value], sizes, {"order": tuple(order)})


def pad(call: Call, value: TensorValue, pads: Sequence[int], fill: float) -> TensorValue:
    """Pad the last dimensions, given as in torch: before and after, the last dimension first."""
    sizes = list(value.sizes)
    for i, added in enumerate(pads):
        if added:
            sizes[call.dim(-1 - i // 2, value)] += added
    settings = {"pads": tuple(pads), "value": float(fill), "rank": len(sizes)}
    return call.add(PAD, [value], sizes, settings) if any(pads) else value


def _view(call: Call) -> TensorValue:
    return reshape(call, call.tensor(), call.sizes)


def _permute(call: Call) -> TensorValue:
    value = call.tensor()
    return transpose(call, value, [dim % len(value.sizes) for dim in call["dims"]])


def _transpose(call: Call) -> TensorValue:
    value = call.tensor()
    order = list(range(len(value.sizes)))
    a, b = (call.arguments.get(name, i) for i, name in enumerate(("dim0", "dim1")))
    if len(order) > 1:
        order[a], order[b] = order[b], order[a]
    return transpose(call, value, order)


def _expand(call: Call) -> TensorValue:
    value = call.tensor()
    return value if value.sizes == call.sizes else call.add(EXPAND, [value])


def _select(call: Call) -> TensorValue:
    value = call.tensor()
    dim = call.dim(call["dim"], value)
    return gather(call, value, dim, call["index"] % value.sizes[dim])


def _slice(call: Call) -> TensorValue:
    value, sizes = call.tensor(), call.sizes
    if value.sizes == sizes and call["step"] == 1:
        return value
    dim = call.dim(call["dim"], value)
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(value.sizes[dim])
    settings = {"dim": dim, "start": start, "stop": stop, "step": step}
    return call.add(SLICE, [value], sizes, settings)


def _split(call: Call) -> list[TensorValue]:
    value = call.tensor()
    dim = call.dim(call["dim"], value)
    lengths = [sizes[dim] for sizes in call.output_sizes]
    ends = list(accumulate(lengths))
    return [
        slice_range(call, value, dim, end - length, end)
        for end, length in zip(ends, lengths, strict=True)
    ]


def _unbind(call: Call) -> list[TensorValue]:
    value = call.tensor()
    dim = call.dim(call["dim"], value)
    return [gather(call, value, dim, i) for i in range(value.sizes[dim])]


def _cat(call: Call) -> TensorValue:
    values = [call.operand(each) for each in call["tensors"]]
    ranks = {len(each.sizes) for each in values if isinstance(each, TensorValue)}
    tensors = [_full(call, each) for each in call["tensors"]]
    return call.add(CONCAT, tensors, None, {"dim": call["dim"] % max(ranks)})


def _full(call: Call, value: Any) -> TensorValue:
    call.arguments["value"] = value
    return call.tensor("value")


def _stack(call: Call) -> TensorValue:
    sizes = call.sizes
    dim = call["dim"] % len(sizes)
    one = [*sizes[:dim], 1, *sizes[dim + 1 :]]
    tensors = [reshape(call, _full(call, each), one) for each in call["tensors"]]
    return call.add(CONCAT, tensors, sizes, {"dim": dim})


def _flip(call: Call) -> TensorValue:
    value = call.tensor()
    for dim in call.dims(call["dims"], value):
        value = gather(call, value, dim, list(range(value.sizes[dim]))[::-1])
    return value


def _roll(call: Call) -> TensorValue:
    value = call.tensor()
    if not call["dims"]:
        raise UnsupportedOp("roll of a flattened tensor is not supported")
    for shift, given in zip(call["shifts"], call["dims"], strict=True):
        dim = call.dim(given, value)
        value = gather(call, value, dim, np.roll(np.arange(value.sizes[dim]), shift))
    return value


def _repeat(call: Call) -> TensorValue:
    value, repeats = call.tensor(), tuple(call["repeats"])
    value = reshape(call, value, (1,) * (len(repeats) - len(value.sizes)) + value.sizes)
    return call.add(TILE, [value], None, {"repeats": repeats})


def _repeat_interleave(call: Call) -> TensorValue:
    value = call.tensor()
    if not isinstance(call["repeats"], int) or call["dim"] is None:
        raise UnsupportedOp("repeat_interleave is supported with a number and a dimension only")
    dim = call.dim(call["dim"], value)
    return gather(call, value, dim, np.arange(value.sizes[dim]).repeat(call["repeats"]))


def _unfold(call: Call) -> TensorValue:
    value = call.tensor()
    dim = call.dim(call["dimension"], value)
    starts = np.arange(0, value.sizes[dim] - call["size"] + 1, call["step"])
    windows = gather(call, value, dim, starts[:, None] + np.arange(call["size"]))
    order = [i for i in range(len(windows.sizes)) if i != dim + 1]
    return transpose(call, windows, [*order, dim + 1])


def _im2col(call: Call) -> TensorValue:
    kernel, dilation, padding, stride = (
        pair(call[name], default)
        for name, default in (("kernel_size", 1), ("dilation", 1), ("padding", 0), ("stride", 1))
    )
    value = pad(call, call.tensor(), (padding[1], padding[1], padding[0], padding[0]), 0)
    rows = len(value.sizes) - 2
    # Each gather replaces a dimension by two: positions and taps.
    for dim, taps, step, by in zip((rows, rows + 2), kernel, stride, dilation, strict=True):
        starts = np.arange(0, value.sizes[dim] - by * (taps - 1), step)
        value = gather(call, value, dim, starts[:, None] + by * np.arange(taps))
    # (..., C, rows, kernel rows, columns, kernel columns)
    rank = len(value.sizes)
    first = list(range(rank - 4))
    moved = transpose(call, value, [*first, rank - 3, rank - 1, rank - 4, rank - 2])
    return reshape(call, moved, call.sizes)


def _index(call: Call) -> TensorValue:
    value = call.tensor()
    given = [(dim, index) for dim, index in enumerate(call["indices"]) if index is not None]
    if len(given) != 1 or not isinstance(given[0][1], Tensor) or given[0][1].dtype != torch.int64:
        raise UnsupportedOp("indices are supported for one dimension, as a constant of integers")
    dim, index = call.dim(given[0][0], value), given[0][1]
    return gather(call, value, dim, index.numpy() % value.sizes[dim])


def _index_select(call: Call) -> TensorValue:
    value, index = call.tensor(), call.constant("index")
    assert index is not None
    return gather(call, value, call.dim(call["dim"], value), index.reshape(-1).numpy())


def _pad(call: Call) -> TensorValue:
    mode, value, pads = call.arguments.get("mode", "constant"), call.tensor(), call["pad"]
    if mode == "constant":
        return pad(call, value, pads, call["value"] or 0)
    for i in range(len(pads) // 2):
        dim = call.dim(-1 - i, value)
        first, last = pads[2 * i : 2 * i + 2]
        inside = np.arange(value.sizes[dim])
        kept = inside[max(0, -first) : len(inside) - max(0, -last)]
        numpy_mode: Any = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
        index = np.pad(kept, (max(0, first), max(0, last)), mode=numpy_mode)
        value = gather(call, value, dim, index)
    return value


def _pixel_shuffle(call: Call) -> TensorValue:
    value, r = call.tensor(), call["upscale_factor"]
    *first, channels, height, width = value.sizes
    split = reshape(call, value, [*first, channels // r**2, r, r, height, width])
    at, n = list(range(len(first))), len(first)
    moved = transpose(call, split, [*at, n, n + 3, n + 1, n + 4, n + 2])
    return reshape(call, moved, call.sizes)


def _pixel_unshuffle(call: Call) -> TensorValue:
    value, r = call.tensor(), call["downscale_factor"]
    *first, channels, height, width = value.sizes
    split = reshape(call, value, [*first, channels, height // r, r, width // r, r])
    at, n = list(range(len(first))), len(first)
    moved = transpose(call, split, [*at, n, n + 2, n + 4, n + 1, n + 3])
    return reshape(call, moved, call.sizes)


def _channel_shuffle(call: Call) -> TensorValue:
    value, groups = call.tensor(), call["groups"]
    batch, channels, *rest = value.sizes
    split = reshape(call, value, [batch, groups, channels // groups, prod(rest)])
    return reshape(call, transpose(call, split, [0, 2, 1, 3]), call.sizes)


def _identity(call: Call) -> TensorValue:
    return call.tensor()


def _dropout(call: Call) -> TensorValue:
    if call["train"] and call["p"]:
        raise UnsupportedOp(f"{call.name} that is active in evaluation mode is not supported")
    return call.tensor("input")


CONVERTERS: dict[str, Converter] = {
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten"), _view
    ),
    "permute": _permute,
    **dict.fromkeys(("transpose", "t", "numpy_T", "mT"), _transpose),
    "expand": _expand,
    "select": _select,
    "slice": _slice,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _split),
    "unbind": _unbind,
    **dict.fromkeys(("cat", "concat"), _cat),
    "stack": _stack,
    "flip": _flip,
    "roll": _roll,
    "repeat": _repeat,
    "tile": _repeat,
    "repeat_interleave": _repeat_interleave,
    "unfold": _unfold,
    "im2col": _im2col,
    "index": _index,
    "index_select": _index_select,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), _channel_shuffle),
    **dict.fromkeys(("clone", "contiguous", "alias", "detach", "_to_copy"), _identity),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), _dropout),
    "native_dropout": lambda call: [_dropout(call), None],
}
OPERATORS = (RESHAPE, TRANSPOSE, EXPAND, SLICE, GATHER, CONCAT, PAD, TILE)
