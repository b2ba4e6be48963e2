"""One ATen call of a captured forward pass, as its converter on tensors of any rank reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from whit.export.ir.ops.operator import Operator
from whit.export.ir.ops.tensors.tensor_layout import as_tensor
from whit.export.ir.ops.tensors.tensor_operator import Operand, add_operation, over_batch
from whit.export.ir.ops.values import BATCH, GraphBuilder, TensorValue, UnsupportedOp, overload_name

_FLOATS = (None, torch.float32, torch.float64)


def complete_arguments(
    target: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return every argument of an ATen operator: positional ones, and keyword-only ones by name.

    torch.export omits an argument that equals its default, so the schema of the operator supplies
    it; converters have no defaults of their own for what a schema names.
    """
    positional, named = [], {}
    for index, argument in enumerate(target._schema.arguments):
        if index < len(args):
            value = args[index]
        else:
            value = kwargs.get(argument.name, argument.default_value)
        if argument.kwarg_only:
            named[argument.name] = value
        else:
            positional.append(value)
    return positional, named


class Call:
    """The arguments of a call by name, its default ones included, and the sizes of its outputs."""

    def __init__(self, builder: GraphBuilder, node: Node, values: Mapping[Node, Any]):
        self.builder = builder
        self.node = node
        self.name = overload_name(node)
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        names = [each.name for each in schema]
        self.nodes = dict(zip(names, node.args, strict=False)) | node.kwargs  # before conversion
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        target: Any = node.target
        self.positional, self.named = complete_arguments(target, args, kwargs)
        by_position = [each.name for each in schema if not each.kwarg_only]
        self.arguments: dict[str, Any] = dict(zip(by_position, self.positional, strict=True))
        self.arguments |= self.named
        if self.arguments.get("dtype") not in _FLOATS:
            dtype = str(self.arguments["dtype"]).removeprefix("torch.")
            what = "a cast to" if self.name == "_to_copy" else f"{self.name} with dtype"
            raise UnsupportedOp(f"{what} {dtype} is not supported")

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def sizes(self) -> tuple[int, ...]:
        """All sizes of the output, -k for k times the batch size."""
        return self.sizes_of(self.node.meta["val"])

    @property
    def output_sizes(self) -> list[tuple[int, ...]]:
        """All sizes of each of several outputs."""
        return [self.sizes_of(each) for each in self.node.meta["val"]]

    def sizes_of(self, tensor: Tensor) -> tuple[int, ...]:
        if not tensor.dtype.is_floating_point and tensor.dtype != torch.bool:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise UnsupportedOp(f"{self.name} with an output of type {dtype} is not supported")
        if 0 in tensor.shape:
            raise UnsupportedOp(f"{self.name} with an empty output is not supported")
        return tuple(-(n // BATCH) if n % BATCH == 0 else n for n in tensor.shape)

    def dtype_of(self, name: str) -> torch.dtype:
        """Return the type of a tensor argument."""
        node = self.nodes[name]
        assert isinstance(node, Node)
        dtype: torch.dtype = node.meta["val"].dtype
        return dtype

    def tensor(self, name: str = "self") -> TensorValue:
        """Return an argument as a value."""
        return as_tensor(self.builder, self.arguments[name])

    def constant(self, name: str) -> Tensor | None:
        """Return an argument that must be a constant or None."""
        value = self.arguments.get(name)
        if value is not None and not isinstance(value, Tensor):
            raise UnsupportedOp(f"{self.name} is supported with a constant {name} only")
        return value

    def operand(self, value: Any) -> Operand:
        """Return a value, a number, or a constant that broadcasts over the batch."""
        if isinstance(value, int | float):
            return float(value)
        if not isinstance(value, Tensor):
            return as_tensor(self.builder, value)
        once, dim, merged = over_batch(value)
        if merged > 1:
            return as_tensor(self.builder, value)
        assert dim is None or once.shape[dim] == 1
        return float(once) if once.ndim == 0 else once

    def add(
        self,
        operator: Operator,
        operands: Sequence[Operand],
        sizes: Sequence[int] | None = None,
        attributes: Mapping[str, Any] | None = None,
        constants: Mapping[str, Tensor | None] | None = None,
    ) -> TensorValue:
        """Append an operation, by default with the sizes of the call's output."""
        given = {role: each for role, each in (constants or {}).items() if each is not None}
        sizes = self.sizes if sizes is None else sizes
        return add_operation(self.builder, operator, operands, sizes, attributes, given)

    def dim(self, dim: int, value: TensorValue) -> int:
        """Return a dimension from 0 on; raise UnsupportedOp if it is that of the batch."""
        dim %= len(value.sizes)
        if value.sizes[dim] < 0:
            raise UnsupportedOp(f"{self.name} over the images of a batch is not supported")
        return dim

    def dims(self, dims: Any, value: TensorValue) -> tuple[int, ...]:
        """Return dimensions from 0 on, in order; None and an empty list mean all."""
        given = [dims] if isinstance(dims, int) else dims or range(len(value.sizes))
        return tuple(sorted({self.dim(dim, value) for dim in given}))
