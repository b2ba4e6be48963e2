"""Converts a call for ONNX alone, where the operators of all targets do not suffice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from whit.export.ir.ops.values import (
    GraphBuilder,
    TensorValue,
    UnsupportedOp,
    operator_name,
    overload_name,
)

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


def convert_call(builder: GraphBuilder, node: Node, values: Mapping[Node, Any], reason: str) -> Any:
    """Convert a call on tensors of any rank; `reason`: why the other targets do not support it.

    Without a reason it is a consumer of such a value. Raises UnsupportedOp.
    """
    converter, text = TENSOR_CONVERTERS.get(operator_name(node)), overload_name(node)
    if converter is None:
        raise UnsupportedOp(f"the operator {text} is not supported")
    if reason and text not in reason:
        reason = f"{reason} (the operator {text})"
    builder.onnx_reason = reason
    try:
        return _as_views(converter(Call(builder, node, values)))
    except UnsupportedOp:
        raise
    except Exception as error:  # what the converter does not handle
        raise UnsupportedOp(f"the operator {text} is not supported with these arguments") from error
    finally:
        builder.onnx_reason = ""


def _as_views(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_views(each) for each in value]
    return as_view(value) if isinstance(value, TensorValue) else value
