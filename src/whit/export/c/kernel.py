"""A kernel of the C target, the same computation in NumPy, and a step that calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.export.ir.graph import Shape

Array = NDArray[Any]
Ints = NDArray[np.int64]
OUTSIDE = "outside"  # what a convolution reads outside its map, in float32


@dataclass(frozen=True, eq=False)
class Kernel:
    """A C function.

    call: a format of its call; `c.calls` lists the words.
    compute: returns the int8 output of a step before its factor, offset and shift, (N, H, W, C) or
        (N, K), from its inputs in that layout; constants are int64. None in float32.
    file: its source in `kernels/`, by default NAME.c in the folder of its type.
    words: what fills the placeholders of its source.
    helpers: sources in `kernels/int8/` that come before its own.
    in_place: whether it writes no value before the last one that it reads there.
    elementwise: whether a map may stand for the vector that lies alike in memory.
    per_input: whether it is called once for each input.
    """

    name: str
    call: str
    compute: Callable[[Step, list[Ints], Mapping[str, Ints]], Ints] | None = None
    file: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    helpers: tuple[str, ...] = ()
    in_place: bool = False
    elementwise: bool = False
    per_input: bool = False


@dataclass(frozen=True)
class Step:
    """One call: the value it makes, what it reads, its settings and the names of its constants."""

    name: str
    kernel: Kernel
    inputs: tuple[str, ...]
    shape: Shape
    settings: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.kernel.name


def pixels_and_channels(shape: Shape) -> tuple[int, int]:
    """Return how a value lies in memory; a vector is one pixel."""
    return prod(shape[1:]), shape[0]


def is_flat(shape: Shape) -> bool:
    """Whether a map's numbers lie in memory as those of its flattened vector do."""
    return 1 in pixels_and_channels(shape)
