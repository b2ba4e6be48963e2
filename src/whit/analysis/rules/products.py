"""Elementwise operations and matrix products, with what they leave pending of a mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod

from torch import Tensor

from whit.analysis.receptive_field import (
    AXES,
    AxisRun,
    Dims,
    ReceptiveField,
    UnknownReceptiveField,
    Window,
    Windows,
    extend_windows,
    merge_fields,
)
from whit.analysis.rules.call import MEAN_TOLERANCE, OpCall, Operand, RuleResult, has_addend


def pointwise(call: OpCall, kind: str | None) -> RuleResult:
    result = merge_fields(call.fields, call.shape)
    if call.name in ("mul", "div", "add", "sub", "neg", "clone", "_to_copy", "copy"):
        result = _carry_pending(call, result)
    if call.name == "mul" and len(call.fields) == 2 and kind == "mul":
        result = replace(result, gain=1.0, summed=False)
    divided = call.name in ("mul", "div") and result.summed and result.num_positions == 1
    if divided and abs(result.gain - 1) < MEAN_TOLERANCE <= abs(call.field.gain - 1):
        return RuleResult(result.without_flags(), "gap")
    return RuleResult(result, kind)


def _carry_pending(call: OpCall, result: ReceptiveField) -> ReceptiveField:
    """Carry a pending sum or weighting through a linear elementwise operation."""
    pending = call.field
    gain = pending.gain
    weighted_axes = pending.weighted_axes
    if call.name in ("mul", "div"):
        for factor in call.args[:2]:
            operand = call.find_operand(factor) if isinstance(factor, Tensor) else None
            if operand is None:
                value = float(factor) if isinstance(factor, (int, float)) else None
            elif operand.field:
                continue
            else:
                value = operand.constant_value()
                if value is None:
                    weighted_axes |= _find_varying_axes(operand.tensor, result.dims)
            if value:
                gain = gain * value if call.name == "mul" else gain / value
    return replace(result, gain=gain, summed=pending.summed, weighted_axes=weighted_axes)


def _find_varying_axes(tensor: Tensor, dims: Dims) -> frozenset[str]:
    """Return the axes of `dims` along which `tensor`, broadcast against them, changes."""
    axes = set()
    for i in range(1, min(tensor.dim(), len(dims)) + 1):
        if tensor.shape[-i] > 1 and tensor.stride(-i) != 0:
            axes |= {run.axis for run in dims[-i] if run.size > 1}
    return frozenset(axes)


def product(call: OpCall, kind: str | None) -> RuleResult:
    """Matrix products: the last dim of the left operand is summed with one of the right."""
    first = int(has_addend(call.name))
    left, right = (call.find_operand(call.args[first + i]) for i in (0, 1))
    inner_right = -1 if call.name == "linear" or right.tensor.dim() == 1 else -2
    contracted = [*left.dims[-1], *right.dims[inner_right]]
    if call.name == "linear":
        dims = [*left.dims[:-1], right.dims[0]]
    else:
        batch = left.dims[:-2] if left.field else right.dims[:-2]
        dims = [*batch, *left.dims[-2:-1]]
        if right.tensor.dim() > 1:
            dims.append(right.dims[-1])
    if call.name == "addbmm":
        raise UnknownReceptiveField("a product summed over its batch")
    fields = [operand.field for operand in (left, right) if operand.field]
    if not fields:  # only the added term depends on the image
        return RuleResult(merge_fields([call.field], call.shape), kind)
    if len(fields) == 2:
        kind = "attention" if call.inside_attention else "matmul"
        windows = _span_product(left, right, contracted)
        return RuleResult(ReceptiveField(tuple(dims), windows), kind)
    result = ReceptiveField(tuple(dims), extend_windows(fields[0].windows, contracted))
    weight = right if left.field else left
    value = weight.constant_value()
    if value is not None:
        gain = value * prod(run.size for run in contracted if run.axis in AXES)
        if fields[0].num_positions > 1 and result.num_positions == 1 and not fields[0].cropped:
            return RuleResult(result, "gap" if abs(gain - 1) < MEAN_TOLERANCE else "sum")
        return RuleResult(result, "sum")
    if not (weight.stored or weight.random or call.inside_linear):
        return RuleResult(result, "matmul")
    if result.num_positions > 1 and not call.inside_linear:
        kind = "conv"
    added = [field for field in call.fields if field not in fields]
    if first and added:
        result = merge_fields([result, *added], call.shape)
    return RuleResult(result, kind)


def _span_operands(fields: list[ReceptiveField]) -> Windows | None:
    """Return windows of a product of image-dependent tensors: all positions of all of them."""
    extended = []
    for field in fields:
        windows = extend_windows(field.windows, [*field.runs("h"), *field.runs("w")])
        if windows is None:
            return None
        extended.append(windows)
    moving = any(field.num_positions > 1 for field in fields)
    spans = []
    for axis_windows in zip(*extended, strict=True):
        start = min(window.start for window in axis_windows)
        stop = max(window.stop for window in axis_windows)
        spans.append(Window(start, stop - start, fixed=moving))
    return spans[0], spans[1]


def _span_product(left: Operand, right: Operand, contracted: list[AxisRun]) -> Windows | None:
    """Return windows of a product in which both operands depend on the image.

    Where positions of the map are counted only by the batch, each position sees itself.
    """
    fields = [operand.field for operand in (left, right) if operand.field]
    rank = max(len(field.dims) for field in fields)
    batch = _has_positions(fields[0].dims[: max(rank - 2, 0)])
    outer = _has_positions([*left.dims[-2:-1], *right.dims[-1:]]) or any(
        window.fixed for field in fields for window in field.windows or ()
    )
    if not batch or any(len(field.dims) != rank for field in fields):
        return _span_operands(fields)
    if outer:
        raise UnknownReceptiveField("positions are multiplied within parts of the map")
    contracted_fields = [
        ReceptiveField(field.dims[: rank - 2], extend_windows(field.windows, contracted))
        for field in fields
    ]
    shape = tuple(prod(run.size for run in dim) for dim in fields[0].dims[: rank - 2])
    return merge_fields(contracted_fields, shape).windows


def _has_positions(dims: Iterable[tuple[AxisRun, ...]]) -> bool:
    return any(run.axis in AXES and run.size > 1 for dim in dims for run in dim)


def trilinear(call: OpCall, kind: str | None) -> RuleResult:
    """`F.bilinear`: features of two operands with stored weights between them."""
    fields = [operand.field for operand in call.operands if operand.field]
    contracted = [
        ReceptiveField(field.dims[:-1], extend_windows(field.windows, field.dims[-1]))
        for field in fields
    ]
    merged = merge_fields(contracted, call.shape[:-1])
    dims = (*merged.dims, (AxisRun("", call.shape[-1]),))
    return RuleResult(ReceptiveField(dims, merged.windows), kind)


def attention(call: OpCall, kind: str | None) -> RuleResult:
    query, value = call.find_operand(call.args[0]), call.find_operand(call.args[2])
    if any(_has_positions(field.dims[:-2]) for field in call.fields):
        raise UnknownReceptiveField("attention within parts of the map")
    dims = (*query.dims[:-1], value.dims[-1])
    return RuleResult(ReceptiveField(dims, _span_operands(call.fields)), kind)
