"""What an operation reads, writes and overwrites."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from whit.analysis.receptive_field import AXES, AxisRun, ReceptiveField, untracked_dims
from whit.analysis.rules.call import OpCall, Operand, RuleResult, get_aten_name
from whit.analysis.rules.registry import is_batch_norm
from whit.analysis.tracing.memory_layout import Layout
from whit.analysis.tracing.stored_tensors import storage_key
from whit.analysis.tracing.trace import Signature

# In-place operations whose result does not depend on the values they overwrite.
OVERWRITING_OPS = frozenset(
    {"copy", "fill", "zero", "bernoulli", "normal", "uniform", "random", "exponential", "set_"}
)

# Running statistics that move by less than this in a step stay what they were initialized to.
MIN_MOMENTUM = 1e-4
# In-place operations that change shape and strides, and no number.
INPLACE_VIEWS = frozenset(
    {"t", "transpose", "squeeze", "unsqueeze", "swapaxes", "swapdims", "as_strided", "set"}
)

# Results that take only shape and type from their arguments.
FACTORY_PREFIXES = ("new_", "empty", "zeros", "ones", "full", "arange", "linspace", "eye", "scalar")


def is_factory(name: str) -> bool:
    """Return whether an operation takes no numbers from its arguments, only shape and type."""
    return name.startswith(FACTORY_PREFIXES) or name.endswith("_like")


def sign_operation(func: Any, result: Any) -> Signature:
    """Return what identifies an operation among those of another pass."""
    return get_aten_name(func), tuple(tuple(leaf.shape) for leaf in tensor_leaves(result))


def tensor_leaves(tree: Any) -> list[Tensor]:
    """Return the tensors in nested arguments or results."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def find_mutated(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that an in-place operation or an `out=` argument writes to."""
    if not func._schema.is_mutable or is_batch_norm(get_aten_name(func)):
        return []
    written = []
    for i, parameter in enumerate(func._schema.arguments):
        if parameter.alias_info is not None and parameter.alias_info.is_write:
            written += tensor_leaves(args[i] if i < len(args) else kwargs.get(parameter.name))
    return written


def live_operands(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], operands: list[Operand]
) -> list[Operand]:
    """Return the operands that can change the result: a product with zero has none but the zero."""
    if name == "mul":
        zeros = [operand for operand in operands if operand.constant_value() == 0]
        scalars = [argument for argument in args[:2] if isinstance(argument, (int, float))]
        if zeros or 0 in scalars:
            return zeros
    if name in ("add", "sub") and kwargs.get("alpha") == 0:
        return operands[:1]
    if name == "where" and len(operands) == 3:
        choice = operands[0].constant_value()
        if choice is not None:
            return [operands[1 if choice else 2]]
    share = args[2] if name == "lerp" and len(args) == 3 else None
    if isinstance(share, (int, float)) and share in (0, 1):
        return [operands[int(share)]]
    return [operand for operand in operands if operand.tensor.numel()]


def updates_running_statistics(call: OpCall) -> bool:
    """Return whether a batch normalization in this pass updates its running statistics."""
    moves = abs(call.arg(6, 0.1)) >= MIN_MOMENTUM
    return is_batch_norm(call.name) and call.uses_batch_statistics and moves


def reduces_batch(name: str, before: list[ReceptiveField], after: ReceptiveField | None) -> bool:
    """Return whether an operation averages over all images of the batch."""
    if name not in ("mean", "sum", "var", "std", "var_mean", "std_mean") or after is None:
        return False
    return any(field.runs("n") for field in before) and not after.runs("n")


def has_size_of_image(func: Any, name: str, args: tuple[Any, ...], call: OpCall) -> bool:
    """Return whether the size of the result depends on the values of the image."""
    if torch.Tag.dynamic_output_shape not in func.tags:
        return False
    if name != "index":
        return bool(call.fields)
    masks = (i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8))
    return any(call.find_operand(mask).field for mask in masks)


def covers_storage(tensor: Tensor) -> bool:
    """Return whether `tensor` covers all of its storage."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return True  # sparse and opaque tensors have no views
    return tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes()


def shares_storage(one: Tensor, other: Tensor) -> bool:
    try:
        return storage_key(one) == storage_key(other)
    except NotImplementedError:
        return False


def keep_jumps(result: RuleResult, used: list[Operand]) -> ReceptiveField:
    """Keep the jump of an axis reduced to one position; a global mean is one big stride."""
    before = [operand.field for operand in used if operand.field]
    jumps = []
    for axis in AXES:
        jump = max(field.jump(axis) for field in before)
        if any(run.axis == axis for dim in result.field.dims for run in dim):
            jump = result.field.jump(axis)
        elif result.kind == "gap":
            jump *= max(prod(run.size for run in field.runs(axis)) for field in before)
        jumps.append(jump)
    return replace(result.field, jumps=(jumps[0], jumps[1]))


def _unwrap(
    before: ReceptiveField, part: ReceptiveField, run: AxisRun, size: int, shift: Fraction
) -> Fraction:
    """Return `shift` so that positions taken from the opposite side continue the map, as in roll.

    Circular padding writes the last rows in front of the first. A part that lies half a map or
    more from where it belongs has been wrapped around.
    """
    assert before.windows is not None
    assert part.windows is not None
    i = AXES.index(run.axis)
    offset = part.windows[i].start + shift - before.windows[i].start
    same = part.windows[i].size == before.windows[i].size
    wrapped = same and abs(offset) * 2 >= size * abs(run.step) and not part.windows[i].fixed
    return shift - offset if wrapped else shift


def merge_write(
    base: Tensor, layout: Layout | None, part: Tensor, field: ReceptiveField
) -> ReceptiveField:
    """Return the field of `base` after `part`, a view of it, was written with `field`."""
    before = layout.read(base) if layout else None
    dims = list(before.dims if before else untracked_dims(base.shape))
    shift = dict.fromkeys(AXES, Fraction(0))
    offset = int(part.storage_offset() - base.storage_offset())
    starts = {}
    for i in sorted(range(base.dim()), key=base.stride, reverse=True):
        starts[i], offset = divmod(offset, max(base.stride(i), 1))
    for i in range(base.dim()):
        same = [j for j in range(part.dim()) if part.stride(j) == base.stride(i)]
        same = [j for j in same if part.shape[j] > 1]
        if base.shape[i] > 1 and same and len(field.dims[same[0]]) == 1:
            run = field.dims[same[0]][0]
            dims[i] = (replace(run, size=base.shape[i]),)
        elif base.shape[i] > 1 and before and len(dims[i]) == 1:
            run = dims[i][0]  # one position of the axis was written
        else:
            continue
        if run.axis in shift:
            shift[run.axis] = -starts[i] * run.step
            if before and before.windows and field.windows:
                shift[run.axis] = _unwrap(before, field, run, base.shape[i], shift[run.axis])
    if field.windows is None or (before and before.windows is None):
        return ReceptiveField(tuple(dims), None, cropped=True)
    windows = []
    for i, (axis, window) in enumerate(zip(AXES, field.windows, strict=True)):
        start = window.start + shift[axis]
        stop = start + window.size
        if before and before.windows:
            start = min(start, before.windows[i].start)
            stop = max(stop, before.windows[i].stop)
        windows.append(replace(window, start=start, size=stop - start))
    cropped = bool(before and before.cropped)
    return ReceptiveField(tuple(dims), (windows[0], windows[1]), cropped)
