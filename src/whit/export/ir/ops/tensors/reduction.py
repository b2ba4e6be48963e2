"""Means, sums, extremes, variances and softmax over dimensions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from whit.export.ir.graph import Operation
from whit.export.ir.ops.operator import Constants, Converter
from whit.export.ir.ops.tensors.arithmetic import UNARY, binary
from whit.export.ir.ops.tensors.aten_call import Call
from whit.export.ir.ops.tensors.tensor_operator import TensorOperator, integers
from whit.export.ir.ops.values import TensorValue, UnsupportedOp
from whit.export.onnx import OnnxWriter

# By name: the function of a tensor, dimensions and keepdim, and its ONNX operator.
_FUNCTIONS: dict[str, tuple[Callable[..., Tensor], str]] = {
    "mean": (torch.mean, "ReduceMean"),
    "sum": (torch.sum, "ReduceSum"),
    "amax": (torch.amax, "ReduceMax"),
    "amin": (torch.amin, "ReduceMin"),
    "logsumexp": (torch.logsumexp, "ReduceLogSumExp"),
    "norm1": (lambda x, dims, keep: torch.linalg.vector_norm(x, 1, dims, keep), "ReduceL1"),
    "norm2": (lambda x, dims, keep: torch.linalg.vector_norm(x, 2, dims, keep), "ReduceL2"),
}


def _run(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    function, _ = _FUNCTIONS[op.attributes["function"]]
    return function(inputs[0], op.attributes["dims"], op.attributes["keepdim"])


def _write(writer: OnnxWriter, op: Operation) -> None:
    _, kind = _FUNCTIONS[op.attributes["function"]]
    axes = integers(writer, op.attributes["dims"])
    writer.node(kind, op.name, *op.inputs, axes, keepdims=int(op.attributes["keepdim"]))


# Attributes function, dims, keepdim.
REDUCE = TensorOperator(kind="reduce", run=_run, onnx=_write)


def reduce(call: Call, function: str, value: TensorValue, dims: tuple[int, ...], keep: bool) -> Any:
    sizes = [
        1 if dim in dims else n for dim, n in enumerate(value.sizes) if keep or dim not in dims
    ]
    attributes = {"function": function, "dims": dims, "keepdim": keep}
    return call.add(REDUCE, [value], sizes, attributes)


def _read(call: Call) -> tuple[TensorValue, tuple[int, ...], bool]:
    """Return the value, its dimensions that are reduced, and whether they are kept."""
    value = call.tensor()
    return value, call.dims(call.arguments.get("dim"), value), bool(call.arguments.get("keepdim"))


def _reduction(function: str) -> Converter:
    return lambda call: reduce(call, function, *_read(call))


def _extreme(function: str) -> Converter:
    def convert(call: Call) -> Any:
        if "other" in call.arguments:  # of two tensors
            name = {"amax": "maximum", "amin": "minimum"}[function]
            return binary(call, name, call.operand(call["self"]), call.operand(call["other"]))
        extreme = reduce(call, function, *_read(call))
        return [extreme, None] if "dim" in call.arguments else extreme

    return convert


def _norm(call: Call) -> TensorValue:
    order = next(call[name] for name in ("ord", "p") if name in call.arguments)
    if order not in (1, 2, None):
        raise UnsupportedOp(f"a norm of order {order} is not supported, only 1 and 2")
    value, dims, keep = _read(call)
    found: TensorValue = reduce(call, f"norm{int(order or 2)}", value, dims, keep)
    return found


def _variance(call: Call) -> TensorValue:
    value, dims, keep = _read(call)
    correction = call.arguments.get("correction", int(call.arguments.get("unbiased", True)))
    correction = 1 if correction is None else correction
    count = prod(value.sizes[dim] for dim in dims)
    centered = binary(call, "sub", value, reduce(call, "mean", value, dims, True), value.sizes)
    squared = binary(call, "mul", centered, centered, value.sizes)
    total = reduce(call, "sum", squared, dims, keep)
    return binary(call, "div", total, float(count - correction), total.sizes)


def _deviation(call: Call) -> TensorValue:
    return call.add(UNARY, [_variance(call)], None, {"function": "sqrt"})


def _softmax_operator(kind: str, function: Callable[..., Tensor], onnx: str) -> TensorOperator:
    return TensorOperator(
        kind=f"{kind}_over",
        run=lambda op, inputs, constants: function(inputs[0], op.attributes["dim"]),
        onnx=onnx,
        onnx_attributes=lambda op: {"axis": op.attributes["dim"]},
    )


# Attribute dim.
SOFTMAX = _softmax_operator("softmax", F.softmax, "Softmax")
LOG_SOFTMAX = _softmax_operator("log_softmax", F.log_softmax, "LogSoftmax")


def _softmax(operator: TensorOperator) -> Converter:
    def convert(call: Call) -> TensorValue:
        value = call.tensor()
        return call.add(operator, [value], None, {"dim": call.dim(call["dim"], value)})

    return convert


def _write_cumsum(writer: OnnxWriter, op: Operation) -> None:
    writer.node("CumSum", op.name, *op.inputs, integers(writer, [op.attributes["dim"]]))


CUMSUM = TensorOperator(
    kind="cumsum",
    run=lambda op, inputs, constants: inputs[0].cumsum(op.attributes["dim"]),
    onnx=_write_cumsum,
)
CONVERTERS: dict[str, Converter] = {
    **{name: _reduction(name) for name in ("mean", "sum", "amax", "amin", "logsumexp")},
    "max": _extreme("amax"),
    "min": _extreme("amin"),
    **dict.fromkeys(("linalg_vector_norm", "norm"), _norm),
    "var": _variance,
    "std": _deviation,
    **dict.fromkeys(("softmax", "_softmax"), _softmax(SOFTMAX)),
    **dict.fromkeys(("log_softmax", "_log_softmax"), _softmax(LOG_SOFTMAX)),
    "cumsum": _softmax(CUMSUM),
}
OPERATORS = (REDUCE, SOFTMAX, LOG_SOFTMAX, CUMSUM)
