"""A trained network as a flat list of primitive operations, each with its output shape.

All export targets (ONNX, C, HTML) start from it. A value is a map (C, H, W) or a vector (K,),
float32, without the batch dimension; for ONNX alone, also a tensor of any rank: see `Shape`. The
input `image` holds pixels from 0 to 255 as in the dataset; normalization is part of the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from whit.export.ir.ops.operator import Operator

# Sizes after the batch dimension. If that is not the first one, or is merged with another, all
# sizes, -k for k times the batch size: (28, -1, 16) are 28 steps of each image.
Shape = tuple[int, ...]
INPUT = "image"


@dataclass(frozen=True)
class Operation:
    """One operation: its operator, inputs, output shape, attributes and constants, by name.

    Operations may refer to the same constants: shared weights are stored once. `site`: the layer
    and the user's line that call it, for messages. `onnx_reason`: why other targets than ONNX do
    not support it; empty for what uses the result of such an operation.
    """

    name: str
    operator: Operator
    inputs: tuple[str, ...]
    shape: Shape
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    site: str = field(default="", compare=False)
    onnx_reason: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        return self.operator.kind


@dataclass(frozen=True)
class Graph:
    """Operations in topological order; the last computes the logits.

    Constants are float64 after capture and float32 after fusion. `shifts` are (right, down) in
    pixels: with several, the logits are averaged over the shifted images (test-time augmentation),
    whose gaps are filled with edge pixels. `bits`: bits per weight of int8 programs, fewer than 8
    after quantization-aware training of low-bit weights.
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
        """The number of stored values; shared constants count once."""
        return sum(tensor.numel() for tensor in self.constants.values())

    def value_shape(self, name: str) -> Shape:
        if name == INPUT:
            return self.image_shape
        return next(op.shape for op in self.operations if op.name == name)

    def consumers(self) -> Counter[str]:
        """The number of consumers of each value; the logits have one more."""
        return Counter([name for op in self.operations for name in op.inputs] + [self.output])

    def constant_users(self) -> Counter[str]:
        """The number of operations that use each constant."""
        return Counter(name for op in self.operations for name in op.constants.values())

    @property
    def macs(self) -> int:
        """Multiply-adds per image, over all shifts."""
        once = sum(op.operator.num_macs(op, self.constants) for op in self.operations)
        return len(self.shifts) * once


def with_batch(shape: Shape, batch_size: int) -> Shape:
    """Return all sizes of a value for a batch size."""
    if min(shape, default=1) > 0:
        return (batch_size, *shape)
    return tuple(-size * batch_size if size < 0 else size for size in shape)


def prepend(first: Operation, graph: Graph) -> Graph:
    """Return the graph with an operation between the image and its consumers."""
    others = (
        replace(op, inputs=tuple(first.name if name == INPUT else name for name in op.inputs))
        for op in graph.operations
    )
    return replace(graph, operations=(first, *others))
