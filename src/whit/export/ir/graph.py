"""A trained network as a flat list of plain operations, each with the shape of its output.

Every export (ONNX, C, the browser) starts from this one description. No batch dimension: a value
is a map (C, H, W) or a vector (K,), float32. The network reads `image`: pixels from 0 to 255 as
they lie in the data set; its normalization is part of the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from whit.export.ir.ops.operator import Operator

Shape = tuple[int, ...]
INPUT = "image"


@dataclass(frozen=True)
class Operation:
    """One operation: the names of its inputs, its attributes and the names of its constants.

    Two operations may name the same constants: weights shared over depth are stored once.
    """

    name: str
    operator: Operator
    inputs: tuple[str, ...]
    shape: Shape
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.operator.kind


@dataclass(frozen=True)
class Graph:
    """Operations in an order in which each finds its inputs ready; the last gives the logits.

    Constants are float64 as captured and float32 once they are fused. With several `shifts`,
    (right, down) in pixels, the logits are the mean of those of the image shifted by each; pixels
    of the edge fill what a shift leaves free. `bits` are those of a weight in int8 programs: fewer
    than 8 where weights were trained so.
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

    def value_shape(self, name: str) -> Shape:
        if name == INPUT:
            return self.image_shape
        return next(op.shape for op in self.operations if op.name == name)

    def consumers(self) -> Counter[str]:
        """How many operations read each value; the logits count one more."""
        return Counter([name for op in self.operations for name in op.inputs] + [self.output])

    def constant_users(self) -> Counter[str]:
        """How many operations use each constant."""
        return Counter(name for op in self.operations for name in op.constants.values())

    @property
    def macs(self) -> int:
        """Multiply-adds for one image, over all shifts."""
        once = sum(op.operator.num_macs(op, self.constants) for op in self.operations)
        return len(self.shifts) * once


def prepend(first: Operation, graph: Graph) -> Graph:
    """Return the graph with an operation in front, which all that read the image now read."""
    others = (
        replace(op, inputs=tuple(first.name if name == INPUT else name for name in op.inputs))
        for op in graph.operations
    )
    return replace(graph, operations=(first, *others))
