"""Compares each converted operator with torch on random values.

The images of a data set need not reach every bound and branch of an operator, so equal logits on
them do not show that an operator was converted correctly. Here each operator is given values of its
own, far beyond those of any image.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from math import isfinite, prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from whit.export.ir.ops.spatial import FLATTEN
from whit.export.ir.ops.values import (
    BATCH,
    Expanded,
    GraphBuilder,
    UnsupportedOp,
    ValueView,
    overload_name,
)

_SCALES = (1.0, 30.0, 1000.0)  # standard deviations of random values
_MAX_SCALE = 1e6
_TOLERANCE = 1e-4  # relative to the largest output of an image


def check_conversion(
    node: Node, values: dict[Node, Any], builder: GraphBuilder, first: int
) -> None:
    """Raise UnsupportedOp if the operations from index `first` on do not compute what torch does.

    `values` holds the inputs of the node and its converted output.
    """
    if node.target is operator.getitem:
        return
    value, scales = values[node], list(_scales(node, values))
    generator = torch.Generator().manual_seed(len(builder.operations))
    for start in range(0, len(scales), BATCH):
        known = _Known(builder, scales[start : start + BATCH], generator)
        inputs = {each: known.as_torch(values[each]) for each in node.all_input_nodes}
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), inputs.__getitem__)
        expected = node.target(*args, **kwargs)  # type: ignore[operator]
        known.set_computed(first)
        several = isinstance(value, list)
        for ours, theirs in zip(value, expected, strict=False) if several else [(value, expected)]:
            if ours is not None and not _is_equal(known.as_torch(ours), theirs):
                raise UnsupportedOp(
                    f"the operator {overload_name(node)} is converted incorrectly, which is a bug "
                    "in whit: on random values its output differs from that of torch"
                )


def _scales(node: Node, values: dict[Node, Any]) -> Iterator[float]:
    """Yield standard deviations that reach beyond every number among the arguments."""
    tensors = (values[each] for each in node.all_input_nodes)
    numbers = [
        *(
            float(each.double().abs().max())
            for each in tensors
            if isinstance(each, Tensor) and each.numel()
        ),
        *(abs(float(each)) for each in node.args if isinstance(each, int | float)),
    ]
    yield from _SCALES
    beyond = {2 * number for number in numbers if isfinite(number)}
    yield from sorted(each for each in beyond if max(_SCALES) < each <= _MAX_SCALE)


class _Known:
    """Graph values of a batch: random for what exists already, computed for new operations.

    The images of the batch have different scales.
    """

    def __init__(self, builder: GraphBuilder, scales: list[float], generator: torch.Generator):
        self.builder = builder
        self.scales = torch.tensor([scales[i % len(scales)] for i in range(BATCH)]).double()
        self.generator = generator
        self.values: dict[str, Tensor] = {}
        self.first = len(builder.operations)

    def set_computed(self, first: int) -> None:
        """Compute the operations from index `first` on instead of drawing their values."""
        self.first = first

    def value(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self.values:
            at = next((i for i, op in enumerate(self.builder.operations) if op.name == name), None)
            op = None if at is None else self.builder.operations[at]
            # A flattened map may have been made by an earlier node; it must match its map.
            if op is not None and at is not None and (at >= self.first or op.operator is FLATTEN):
                shapes = self.builder.shapes
                inputs = [self.value(each, shapes[each]) for each in op.inputs]
                constants = {
                    role: self.builder.constants[each] for role, each in op.constants.items()
                }
                output = op.operator.run(op, inputs, constants)
                self.values[name] = output.expand(BATCH, *op.shape)
            else:
                drawn = torch.randn(BATCH, *shape, generator=self.generator, dtype=torch.float64)
                self.values[name] = drawn * self.scales.view(-1, *(1,) * len(shape))
        return self.values[name]

    def as_torch(self, value: Any) -> Any:
        """Return a value as the tensor that the module sees, in float64."""
        if isinstance(value, Tensor):
            return value.double() if value.is_floating_point() else value
        if isinstance(value, list | tuple):
            return [self.as_torch(each) for each in value]
        if isinstance(value, Expanded):
            return self.as_torch(value.value).expand(BATCH, *value.lengths).contiguous()
        if not isinstance(value, ValueView):
            return value
        tensor = self.value(value.name, value.shape)
        axes = [axis for group in value.axes for axis in group]
        order = ["CHW".index(axis) for axis in axes]
        rest = [at for at in range(len(value.shape)) if at not in order]
        assert prod(value.shape[at] for at in rest) == 1, "a dimension is missing"
        tensor = tensor.reshape(BATCH, *(*value.shape, 1, 1)[:3])
        rest = [at for at in range(3) if at not in order]
        permuted = tensor.permute(0, *(1 + at for at in (*order, *rest)))
        return permuted.reshape(BATCH, *value.lengths).contiguous()


def _is_equal(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape:
        return False
    limits = _TOLERANCE * (1e-3 + theirs.abs().flatten(1).amax(1))
    return bool(((ours - theirs).abs().flatten(1) <= limits[:, None]).all())
