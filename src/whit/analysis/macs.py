"""Multiply-adds of one executed operation: convolutions and matrix products, nothing else.

A bias, a normalisation or an activation adds none. Twice this number is what torch's own
`FlopCounterMode` counts; a test holds the two together.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor

from whit.analysis.kinds import ATTENTION, CONVOLUTIONS, PRODUCTS

UNCOUNTED = frozenset({"mkldnn_rnn_layer", "_trilinear", "_cdist_forward", "_thnn_fused_lstm_cell"})


def multiply_adds(name: str, args: tuple[Any, ...], out: Tensor) -> int:
    """Return the multiply-adds of aten operation `name` on the whole batch."""
    if name in CONVOLUTIONS:
        image, weight = args[0], args[1]
        # every weight meets every position once: of the result, or, transposed, of the input
        positions = prod((image if args[6] else out).shape[2:])
        return int(weight.numel() * positions * image.shape[0])
    if name in PRODUCTS:
        left = args[1] if name.startswith("add") or name == "baddbmm" else args[0]
        if name == "dot":
            return int(left.numel())
        return int(out.numel() * left.shape[-1] * (left.shape[0] if name == "addbmm" else 1))
    if name in ATTENTION:
        query, key, value = args[:3]
        pairs = prod(query.shape[:-1]) * key.shape[-2]
        return int(pairs * (query.shape[-1] + value.shape[-1]))
    return 0
