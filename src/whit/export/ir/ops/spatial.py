"""Operators that rearrange a map: flatten, padding, deskewing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from torch.nn import functional as F

from whit.errors import ModelError
from whit.export.ir.fusion import remove_operation
from whit.export.ir.graph import Graph, Operation
from whit.export.ir.ops.operator import Operator, lower_float, lower_int8
from whit.export.onnx import OnnxWriter
from whit.export.program import Ints, Kernel, ProgramBuilder, Step, is_flat
from whit.export.quantization.builder import QuantizedProgramBuilder
from whit.export.quantization.reference import divide_toward_zero
from whit.models.layers import MIN_MASS, Deskew


def _lower_flatten(builder: ProgramBuilder, op: Operation) -> None:
    if is_flat(builder.graph.value_shape(op.inputs[0])):
        builder.alias(op)
    else:
        lower_float(builder, op)


def _lower_flatten_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    if is_flat(builder.graph.value_shape(op.inputs[0])):
        builder.keep(op)
        builder.alias(op)
    else:
        lower_int8(builder, op)


# A map's numbers in a vector, channel by channel and row by row.
FLATTEN = Operator(
    kind="flatten",
    run=lambda op, inputs, constants: inputs[0].flatten(1),
    kernel=Kernel(
        "flatten",
        "flatten({values}, {output})",
        lambda step, inputs, _: inputs[0].transpose(0, 3, 1, 2).reshape(len(inputs[0]), -1),
        "flatten.c",
    ),
    onnx="Flatten",
    onnx_attributes=lambda op: {"axis": 1},
    keeps_range=True,
    lower_float=_lower_flatten,
    lower_int8=_lower_flatten_int8,
)


def _compute_pad(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    left, right, top, bottom = step.settings["around"]
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    added = [(max(0, first), max(0, last)) for first, last in around]
    wide: Ints = np.pad(inputs[0], added, constant_values=step.settings["zero"])
    _, height, width, _ = wide.shape
    return wide[:, max(0, -top) : height + min(0, bottom), max(0, -left) : width + min(0, right)]


def _fuse_pad(graph: Graph, op: Operation) -> Graph | None:
    """Merge it into a padding in front of it, where both add or both crop on each side."""
    (name,) = op.inputs
    first = next((each for each in graph.operations if each.name == name), None)
    if first is None or first.operator is not PAD or graph.consumers()[name] != 1:
        return None
    sides = list(zip(first.attributes["around"], op.attributes["around"], strict=True))
    if any(a * b < 0 for a, b in sides):
        return None
    around = tuple(a + b for a, b in sides)
    both = replace(first, shape=op.shape, attributes={"around": around})
    return remove_operation(graph, op, {first.name: both})


def _write_pad(writer: OnnxWriter, op: Operation) -> None:
    left, right, top, bottom = op.attributes["around"]
    around = [0, 0, top, left, 0, 0, bottom, right]
    writer.node("Pad", op.name, *op.inputs, writer.array(f"{op.name}:around", around, np.int64))


_PAD_CALL = "pad({input_map}, {around[0]}, {around[2]}, "
# Zeros around a map: `around` is left, right, top, bottom; a negative number crops.
PAD = Operator(
    kind="pad",
    run=lambda op, inputs, constants: F.pad(inputs[0], op.attributes["around"]),
    kernel=Kernel("pad", _PAD_CALL + "{output_map})"),
    int8_kernel=Kernel("pad", _PAD_CALL + "{zero}, {output_map})", _compute_pad),
    onnx=_write_pad,
    fuse=_fuse_pad,
    keeps_range=True,
)


def _compute_deskew(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    """Shift rows by their moments: positions in units of 1/65536 and weights of pixels in 1/256."""
    (x,) = inputs
    _, height, width, _ = x.shape
    rows, columns = np.arange(height), np.arange(width)
    mass = (x - x.min((1, 2), keepdims=True)).sum(3)
    along, row = mass @ columns, mass.sum(2)
    total, sum_x, sum_y = row.sum(1), along.sum(1), row @ rows
    mixed = total * (along @ rows) - sum_x * sum_y
    spread = total * (row @ rows**2) - sum_y**2
    while (large := np.abs(mixed) >= 1 << 46).any():
        mixed = np.where(large, divide_toward_zero(mixed, 2), mixed)
        spread = np.where(large, spread // 2, spread)
    slope = np.where(spread > 0, divide_toward_zero(mixed * 65536, np.maximum(spread, 1)), 0)
    slope = slope.clip(-256 * 65536, 256 * 65536)
    from_y = total[:, None] * rows - sum_y[:, None]
    shift = divide_toward_zero(slope[:, None] * from_y, np.maximum(total, 1)[:, None])
    shift = shift.clip(-width * 65536, width * 65536)
    source = (columns * 65536 + shift[..., None]).clip(0, (width - 1) * 65536)
    left, share = source >> 16, (source >> 8 & 255)[..., None]
    a = np.take_along_axis(x, left[..., None], 2)
    b = np.take_along_axis(x, np.minimum(left + 1, width - 1)[..., None], 2)
    mean: Ints = (a * (256 - share) + b * share + 128) >> 8
    return mean


def _lower_deskew_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    pixels, side = prod(op.shape[1:]), max(op.shape)
    if (255 * op.shape[0] * pixels) ** 2 * side**2 >= 2**63:
        raise ModelError(
            f"{op.name}: cannot be exported in int8: a product of its moments could leave 64 bits."
        )
    builder.keep(op, rounded=True)
    builder.add(op, DESKEW.kernel, {})


def _write_deskew(writer: OnnxWriter, op: Operation) -> None:
    _, height, width = op.shape
    (image,) = op.inputs

    def node(kind: str, name: str, *inputs: str, **settings: Any) -> str:
        return writer.node(kind, f"{op.name}:{name}", *inputs, **settings)

    def total(name: str, value: str, *axes: int, kept: int = 1) -> str:
        over = writer.array(f"axes:{''.join(map(str, axes))}", list(axes), np.int64)
        return node("ReduceSum", name, value, over, keepdims=kept)

    def number(name: str, value: Any) -> str:
        return writer.array(f"{op.name}:{name}", value, np.float32)

    x = number("x", np.arange(width).reshape(1, 1, -1))
    y = number("y", np.arange(height).reshape(1, -1, 1))
    min_mass = number("least", MIN_MASS)
    smallest = node("ReduceMin", "smallest", image, writer.array("axes:HW", [2, 3], np.int64))
    mass = total("mass", node("Sub", "above", image, smallest), 1, kept=0)
    rows, columns = total("rows", mass, 2), total("columns", mass, 1)
    total_mass = node("Max", "whole", total("total", rows, 1), min_mass)
    sum_y = total("sum_y", node("Mul", "by_y", rows, y), 1)
    sum_x = total("sum_x", node("Mul", "by_x", columns, x), 2)
    from_y = node("Sub", "from_y", y, node("Div", "centre_y", sum_y, total_mass))
    from_x = node("Sub", "from_x", x, node("Div", "centre_x", sum_x, total_mass))
    along = total("along", node("Mul", "by_from_x", mass, from_x), 2)
    mixed = total("mixed", node("Mul", "by_both", along, from_y), 1)
    squared = node("Mul", "squared", from_y, from_y)
    spread = total("spread", node("Mul", "by_squared", rows, squared), 1)
    slope = node("Div", "slope", mixed, node("Max", "some_spread", spread, min_mass))
    source = node("Add", "source", x, node("Mul", "moved", slope, from_y))
    scaled = node("Mul", "scaled", source, number("width", 2 / width))
    across = node("Add", "across", scaled, number("edge", 1 / width - 1))
    heights = (np.arange(height) * (2 / height) + (1 / height - 1)).reshape(1, -1, 1)
    shape = node("Shape", "shape", across)
    upwards = node("Expand", "upwards", number("heights", heights), shape)
    last = writer.array("axes:3", [3], np.int64)
    pairs = (
        node("Unsqueeze", f"{name}:one", coordinate, last)
        for name, coordinate in (("across", across), ("upwards", upwards))
    )
    grid = node("Concat", "grid", *pairs, axis=3)
    writer.node(
        *("GridSample", op.name, image, grid), mode="linear", padding_mode="border", align_corners=0
    )


# Rows shifted so that the mixed second moment is zero: `layers.Deskew`.
DESKEW = Operator(
    kind="deskew",
    run=lambda op, inputs, constants: Deskew()(inputs[0]),
    kernel=Kernel("deskew", "deskew({input_map}, {output})", _compute_deskew),
    onnx=_write_deskew,
    # What lies above the smallest number grows in every channel alike.
    commutes_with_scale=lambda op, scale: bool((scale == scale[0]).all() and scale[0] > 0),
    keeps_range=True,
    lower_int8=_lower_deskew_int8,
)
OPERATORS = (FLATTEN, PAD, DESKEW)
