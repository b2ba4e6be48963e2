"""What a C export is made of: steps in order, each a call of one kernel, and their constants.

A step is a graph's operation put as the kernels read it: channels side by side, numbers in float32
or in bytes. In float32 a vector holds sums of several outputs, whose weights for one input lie side
by side; in bytes, parts of one output's sum, whose weights for all inputs do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.export.ir.graph import INPUT, Graph, Operation, Shape

Array = NDArray[Any]
Ints = NDArray[np.int64]
OUTSIDE = "outside"  # what a convolution reads outside its map, in float32
OUTPUT = "scores"  # the value of the last step
LOGIT_SCALE = 65536  # int8 programs give logits times this


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


@dataclass(frozen=True)
class Program:
    """Steps from the value `image` to the value `scores`; constants that several share are one."""

    graph: Graph  # that it computes
    int8: bool
    steps: tuple[Step, ...]
    constants: Mapping[str, Array]

    def value_shape(self, name: str) -> Shape:
        if name == INPUT:
            return self.graph.image_shape
        return next(step.shape for step in self.steps if step.name == name)

    @property
    def constant_bytes(self) -> int:
        return sum(
            -(-array.size * self.graph.bits // 8) if self.is_packed(name) else array.nbytes
            for name, array in self.constants.items()
        )

    def is_packed(self, constant: str) -> bool:
        """Whether a constant is weights, and stored in fewer bits than 8 a number."""
        weights = (step.constants.get("weight") for step in self.steps if self.int8)
        return self.graph.bits < 8 and constant in weights


class ProgramBuilder:
    """The steps and constants of a program while its graph is lowered."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.steps: list[Step] = []
        self.constants: dict[str, Array] = {}
        self.aliases: dict[str, str] = {}  # values that lie in memory as others do already

    def inputs(self, op: Operation) -> tuple[str, ...]:
        return tuple(self.aliases.get(name, name) for name in op.inputs)

    def alias(self, op: Operation) -> None:
        """Let an operation's value be its input's."""
        self.aliases[op.name] = self.inputs(op)[0]

    def add(
        self,
        op: Operation,
        kernel: Kernel,
        settings: Mapping[str, Any],
        name: str = "",
        **constants: str,
    ) -> None:
        """Append a step that makes an operation's value, or the value `name` of its shape."""
        name = name or op.name
        self.steps.append(Step(name, kernel, self.inputs(op), op.shape, settings, constants))

    def store(self, name: str, array: Array) -> str:
        self.constants[name] = np.ascontiguousarray(array)
        return name

    def constant(self, op: Operation, role: str) -> Array:
        return self.graph.constants[op.constants[role]].numpy()

    def store_constant(self, op: Operation, role: str) -> str:
        return self.store(op.constants[role], self.constant(op, role))

    def program(self, *, int8: bool) -> Program:
        """Return the program; its last step gives the logits."""
        steps = (*self.steps[:-1], replace(self.steps[-1], name=OUTPUT))
        return Program(self.graph, int8, steps, self.constants)
