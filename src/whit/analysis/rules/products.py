"""Elementwise operations and matrix products, with what they leave pending of a mean."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from torch import Tensor

from whit.analysis.receptive_field import (
    AXES,
    Dims,
    Sight,
    UnknownSight,
    Window,
    contract,
    merge,
)
from whit.analysis.rules.call import NEAR_ONE, Call, Finding, contracted


def pointwise(call: Call, kind: str | None) -> Finding:
    sights = [operand.sight for operand in call.data if operand.sight]
    result = merge(sights, call.shape)
    if call.name in ("mul", "div", "add", "sub", "neg", "clone", "_to_copy", "copy"):
        result = _carried(call, result)
    if call.name == "mul" and len(sights) == 2 and kind == "mul":
        result = replace(result, gain=1.0, summed=False)
    divided = call.name in ("mul", "div") and result.summed and result.positions == 1
    if divided and abs(result.gain - 1) < NEAR_ONE <= abs(call.first.gain - 1):
        return Finding(result.plain(), "gap")
    return Finding(result, kind)


def _carried(call: Call, result: Sight) -> Sight:
    """Carry a pending sum or weighting through a linear elementwise operation."""
    pending = call.first
    gain = pending.gain
    weighted = pending.weighted
    if call.name in ("mul", "div"):
        for factor in (argument for argument in call.args[:2]):
            operand = call.by_tensor(factor) if isinstance(factor, Tensor) else None
            if operand is None:
                value = float(factor) if isinstance(factor, (int, float)) else None
            elif operand.sight:
                continue
            else:
                value = operand.same_value()
                if value is None:
                    weighted |= _varying(operand.tensor, result.dims)
            if value:
                gain = gain * value if call.name == "mul" else gain / value
    return replace(result, gain=gain, summed=pending.summed, weighted=weighted)


def _varying(tensor: Tensor, dims: Dims) -> frozenset[str]:
    """Return the axes of `dims` along which `tensor`, broadcast against them, changes."""
    axes = set()
    for at in range(1, min(tensor.dim(), len(dims)) + 1):
        if tensor.shape[-at] > 1 and tensor.stride(-at) != 0:
            axes |= {run.axis for run in dims[-at] if run.size > 1}
    return frozenset(axes)


def product(call: Call, kind: str | None) -> Finding:
    """Matrix products: the last dim of the left operand meets a dim of the right one."""
    skip = 1 if call.name.startswith("add") or call.name == "baddbmm" else 0
    left, right = (call.by_tensor(call.args[skip + at]) for at in (0, 1))
    inner_right = -1 if call.name == "linear" or right.tensor.dim() == 1 else -2
    outer_right = -2 if call.name == "linear" else -1
    met = [*left.dims[-1], *right.dims[inner_right]]
    batch = left.dims[:-2] if left.sight else right.dims[:-2]
    dims = [*batch, *(left.dims[-2:-1] if call.name != "linear" else left.dims[len(batch) : -1])]
    if right.tensor.dim() > 1:
        dims.append(right.dims[outer_right])
    if call.name == "linear":
        dims = [*left.dims[:-1], right.dims[0]]
    if call.name == "addbmm":
        raise UnknownSight("a product summed over its batch")
    sights = [operand.sight for operand in (left, right) if operand.sight]
    if not sights:  # only the added term depends on the image
        return Finding(merge([call.first], call.shape), kind)
    result = Sight(tuple(dims), None)
    if len(sights) == 2:
        kind = "attention" if call.through_attention else "matmul"
        return Finding(replace(result, windows=_both(sights)), kind)
    result = replace(result, windows=contracted(sights[0], met))
    weight = right if left.sight else left
    value = weight.same_value()
    if value is not None:
        gain = value * prod(run.size for run in met if run.axis in AXES)
        if sights[0].positions > 1 and result.positions == 1 and not sights[0].cut:
            return Finding(result, "gap" if abs(gain - 1) < NEAR_ONE else "sum")
        return Finding(result, "sum")
    if not weight.stored:
        return Finding(result, "matmul")
    if result.positions > 1 and not call.through_linear:
        kind = "conv"
    added = [operand.sight for operand in call.data if operand.sight not in sights]
    if skip and any(added):
        result = merge([result, *[sight for sight in added if sight]], call.shape)
    return Finding(result, kind)


def _known(sight: Sight) -> tuple[Window, Window]:
    if sight.windows is None:
        raise UnknownSight("its input's is unknown")
    return sight.windows


def _both(sights: list[Sight]) -> tuple[Window, Window] | None:
    """Return windows of a product of two image-dependent tensors: all positions of both."""
    if any(sight.windows is None for sight in sights):
        return None
    windows = []
    for number in range(len(AXES)):
        ends = []
        for sight in sights:
            runs = [*sight.runs("h"), *sight.runs("w")]
            ends.append(contract(_known(sight), runs)[number])
        start = min(window.start for window in ends)
        size = max(window.stop for window in ends) - start
        moving = any(sight.positions > 1 for sight in sights)
        windows.append(Window(start, size, fixed=moving))
    return windows[0], windows[1]


def attention(call: Call, kind: str | None) -> Finding:
    query, value = call.by_tensor(call.args[0]), call.by_tensor(call.args[2])
    sights = [operand.sight for operand in call.data if operand.sight]
    dims = (*query.dims[:-1], value.dims[-1])
    return Finding(Sight(dims, _both(sights)), kind)
