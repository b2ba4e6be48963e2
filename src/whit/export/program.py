"""A lowered graph: steps, each the call of one kernel, and their constants.

Values are in HWC layout, as float32 or uint8. A vector register of a float32 kernel accumulates
several outputs, so the weights of one input are contiguous; in an int8 kernel it accumulates one
output, so the weights of one output are contiguous.
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
ZEROS = "zeros"  # the padding of float32 convolutions
OUTPUT = "logits"  # the value of the last step
LOGIT_SCALE = 65536  # logits of int8 programs are multiplied by this


@dataclass(frozen=True, eq=False)
class Kernel:
    """A C function.

    call: a format string of its call; placeholders: `c.calls.calls`.
    compute: the int8 reference: returns the output of a step before requantization, (N, H, W, C)
        or (N, K), from inputs in that layout; constants are int64. None for float32.
    file: its source in `kernels/`, by default NAME.c in the folder of its type.
    words: values for the placeholders of its source.
    helpers: sources in `kernels/int8/` that its own requires.
    in_place: whether the output may overwrite the input: no element is written before it was read.
    elementwise: whether a map may stand in for a vector with the same memory layout.
    per_input: whether it is called once per input.
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
    """One kernel call: the name of its output, its inputs, settings and constants."""

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
    """Return the number of pixels and channels of a value; a vector is one pixel."""
    return prod(shape[1:]), shape[0]


def is_flat(shape: Shape) -> bool:
    """Whether flattening a map leaves its memory layout unchanged."""
    return 1 in pixels_and_channels(shape)


@dataclass(frozen=True)
class Program:
    """Steps from the value `image` to the value `logits`; shared constants are stored once."""

    graph: Graph
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
        """Whether a constant is a weight tensor stored in fewer than 8 bits per weight."""
        weights = (step.constants.get("weight") for step in self.steps if self.int8)
        return self.graph.bits < 8 and constant in weights


class ProgramBuilder:
    """Collects the steps and constants of a program while its graph is lowered."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.steps: list[Step] = []
        self.constants: dict[str, Array] = {}
        self.aliases: dict[str, str] = {}  # value: the value whose buffer it shares

    def inputs(self, op: Operation) -> tuple[str, ...]:
        return tuple(self.aliases.get(name, name) for name in op.inputs)

    def alias(self, op: Operation) -> None:
        """Let an operation's output share the buffer of its input."""
        self.aliases[op.name] = self.inputs(op)[0]

    def add(
        self,
        op: Operation,
        kernel: Kernel,
        settings: Mapping[str, Any],
        name: str = "",
        **constants: str,
    ) -> None:
        """Append a step that computes an operation's output, named `name` if given."""
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
        """Return the program; its last step computes the logits."""
        steps = (*self.steps[:-1], replace(self.steps[-1], name=OUTPUT))
        return Program(self.graph, int8, steps, self.constants)
