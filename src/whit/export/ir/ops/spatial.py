"""Operators that rearrange a map: flatten, pad, deskew."""

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


# (C, H, W) to (C * H * W,).
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
    left, right, top, bottom = step.settings["pads"]
    sides = ((0, 0), (top, bottom), (left, right), (0, 0))
    added = [(max(0, first), max(0, last)) for first, last in sides]
    padded: Ints = np.pad(inputs[0], added, constant_values=step.settings["zero_point"])
    _, height, width, _ = padded.shape
    return padded[:, max(0, -top) : height + min(0, bottom), max(0, -left) : width + min(0, right)]


def _fuse_pad(graph: Graph, op: Operation) -> Graph | None:
    """Merge it into a preceding padding if both add or both crop on each side."""
    (name,) = op.inputs
    first = next((each for each in graph.operations if each.name == name), None)
    if first is None or first.operator is not PAD or graph.consumers()[name] != 1:
        return None
    sides = list(zip(first.attributes["pads"], op.attributes["pads"], strict=True))
    if any(a * b < 0 for a, b in sides):
        return None
    pads = tuple(a + b for a, b in sides)
    both = replace(first, shape=op.shape, attributes={"pads": pads})
    return remove_operation(graph, op, {first.name: both})


def _write_pad(writer: OnnxWriter, op: Operation) -> None:
    left, right, top, bottom = op.attributes["pads"]
    pads = [0, 0, top, left, 0, 0, bottom, right]
    writer.node("Pad", op.name, *op.inputs, writer.array(f"{op.name}:pads", pads, np.int64))


_PAD_CALL = "pad({input_map}, {pads[0]}, {pads[2]}, "
# Zero padding. Attribute pads: left, right, top, bottom; negative numbers crop.
PAD = Operator(
    kind="pad",
    run=lambda op, inputs, constants: F.pad(inputs[0], op.attributes["pads"]),
    kernel=Kernel("pad", _PAD_CALL + "{output_map})"),
    int8_kernel=Kernel("pad", _PAD_CALL + "{zero_point}, {output_map})", _compute_pad),
    onnx=_write_pad,
    fuse=_fuse_pad,
    keeps_range=True,
)


def _compute_deskew(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    """Reference of int8/deskew.c: positions in 1/65536 pixel, interpolation weights in 1/256."""
    (x,) = inputs
    _, height, width, _ = x.shape
    rows, columns = np.arange(height), np.arange(width)
    mass = (x - x.min((1, 2), keepdims=True)).sum(3)
    row_x, row_mass = mass @ columns, mass.sum(2)
    total, sum_x, sum_y = row_mass.sum(1), row_x.sum(1), row_mass @ rows
    mu11 = total * (row_x @ rows) - sum_x * sum_y  # both moments times the total mass
    mu02 = total * (row_mass @ rows**2) - sum_y**2
    while (large := np.abs(mu11) >= 1 << 46).any():
        mu11 = np.where(large, divide_toward_zero(mu11, 2), mu11)
        mu02 = np.where(large, mu02 // 2, mu02)
    slope = np.where(mu02 > 0, divide_toward_zero(mu11 * 65536, np.maximum(mu02, 1)), 0)
    slope = slope.clip(-256 * 65536, 256 * 65536)
    dy = total[:, None] * rows - sum_y[:, None]
    offset = divide_toward_zero(slope[:, None] * dy, np.maximum(total, 1)[:, None])
    offset = offset.clip(-width * 65536, width * 65536)
    source = (columns * 65536 + offset[..., None]).clip(0, (width - 1) * 65536)
    left, fraction = source >> 16, (source >> 8 & 255)[..., None]
    a = np.take_along_axis(x, left[..., None], 2)
    b = np.take_along_axis(x, np.minimum(left + 1, width - 1)[..., None], 2)
    interpolated: Ints = (a * (256 - fraction) + b * fraction + 128) >> 8
    return interpolated


def _lower_deskew_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    pixels, side = prod(op.shape[1:]), max(op.shape)
    if (255 * op.shape[0] * pixels) ** 2 * side**2 >= 2**63:
        raise ModelError(
            f"{op.name}: cannot be exported in int8: a product of its moments could overflow int64."
        )
    builder.keep(op, rounded=True)
    builder.add(op, _DESKEW, {})


def _write_deskew(writer: OnnxWriter, op: Operation) -> None:
    _, height, width = op.shape
    (image,) = op.inputs

    def node(kind: str, name: str, *inputs: str, **settings: Any) -> str:
        return writer.node(kind, f"{op.name}:{name}", *inputs, **settings)

    def reduce_sum(name: str, value: str, *axes: int, keepdims: int = 1) -> str:
        over = writer.array(f"axes:{''.join(map(str, axes))}", list(axes), np.int64)
        return node("ReduceSum", name, value, over, keepdims=keepdims)

    def constant(name: str, value: Any) -> str:
        return writer.array(f"{op.name}:{name}", value, np.float32)

    x = constant("x", np.arange(width).reshape(1, 1, -1))
    y = constant("y", np.arange(height).reshape(1, -1, 1))
    min_mass = constant("min_mass", MIN_MASS)
    minimum = node("ReduceMin", "minimum", image, writer.array("axes:HW", [2, 3], np.int64))
    mass = reduce_sum("mass", node("Sub", "above_minimum", image, minimum), 1, keepdims=0)
    rows, columns = reduce_sum("row_mass", mass, 2), reduce_sum("column_mass", mass, 1)
    total_mass = node("Max", "total_mass", reduce_sum("sum", rows, 1), min_mass)
    sum_y = reduce_sum("sum_y", node("Mul", "row_mass_y", rows, y), 1)
    sum_x = reduce_sum("sum_x", node("Mul", "column_mass_x", columns, x), 2)
    dy = node("Sub", "dy", y, node("Div", "center_y", sum_y, total_mass))
    dx = node("Sub", "dx", x, node("Div", "center_x", sum_x, total_mass))
    row_dx = reduce_sum("row_dx", node("Mul", "mass_dx", mass, dx), 2)
    mu11 = reduce_sum("mu11", node("Mul", "row_dx_dy", row_dx, dy), 1)
    dy_squared = node("Mul", "dy_squared", dy, dy)
    mu02 = reduce_sum("mu02", node("Mul", "row_mass_dy_squared", rows, dy_squared), 1)
    slope = node("Div", "slope", mu11, node("Max", "positive_mu02", mu02, min_mass))
    source = node("Add", "source_x", x, node("Mul", "offset", slope, dy))
    scaled = node("Mul", "scaled_x", source, constant("scale_x", 2 / width))
    grid_x = node("Add", "grid_x", scaled, constant("offset_x", 1 / width - 1))
    heights = (np.arange(height) * (2 / height) + (1 / height - 1)).reshape(1, -1, 1)
    shape = node("Shape", "shape", grid_x)
    grid_y = node("Expand", "grid_y", constant("rows_y", heights), shape)
    last = writer.array("axes:3", [3], np.int64)
    pairs = (
        node("Unsqueeze", f"{name}:unsqueezed", coordinate, last)
        for name, coordinate in (("grid_x", grid_x), ("grid_y", grid_y))
    )
    grid = node("Concat", "grid", *pairs, axis=3)
    writer.node(
        *("GridSample", op.name, image, grid), mode="linear", padding_mode="border", align_corners=0
    )


_DESKEW = Kernel("deskew", "deskew({input_map}, {output})", _compute_deskew)
# Moment-based deskewing: `whit.models.layers.Deskew`.
DESKEW = Operator(
    kind="deskew",
    run=lambda op, inputs, constants: Deskew()(inputs[0]),
    kernel=_DESKEW,
    onnx=_write_deskew,
    # A uniform positive scale changes neither the slope nor the interpolation.
    commutes_with_scale=lambda op, scale: bool((scale == scale[0]).all() and scale[0] > 0),
    keeps_range=True,
    lower_int8=_lower_deskew_int8,
)
OPERATORS = (FLATTEN, PAD, DESKEW)
