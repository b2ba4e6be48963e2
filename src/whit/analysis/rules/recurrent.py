"""Recurrent layers that torch runs as one operation."""

from __future__ import annotations

from dataclasses import replace

from whit.analysis.receptive_field import AxisRun, ReceptiveField, extend_windows
from whit.analysis.rules.call import OpCall, RuleResult
from whit.analysis.rules.products import pointwise


def layer(call: OpCall, kind: str | None) -> RuleResult:
    """One layer over (T, N, features): the last step depends on all of them, in any direction."""
    field = call.find_operand(call.args[0]).field or call.field
    windows = extend_windows(field.windows, [*field.dims[0], *field.dims[-1]])
    if windows is not None:
        rows, columns = (replace(window, fixed=True) for window in windows)
        windows = rows, columns
    dims = ((AxisRun("", call.shape[0]),), field.dims[1], (AxisRun("", call.shape[-1]),))
    return RuleResult(ReceptiveField(dims, windows), kind)


def pack(call: OpCall, kind: str | None) -> RuleResult:
    """Time steps of all images in one dim: which step an element is from is no longer known."""
    steps = call.field.dims[1 if call.arg(2, False) else 0]
    windows = extend_windows(call.field.windows, steps)
    dims = ((AxisRun("", call.shape[0]),), *call.field.dims[2:])
    return RuleResult(ReceptiveField(dims, windows), kind)


def fused_cell(call: OpCall, kind: str | None) -> RuleResult:
    """The arithmetic after the products of a cell, on single elements."""
    return pointwise(call, kind)
