"""A trained network as a flat list of plain operations, each with the shape of what it gives.

Every way out of whit (ONNX, C, the browser) starts from this one description. No batch dimension:
a value is a map (C, H, W) or a vector (K,), float32. The network reads `image`: pixels from 0 to
255 as they lie in the data set; its normalisation is part of the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

from torch import Tensor

Kind = Literal[
    "conv",  # constants weight (O, C/groups, KH, KW), bias (O,); stride, padding, dilation, groups
    "linear",  # constants weight (K, N), bias (K,); reads a vector
    "flatten",  # a map's numbers in a row, channel by channel and line by line
    "scale",  # x * scale + offset by channel: constants scale (C,), offset (C,)
    "activation",  # `function`, and its `slope` or constant slope (C,) where it has one
    "maxpool",  # kernel, stride, padding, dilation; what lies outside never wins
    "avgpool",  # kernel, stride, padding; what lies outside counts as 0 where `counts_padding`
    "mean",  # of each channel over its whole map: (C, H, W) to (C,)
    "add",  # of two values of one shape; a vector (C,) counts for every place of a map
    "subtract",
    "multiply",
    "concat",  # along the channels
    "slice",  # channels `start` to `stop`
    "deskew",  # rows moved so that the mixed second moment is zero: `layers.Deskew`
    "pad",  # zeros around the map: left, right, top, bottom; a negative number takes lines away
    "softmax",  # over the classes
    "log_softmax",
]
Shape = tuple[int, ...]

INPUT = "image"
# What the function of an `activation` may be; all are given by PyTorch's definitions.
FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "prelu", "elu", "gelu", "silu"),
    *("hardswish", "hardsigmoid", "sigmoid", "tanh"),
)


@dataclass(frozen=True)
class Operation:
    """One operation: the names of what it reads, its settings and the names of its constants.

    Two operations may name the same constants: weights shared over depth are stored once.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    shape: Shape
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Operations in an order in which each finds its inputs ready; the last gives the logits.

    Constants are float64 as they were read and float32 once they are folded. With several
    `shifts`, (right, down) in pixels, the logits are the mean of those of the image moved by each;
    what a shift leaves free is filled with the pixels of the edge. `bits` are those of a weight in
    the int8 form: fewer than 8 where weights were trained so.
    """

    name: str
    image_shape: tuple[int, int, int]  # C, H, W
    classes: tuple[str, ...]
    operations: tuple[Operation, ...]
    constants: Mapping[str, Tensor]
    shifts: tuple[tuple[int, int], ...] = ((0, 0),)
    bits: int = 8

    @property
    def output(self) -> str:
        return self.operations[-1].name

    @property
    def num_constants(self) -> int:
        """Numbers that are stored, shared ones once."""
        return sum(tensor.numel() for tensor in self.constants.values())

    def shape_of(self, name: str) -> Shape:
        if name == INPUT:
            return self.image_shape
        return next(op.shape for op in self.operations if op.name == name)

    def readers(self) -> Counter[str]:
        """How many operations read each value; the logits are read once by whoever asked."""
        return Counter([name for op in self.operations for name in op.inputs] + [self.output])

    def holders(self) -> Counter[str]:
        """How many operations hold each constant."""
        return Counter(name for op in self.operations for name in op.constants.values())

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return len(self.shifts) * sum(self.macs_of(op) for op in self.operations)

    def macs_of(self, op: Operation) -> int:
        """Multiply-adds of a convolution or linear layer for one look; 0 for all others."""
        if op.kind == "conv":
            return prod(self.constants[op.constants["weight"]].shape[1:]) * prod(op.shape)
        if op.kind == "linear":
            return self.constants[op.constants["weight"]].numel()
        return 0


def behind(first: Operation, graph: Graph) -> Graph:
    """Return the graph with an operation in front, which all that read the image now read."""
    others = (
        replace(op, inputs=tuple(first.name if name == INPUT else name for name in op.inputs))
        for op in graph.operations
    )
    return replace(graph, operations=(first, *others))
