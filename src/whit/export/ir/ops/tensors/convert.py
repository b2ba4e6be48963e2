"""Converts a call for ONNX alone, where the operators of all targets do not suffice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from whit.export.ir.ops.operator import Converter
from whit.export.ir.ops.tensors import (
    arithmetic,
    attention,
    indexing,
    matrix_products,
    norms,
    recurrent,
    reduction,
    resampling,
    tensor_layout,
)
from whit.export.ir.ops.tensors.aten_call import Call
from whit.export.ir.ops.tensors.tensor_layout import as_view
from whit.export.ir.ops.tensors.tensor_operator import TensorOperator
from whit.export.ir.ops.values import BATCH, Expanded, GraphBuilder, TensorValue, UnsupportedOp

MODULES = (
    *(arithmetic, attention, indexing, matrix_products, norms, recurrent, reduction),
    resampling,
)
TENSOR_CONVERTERS: dict[str, Converter] = {
    name: converter for module in MODULES for name, converter in module.CONVERTERS.items()
}
TENSOR_OPERATORS: tuple[TensorOperator, ...] = (
    tensor_layout.CONSTANT,
    *(operator for module in MODULES for operator in module.OPERATORS),
)
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def convert_call(builder: GraphBuilder, node: Node, values: Mapping[Node, Any], reason: str) -> Any:
    """Convert a call on tensors of any rank; `reason`: why the other targets do not support it.

    Without a reason it is a consumer of such a value. Raises UnsupportedOp.
    """
    values = {inside: _contiguous(values[inside]) for inside in node.all_input_nodes}
    if not any(map(_is_value, values.values())):
        return _evaluate(node, values)
    name = str(node.target).removeprefix("aten.").partition(".")[0]
    converter = TENSOR_CONVERTERS.get(name)
    text = str(node.target).removeprefix("aten.").removesuffix(".default")
    if converter is None:
        raise UnsupportedOp(reason or f"the operator {text} is not supported")
    if reason and text not in reason:
        reason = f"{reason} (the operator {text})"
    builder.origin = (reason, find_layer(node))
    try:
        return _as_views(converter(Call(builder, node, values)))
    except UnsupportedOp:
        raise
    except Exception as error:  # what the converter does not handle
        raise UnsupportedOp(f"the operator {text} is not supported with these arguments") from error
    finally:
        builder.origin = None


def _contiguous(value: Any) -> Any:
    """Return an expanded constant as a constant."""
    if isinstance(value, Expanded) and isinstance(value.value, Tensor):
        return value.value.expand(BATCH, *value.lengths)
    return value


def _is_value(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_value, value))
    return value is not None and not isinstance(value, Tensor)


def _as_views(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_views(each) for each in value]
    return as_view(value) if isinstance(value, TensorValue) else value


def _evaluate(node: Node, values: Mapping[Node, Any]) -> Any:
    """Compute a call of constants."""
    target: Any = node.target
    if torch.Tag.nondeterministic_seeded in target.tags:
        raise UnsupportedOp(f"the operator {target} that draws random numbers is not supported")
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    with torch.no_grad():
        return target(*args, **kwargs)


def find_layer(node: Node) -> str:
    """Return the layer that a call belongs to, with its class, and the line of a function call."""
    modules = node.meta.get("nn_module_stack") or {}
    path, kind = next(reversed(modules.values()), ("", ""))
    name = (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]
    text = f"{path} ({name})" if path else name
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    if frames and "/torch/" not in frames[-1][0]:  # a call in the user's own code
        file, line = frames[-1]
        text += f", line {line} of {file.rpartition('/')[2]}"
    return text
