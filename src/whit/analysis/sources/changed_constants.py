"""Which constants differ between two passes of a model."""

from __future__ import annotations

import torch
from torch import Tensor

from whit.analysis.tracing.stored_tensors import memory_parts
from whit.analysis.tracing.trace import Trace


def is_comparable(one: Trace, other: Trace) -> bool:
    """Return whether constants of one number are the same constant in two passes."""
    return one.signature == other.signature and len(one.constants) == len(other.constants)


def find_changed(one: Trace, other: Trace) -> frozenset[int]:
    """Return by number which constants of two comparable passes differ."""
    pairs = zip(one.constants.values(), other.constants.values(), strict=True)
    return frozenset(number for number, pair in enumerate(pairs) if not _is_equal(*pair))


def _is_equal(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors of any layout have the same shape and numbers."""
    if one.shape != other.shape or one.layout != other.layout:
        return False
    parts, others = memory_parts(one), memory_parts(other)
    try:
        if not parts:
            parts, others = [one.to_dense()], [other.to_dense()]
        return all(map(torch.equal, parts, others))
    except (RuntimeError, NotImplementedError):  # numbers that cannot be read, as inside jvp
        return False
