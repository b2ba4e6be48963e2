"""What an operation reads, writes and overwrites."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from whit.analysis.kinds import BATCH_NORMS
from whit.analysis.receptive_field import (
    AXES,
    Layout,
    Sight,
    plain_dims,
)
from whit.analysis.rules.call import Call, Finding, Operand, base_name, uses_batch_statistics
from whit.analysis.tracing.storage import storage_key

# In-place operations whose result does not depend on what stood there before.
OVERWRITING = frozenset(
    {"copy", "fill", "zero", "bernoulli", "normal", "uniform", "random", "exponential", "set_"}
)


# Results that take only shape and type from their arguments.
MADE_PREFIXES = ("new_", "empty", "zeros", "ones", "full", "arange", "linspace", "eye", "scalar")


def changed_by(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that an in-place operation or an `out=` argument writes to."""
    if not func._schema.is_mutable:
        return []
    written = []
    for at, parameter in enumerate(func._schema.arguments):
        if parameter.alias_info is not None and parameter.alias_info.is_write:
            value = args[at] if at < len(args) else kwargs.get(parameter.name)
            written += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return written if base_name(func) not in BATCH_NORMS else []


def effective(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], operands: list[Operand]
) -> list[Operand]:
    """Return the operands that can change the result: nothing survives a product with zero."""
    if name == "mul":
        scalars = [argument for argument in args[:2] if isinstance(argument, (int, float))]
        if 0 in scalars or any(operand.same_value() == 0 for operand in operands):
            return [operand for operand in operands if operand.same_value() == 0]
    if name in ("add", "sub") and kwargs.get("alpha") == 0:
        return operands[:1]
    if name == "where" and len(operands) == 3:
        choice = operands[0].same_value()
        if choice is not None:
            return [operands[1 if choice else 2]]
    if name == "lerp" and len(args) == 3 and args[2] in (0, 1) and not torch.is_tensor(args[2]):
        return [operands[int(args[2])]]
    return [operand for operand in operands if operand.tensor.numel()]


def moves_statistics(call: Call) -> bool:
    """Tell whether a batch normalisation in this pass moves its running statistics."""
    return call.name in BATCH_NORMS and uses_batch_statistics(call) and call.at(6, 0.1) != 0


def is_all(tensor: Tensor) -> bool:
    """Tell whether `tensor` is the whole of its storage."""
    return tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes()


def same_memory(one: Tensor, other: Tensor) -> bool:
    try:
        return storage_key(one) == storage_key(other)
    except NotImplementedError:
        return False


def with_jumps(finding: Finding, used: list[Operand]) -> Sight:
    """Keep the jump of an axis whose positions are all gone; a global mean is one big stride."""
    before = [operand.sight for operand in used if operand.sight]
    jumps = []
    for axis in AXES:
        jump = max(sight.jump(axis) for sight in before)
        if any(run.axis == axis for dim in finding.sight.dims for run in dim):
            jump = finding.sight.jump(axis)
        elif finding.kind == "gap":
            jump *= max(prod(run.size for run in sight.runs(axis)) for sight in before)
        jumps.append(jump)
    return replace(finding.sight, jumps=(jumps[0], jumps[1]))


def written_into(base: Tensor, layout: Layout | None, part: Tensor, sight: Sight) -> Sight:
    """Return the sight of `base` after `part`, a view of it, was written with `sight`."""
    before = layout.read(base) if layout else None
    dims = list(before.dims if before else plain_dims(base.shape))
    shift = dict.fromkeys(AXES, Fraction(0))
    offset = int(part.storage_offset() - base.storage_offset())
    order = sorted(range(base.dim()), key=base.stride, reverse=True)
    starts = {}
    for at in order:
        starts[at], offset = divmod(offset, max(base.stride(at), 1))
    for at in range(base.dim()):
        same = [i for i in range(part.dim()) if part.stride(i) == base.stride(at)]
        same = [i for i in same if part.shape[i] > 1]
        if base.shape[at] > 1 and same and len(sight.dims[same[0]]) == 1:
            run = sight.dims[same[0]][0]
            if run.axis in shift:
                shift[run.axis] = -starts[at] * run.step
            dims[at] = (replace(run, size=base.shape[at]),)
    if sight.windows is None or (before and before.windows is None):
        return Sight(tuple(dims), None, cut=True)
    rows, cols = (
        replace(window, start=window.start + shift[axis])
        for axis, window in zip(AXES, sight.windows, strict=True)
    )
    if before is not None and before.windows is not None:
        pairs = list(zip(before.windows, (rows, cols), strict=True))
        starts_at = [min(a.start, b.start) for a, b in pairs]
        sizes = [max(a.stop, b.stop) - s for (a, b), s in zip(pairs, starts_at, strict=True)]
        rows, cols = (
            replace(b, start=s, size=n)
            for (_, b), s, n in zip(pairs, starts_at, sizes, strict=True)
        )
    return Sight(tuple(dims), (rows, cols), cut=bool(before and before.cut))
