"""Scaled dot-product attention."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whit.export.ir.graph import Operation
from whit.export.ir.ops.operator import Constants, Converter
from whit.export.ir.ops.tensors.aten_call import Call
from whit.export.ir.ops.tensors.indexing import gather
from whit.export.ir.ops.tensors.tensor_layout import as_tensor
from whit.export.ir.ops.tensors.tensor_operator import (
    TensorOperator,
    number,
    operands,
    over_batch,
    write_operands,
)
from whit.export.ir.ops.values import TensorValue, UnsupportedOp
from whit.export.onnx import OnnxWriter


def _run(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    query, key, value, *added = operands(op, inputs, constants)
    mask = added[0] if added else None
    if "kept" in constants:
        hidden = torch.zeros_like(constants["kept"]).masked_fill(constants["kept"] == 0, -np.inf)
        mask = hidden if mask is None else mask + hidden
    return F.scaled_dot_product_attention(query, key, value, mask, scale=op.attributes["scale"])


def _write(writer: OnnxWriter, op: Operation) -> None:
    from onnx import TensorProto

    def node(kind: str, name: str, *inputs: str, **settings: Any) -> str:
        return writer.node(kind, f"{op.name}:{name}", *inputs, **settings)

    query, key, value, *added = write_operands(writer, op)
    rank = len(op.attributes["key_order"])
    transposed = node("Transpose", "key", key, perm=list(op.attributes["key_order"]))
    products = node("MatMul", "products", query, transposed)
    scores = node("Mul", "scores", products, number(writer, op.attributes["scale"]))
    if added:
        scores = node("Add", "biased", scores, *added)
    kept = writer.graph.constants[op.constants["kept"]] if "kept" in op.constants else None
    if kept is not None:
        keep = node("Cast", "kept", writer.constant(op, "kept"), to=TensorProto.BOOL)
        # Rows without a key would become NaN; torch returns zeros for them.
        hidden = number(writer, -1e30 if bool((kept.sum(-1) == 0).any()) else -np.inf)
        scores = node("Where", "masked", keep, scores, hidden)
    weights = node("Softmax", "weights", scores, axis=rank - 1)
    if kept is not None and bool((kept.sum(-1) == 0).any()):
        weights = node("Where", "weights_kept", keep, weights, number(writer, 0.0))
    writer.node("MatMul", op.name, weights, value)


def _num_macs(op: Operation, constants: Constants) -> int:
    return int(op.attributes["macs"])


# Operands query, key and value (..., L, E), and if any an added mask. Attributes scale; key_order:
# of the dimensions of the transposed key; macs. Constant kept, if any: 0 where a key is hidden.
ATTENTION = TensorOperator(kind="attention", run=_run, onnx=_write, num_macs=_num_macs)


def _attention(call: Call) -> TensorValue:
    if call["dropout_p"]:
        raise UnsupportedOp("attention with dropout in evaluation mode is not supported")
    query, key, value = (call.tensor(name) for name in ("query", "key", "value"))
    if any(each.sizes[-1] < 0 or each.sizes[-2] < 0 for each in (query, key, value)):
        raise UnsupportedOp("attention over the images of a batch is not supported")
    if call["enable_gqa"]:
        key, value = (_repeat_heads(call, each, query.sizes[-3]) for each in (key, value))
    length, width = query.sizes[-2:]
    steps, rank = key.sizes[-2], len(key.sizes)
    kept = None
    added: list[Any] = []
    if call["is_causal"]:
        kept = torch.ones(length, steps).tril()
    mask = call["attn_mask"]
    if isinstance(mask, Tensor):
        mask, _, merged = over_batch(mask)
        if merged > 1:
            raise UnsupportedOp("attention with a mask of merged dimensions is not supported")
        is_bool = mask.dtype == torch.bool
        kept = (mask if is_bool else mask > -np.inf).float()
        bias = mask.float().masked_fill(kept == 0, 0)
        if not is_bool and bias.any():
            added = [bias]
        kept = None if bool(kept.all()) else kept
    elif mask is not None:
        if call.dtype_of("attn_mask") == torch.bool:
            raise UnsupportedOp("attention with a mask that depends on the image is not supported")
        added = [as_tensor(call.builder, mask)]
    scale = 1 / sqrt(width) if call["scale"] is None else float(call["scale"])
    batch = -next(size for size in query.sizes if size < 0)
    heads = int(np.prod([abs(size) for size in query.sizes[:-2] if size > 0])) * batch
    settings = {
        "scale": scale,
        "key_order": (*range(rank - 2), rank - 1, rank - 2),
        "macs": heads * length * steps * (width + value.sizes[-1]),
    }
    return call.add(ATTENTION, [query, key, value, *added], None, settings, {"kept": kept})


def _repeat_heads(call: Call, value: TensorValue, heads: int) -> TensorValue:
    dim = call.dim(-3, value)
    repeats = heads // value.sizes[dim]
    return gather(call, value, dim, np.arange(value.sizes[dim]).repeat(repeats))


CONVERTERS: dict[str, Converter] = {"scaled_dot_product_attention": _attention}
OPERATORS = (ATTENTION,)
