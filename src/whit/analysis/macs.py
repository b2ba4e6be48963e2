"""Multiply-adds of one executed operation: convolutions and matrix products, nothing else.

A bias, a normalization or an activation adds none. Twice this number is what torch's own
`FlopCounterMode` counts; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from whit.analysis.rules.call import has_addend

# Returns the multiply-adds of an aten operation on the full batch: name, arguments, result.
MacRule = Callable[[str, tuple[Any, ...], Tensor], int]


def no_macs(name: str, args: tuple[Any, ...], out: Tensor) -> int:
    return 0


def convolution_macs(name: str, args: tuple[Any, ...], out: Tensor) -> int:
    image, weight = args[0], args[1]
    # every weight is used once at every position: of the result, or, transposed, of the input
    positions = prod((image if args[6] else out).shape[2:])
    return int(weight.numel() * positions * image.shape[0])


def product_macs(name: str, args: tuple[Any, ...], out: Tensor) -> int:
    left = args[int(has_addend(name))]
    if left.layout != torch.strided:  # a sparse matrix: each stored number, once for each column
        return int(left._nnz() * (out.shape[-1] if out.dim() > 1 else 1))
    if name == "dot":
        return int(left.numel())
    return int(out.numel() * left.shape[-1] * (left.shape[0] if name == "addbmm" else 1))


def bilinear_macs(name: str, args: tuple[Any, ...], out: Tensor) -> int:
    """As two products: (N, I) with the weights (O, I, J), and what results with (N, J)."""
    outputs, _, inner = args[1].shape
    return int(prod(out.shape[:-1]) * (args[1].numel() + outputs * inner))


def recurrent_macs(name: str, args: tuple[Any, ...], out: Tensor) -> int:
    """One layer in one direction: both weight matrices at each step of (T, N, features)."""
    steps = prod(args[0].shape[:2])
    return int(steps * (args[1].numel() + args[2].numel()))


def attention_macs(name: str, args: tuple[Any, ...], out: Tensor) -> int:
    query, key, value = args[:3]
    pairs = prod(query.shape[:-1]) * key.shape[-2]
    return int(pairs * (query.shape[-1] + value.shape[-1]))
