"""What a C form is made of: steps in order, each a call of one kernel, and their constants.

A step is a graph's operation put as the kernels read it: channels side by side, numbers in float32
or in bytes. In float32 a vector holds sums of several outputs, whose weights for one input lie side
by side; in bytes, parts of one output's sum, whose weights for all inputs do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.export.ir.graph import INPUT, Graph, Operation, Shape

Array = NDArray[Any]
OUTPUT = "scores"  # the value of the last step
SCORE_UNITS = 65536  # of one logit, in the scores of the int8 form


@dataclass(frozen=True)
class Step:
    """One call: the value it makes, what it reads, its settings and the names of its constants."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: Shape
    settings: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """Steps from the value `image` to the value `scores`; constants that several share are one."""

    name: str
    int8: bool
    image_shape: tuple[int, int, int]  # C, H, W
    classes: tuple[str, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, Array]
    macs: int  # for one image
    shifts: tuple[tuple[int, int], ...]  # of the image: the scores are the mean over them
    bits: int  # of a weight, in the int8 form

    @classmethod
    def of(
        cls, graph: Graph, steps: tuple[Step, ...], constants: Mapping[str, Array], *, int8: bool
    ) -> Program:
        return cls(
            graph.name,
            int8,
            graph.image_shape,
            graph.classes,
            steps,
            constants,
            graph.macs,
            graph.shifts,
            graph.bits,
        )

    def shape_of(self, name: str) -> Shape:
        if name == INPUT:
            return self.image_shape
        return next(step.shape for step in self.steps if step.name == name)

    @property
    def constant_bytes(self) -> int:
        return sum(
            packed_size(array.size, self.bits) if self.is_packed(name) else array.nbytes
            for name, array in self.constants.items()
        )

    def is_packed(self, constant: str) -> bool:
        """Whether a constant is weights, and stored in fewer bits than 8 a number."""
        held = (step.constants.get("weight") for step in self.steps if self.int8)
        return self.bits < 8 and constant in held


def packed_size(count: int, bits: int) -> int:
    """Return the bytes of so many numbers side by side."""
    return -(-count * bits // 8)


def places_and_channels(shape: Shape) -> tuple[int, int]:
    """Return how a value lies in memory; a vector is one place."""
    return prod(shape[1:]), shape[0]


def lies_flat(shape: Shape) -> bool:
    """Whether a map's numbers lie in memory as those of its flattened vector do."""
    places, channels = places_and_channels(shape)
    return places == 1 or channels == 1


def as_kernel(op: Operation, read: Shape, weight: Array, *, int8: bool) -> tuple[str, str, Array]:
    """Return a convolution's kernel, what follows its weights' name, and them as the kernel reads.

    (O, C/groups, KH, KW) becomes (KH, KW, C) for `depthwise`; for `conv`, (O, KH, KW, C/groups) in
    int8 and (groups, KH, KW, C/groups, O/groups) in float32.
    Operations that share weights may read them by different kernels.
    """
    groups: int = op.attributes["groups"]
    if groups > 1 and groups == read[0] == op.shape[0]:
        kind, laid = "depthwise", weight[:, 0].transpose(1, 2, 0)
    elif int8:
        kind, laid = "conv", weight.transpose(0, 2, 3, 1)
    else:
        by_group = weight.reshape(groups, -1, *weight.shape[1:])
        kind, laid = "conv", by_group.transpose(0, 3, 4, 2, 1)
    return kind, "" if groups == 1 else f".{kind}{groups}", np.ascontiguousarray(laid)
