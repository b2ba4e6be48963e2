"""Calls of every ATen operator that can be exported, and calls that are refused.

A function takes values v (N, 3, 6, 8) from -32 to 32, and returns logits of any shape. Each
argument with a default has calls with that default and with another value.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, prod

import torch
from torch import Tensor
from torch.nn import functional as F

Function = Callable[[Tensor], Tensor]
A = torch.ops.aten
SHAPE = (3, 6, 8)


def w(*shape: int) -> Tensor:
    """A constant of any shape with values of both signs."""
    return (torch.arange(prod(shape)) * 0.7 + 0.3).sin().view(shape)


def bn(v: Tensor, eps: float, affine: bool) -> Tensor:
    weight, bias = (w(3), w(3) + 1) if affine else (None, None)
    return F.batch_norm(v, w(3) * 5, w(3).abs() + 0.1, weight, bias, False, 0.1, eps)


def vector(v: Tensor) -> Tensor:
    return v.flatten(1)[:, ::1] @ w(144, 7)


def gap(v: Tensor) -> Tensor:
    return v.mean((2, 3), keepdim=True)


ACTIVATIONS: dict[str, Function] = {
    "relu": F.relu,
    "relu6": A.relu6,
    "relu6 of torch.nn": F.relu6,
    "leaky_relu": F.leaky_relu,
    "leaky_relu 0.01": lambda v: F.leaky_relu(v, 0.01),
    "leaky_relu 0.2": lambda v: F.leaky_relu(v, 0.2),
    "leaky_relu -0.5": lambda v: F.leaky_relu(v, -0.5),
    "leaky_relu 1.5": lambda v: F.leaky_relu(v, 1.5),
    "leaky_relu 0": lambda v: F.leaky_relu(v, 0),
    "prelu of one slope": lambda v: F.prelu(v, torch.tensor([-0.3])),
    "prelu of channels": lambda v: F.prelu(v, w(3)),
    "_prelu_kernel": lambda v: A._prelu_kernel(v, w(1, 3, 1, 1)),
    "elu": F.elu,
    "elu 0.3": lambda v: F.elu(v, 0.3),
    "elu -2": lambda v: F.elu(v, -2.0),
    "gelu": F.gelu,
    "gelu, tanh": lambda v: F.gelu(v, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardtanh": F.hardtanh,
    "hardtanh 0 1": lambda v: F.hardtanh(v, 0, 1),
    "hardtanh -1 6": lambda v: F.hardtanh(v, -1, 6),
    "hardtanh 0 6": lambda v: F.hardtanh(v, 0, 6),
    "hardtanh -2 1": lambda v: F.hardtanh(v, -2, 1),
    "hardtanh 0.5 30": lambda v: F.hardtanh(v, 0.5, 30),
    "hardtanh -9 -2": lambda v: F.hardtanh(v, -9, -2),
    "hardtanh 0 300": lambda v: F.hardtanh(v * 50, 0, 300),
    "hardtanh after sigmoid": lambda v: F.hardtanh(
        F.conv2d(v.sigmoid(), 4 * w(8, 3, 1, 1), w(8)), 0, 1
    ),
    "clamp from 0": lambda v: v.clamp(0),
    "clamp to 0": lambda v: v.clamp(max=0),
    "clamp -3 4": lambda v: v.clamp(-3, 4),
    "clamp 0 6": lambda v: v.clamp(0, 6),
    "clamp 0 7": lambda v: v.clamp(0, 7),
    "clamp 2": lambda v: v.clamp(2),
    "clamp 5 1": lambda v: v.clamp(5, 1),
    "clamp by tensors": lambda v: torch.clamp(v, torch.tensor(-2.0), torch.tensor([3.0])),
    "clamp by a tensor": lambda v: torch.clamp(v, max=torch.tensor(3.0)),
    "clamp from -inf": lambda v: v.clamp(-inf, 3),
    "clamp to inf": lambda v: v.clamp(-4, inf),
    "clamp of a vector": lambda v: vector(v).clamp(-10, 5),
    "clamp_min 0": lambda v: A.clamp_min(v, 0),
    "clamp_min -2": lambda v: A.clamp_min(v, -2),
    "clamp_min 3": lambda v: A.clamp_min.Tensor(v, torch.tensor(3.0)),
    "clamp_max 6": lambda v: A.clamp_max(v, 6),
    "clamp_max -1": lambda v: A.clamp_max.Tensor(v, torch.tensor(-1.0)),
    "expanded": lambda v: v * F.hardtanh(gap(v).expand_as(v), 0, 1),
}
ARITHMETIC: dict[str, Function] = {
    "add": lambda v: v + v.tanh(),
    "add, alpha": lambda v: torch.add(v, v.tanh(), alpha=-5),
    "add, alpha 1": lambda v: torch.add(v, v.tanh(), alpha=1),
    "add of a constant": lambda v: v + w(3, 1, 1),
    "add of a constant, alpha": lambda v: torch.add(v, w(3, 1, 1), alpha=20),
    "add of a constant map": lambda v: v + 9 * w(3, 6, 8),
    "add of a constant map, alpha": lambda v: torch.add(v, w(6, 8), alpha=20),
    "add of constant rows": lambda v: v + 9 * w(6, 1),
    "add of constant columns": lambda v: 9 * w(1, 1, 1, 8) + v,
    "add of a gate": lambda v: v + gap(v),
    "add of a gate to a constant map": lambda v: gap(v) + 3 * w(3, 6, 8),
    "add of one channel": lambda v: v + v[:, :1],
    "add of a constant in other order": lambda v: (
        (v.permute(0, 2, 3, 1) + w(6, 8, 3)).flatten(1) @ w(144, 4)
    ),
    "add of a flat constant": lambda v: v.flatten(1) + 9 * w(144),
    "add of a constant of the batch": lambda v: v + 9 * w(3, 6, 8).expand(len(v), 3, 6, 8).clone(),
    "add of equal constants": lambda v: v[:, :1] + torch.full((1, 3, 1, 1), 4.0),
    "add.Scalar": lambda v: A.add.Scalar(v, 3),
    "add.Scalar, alpha": lambda v: A.add.Scalar(v, 3, 2),
    "sub": lambda v: v.tanh() - v,
    "sub, alpha": lambda v: torch.sub(v, v.tanh(), alpha=7),
    "sub from a constant": lambda v: w(3, 1, 1) - v,
    "sub from a constant map": lambda v: 9 * w(3, 6, 8) - v,
    "sub of a constant map, alpha": lambda v: torch.sub(v, w(3, 6, 8), alpha=-9),
    "sub from a gate": lambda v: gap(v) - v,
    "sub.Scalar": lambda v: A.sub.Scalar(v, 3),
    "sub.Scalar, alpha": lambda v: A.sub.Scalar(v, 3, 2),
    "rsub": lambda v: A.rsub.Tensor(v, v.tanh()),
    "rsub, alpha": lambda v: A.rsub.Tensor(v, v.tanh(), alpha=0.5),
    "rsub.Scalar": lambda v: A.rsub.Scalar(v, 3),
    "rsub.Scalar, alpha": lambda v: A.rsub.Scalar(v, 3, 0.5),
    "mul": lambda v: v * v.sigmoid(),
    "mul by a constant": lambda v: v * w(3, 1, 1),
    "mul by a constant map": lambda v: v * w(3, 6, 8),
    "mul by 0": lambda v: v * 0 + v[:, :1],
    "mul.Scalar": lambda v: A.mul.Scalar(v, -2),
    "mul of expanded": lambda v: v * (0.1 * gap(v).expand_as(v) * w(3, 1, 1)),
    "neg": lambda v: -v,
    "square": torch.square,
    "pow": lambda v: v**2,
    "pow by a tensor": lambda v: torch.pow(v, torch.tensor(2.0)),
    "div": lambda v: v / w(3, 1, 1),
    "div by a number": lambda v: v / 3,
    "div.Scalar": lambda v: A.div.Scalar(v, -3),
    "div, no rounding": lambda v: torch.div(v, 3, rounding_mode=None),
    "div.Scalar_mode": lambda v: A.div.Scalar_mode(v, 3, rounding_mode=None),
    "div by a constant map": lambda v: v / (w(6, 8) + 2),
    "softmax": lambda v: (vector(v) / 9).softmax(1),
    "softmax of the last dimension": lambda v: F.softmax(vector(v) / 9, -1),
    "softmax in float64": lambda v: F.softmax(vector(v) / 9, 1, dtype=torch.float64),
    "_softmax": lambda v: A._softmax(vector(v) / 9, -1, False),
    "log_softmax": lambda v: F.log_softmax(vector(v) / 9, 1),
    "log_softmax in float64": lambda v: F.log_softmax(vector(v) / 9, -1, dtype=torch.float64),
    "_log_softmax": lambda v: A._log_softmax(vector(v) / 9, 1, False),
}
LAYERS: dict[str, Function] = {
    "linear": lambda v: F.linear(v.flatten(1), w(5, 144)),
    "linear, bias": lambda v: F.linear(v.flatten(1), w(5, 144), 50 * w(5)),
    "addmm": lambda v: torch.addmm(50 * w(5), v.flatten(1), w(144, 5)),
    "mm": lambda v: torch.mm(v.flatten(1), w(144, 5)),
    "matmul": lambda v: v.permute(0, 2, 3, 1).flatten(1) @ w(144, 5),
    "conv2d": lambda v: F.conv2d(v, w(5, 3, 3, 2)),
    "conv2d, bias": lambda v: F.conv2d(v, w(5, 3, 3, 2), 30 * w(5)),
    "conv2d, stride": lambda v: F.conv2d(v, w(5, 3, 2, 3), None, (2, 3)),
    "conv2d, padding": lambda v: F.conv2d(v, w(5, 3, 3, 2), 30 * w(5), 1, (2, 1)),
    "conv2d, dilation": lambda v: F.conv2d(v, w(5, 3, 2, 3), dilation=(3, 2)),
    "conv2d, groups": lambda v: F.conv2d(v, w(6, 1, 3, 3), groups=3),
    "conv2d, depthwise": lambda v: F.conv2d(v, w(3, 1, 3, 2), w(3), (1, 2), (1, 0), (2, 1), 3),
    "conv2d, all": lambda v: F.conv2d(v, w(6, 1, 2, 2), w(6), (2, 1), (1, 2), (1, 3), 3),
    "conv2d, same": lambda v: F.conv2d(v, w(4, 3, 3, 3), padding="same"),
    "conv2d, same, even": lambda v: F.conv2d(v, w(4, 3, 2, 4), w(4), padding="same", dilation=2),
    "conv2d, valid": lambda v: A.conv2d.padding(v, w(4, 3, 3, 3)),
    "conv2d, valid, stride": lambda v: F.conv2d(v, w(3, 1, 3, 3), None, 2, "valid", 1, 3),
    "conv2d of a 1x1 map": lambda v: F.conv2d(gap(v), w(6, 1, 3, 3), w(6), 2, 1, 1, 3),
    "batch_norm": lambda v: bn(v, 1e-5, True),
    "batch_norm, eps": lambda v: bn(v, 0.5, True),
    "batch_norm, not affine": lambda v: bn(v, 1e-3, False),
    "batch_norm of a vector": lambda v: bn(gap(v).flatten(1), 0.1, True),
}
POOLING: dict[str, Function] = {
    "max_pool2d": lambda v: F.max_pool2d(v, 2),
    "max_pool2d, stride": lambda v: F.max_pool2d(v, (3, 2), (1, 2)),
    "max_pool2d, equal stride": lambda v: F.max_pool2d(v, 3, 3),
    "max_pool2d, padding": lambda v: F.max_pool2d(v - 40, 3, 2, 1),
    "max_pool2d, dilation": lambda v: F.max_pool2d(v, 2, 1, 0, (3, 2)),
    "max_pool2d, all": lambda v: F.max_pool2d(v - 40, (2, 3), 2, (1, 1), (2, 1)),
    "max_pool2d, ceil": lambda v: F.max_pool2d(v, 2, 2, ceil_mode=True),
    "avg_pool2d": lambda v: F.avg_pool2d(v, 2),
    "avg_pool2d, stride": lambda v: F.avg_pool2d(v, (3, 2), (1, 2)),
    "avg_pool2d, equal stride": lambda v: F.avg_pool2d(v, (3, 2), (3, 2)),
    "avg_pool2d, padding": lambda v: F.avg_pool2d(v + 40, 3, 2, 1),
    "avg_pool2d, padding apart": lambda v: F.avg_pool2d(
        v + 40, (3, 2), 2, (1, 0), count_include_pad=False
    ),
    "avg_pool2d, padding counted": lambda v: F.avg_pool2d(v + 40, 3, 1, 1, False, True),
    "avg_pool2d, ceil": lambda v: F.avg_pool2d(v, 2, ceil_mode=True),
    "avg_pool2d of the map": lambda v: F.avg_pool2d(v, (6, 8)),
    "avg_pool2d of a padded map": lambda v: F.avg_pool2d(v + 40, (6, 8), 2, (1, 2)),
    "adaptive_max_pool2d": lambda v: F.adaptive_max_pool2d(v, 1),
    "adaptive_max_pool2d 3x2": lambda v: F.adaptive_max_pool2d(v, (3, 2)),
    "adaptive_avg_pool2d": lambda v: F.adaptive_avg_pool2d(v, 1),
    "adaptive_avg_pool2d 2x4": lambda v: F.adaptive_avg_pool2d(v, (2, 4)),
    "adaptive_avg_pool2d of rows": lambda v: F.adaptive_avg_pool2d(v, (None, 1)),
    "amax": lambda v: v.amax((2, 3)),
    "amax, negative": lambda v: v.amax((-1, -2), keepdim=True),
    "amax of amax": lambda v: v.amax((2, 3), keepdim=True).amax((2, 3)),
    "mean": lambda v: v.mean((2, 3)),
    "mean, negative": lambda v: v.mean((-1, -2), keepdim=True),
    "mean in float64": lambda v: v.mean((2, 3), dtype=torch.float64),
    "mean of merged": lambda v: v.flatten(2).mean(-1),
    "sum": lambda v: v.sum((2, 3)),
    "sum, negative": lambda v: v.sum((-2, -1), True) * 2,
    "sum in float64": lambda v: v.sum((2, 3), dtype=torch.float64),
}
REARRANGING: dict[str, Function] = {
    "cat": lambda v: torch.cat([v, v.tanh()], 1),
    "cat, negative": lambda v: torch.cat([v[:, :1], v * 9], -3),
    "cat of vectors": lambda v: torch.cat([vector(v), v.flatten(1)], 1),
    "cat with constants": lambda v: torch.cat(
        [9 * w(1, 2, 6, 8).expand(len(v), 2, 6, 8), v, 2 * w(6, 8).expand(len(v), 1, 6, 8)], 1
    ),
    "cat of a vector with constants": lambda v: torch.cat(
        [vector(v), torch.ones_like(v)[:, 0, 0], v.new_full((len(v), 2), 5.0)], 1
    ),
    "split": lambda v: torch.cat(v.split(2, 1)[::-1], 1),
    "split, negative": lambda v: torch.cat(A.split.sizes(v, [1, 2], -3)[::-1], 1),
    "split_with_sizes": lambda v: A.split_with_sizes(v, [2, 1], 1)[1],
    "chunk": lambda v: v.chunk(2, 1)[1],
    "slice": lambda v: A.slice(v),
    "slice of channels": lambda v: v[:, 1:],
    "slice of channels, negative": lambda v: v[:, -2:-1],
    "slice of rows": lambda v: v[:, :, 2:],
    "slice of columns": lambda v: v[..., 1:-2],
    "slice of columns, beyond": lambda v: v[..., -100:100],
    "slice of every second row": lambda v: v[:, :, ::2],
    "slice of every third column": lambda v: v[..., 1:7:3],
    "slice of a vector": lambda v: v.mean((2, 3))[:, 1:],
    "view": lambda v: v.view(len(v), 144),
    "view, negative": lambda v: v.view(-1, 3, 48),
    "_unsafe_view": lambda v: A._unsafe_view(v, [len(v), 144]),
    "reshape": lambda v: v.permute(0, 2, 3, 1).reshape(len(v), -1) @ w(144, 4),
    "permute": lambda v: v.permute(0, -1, 1, 2).flatten(1) @ w(144, 4),
    "transpose": lambda v: v.transpose(-1, 1).flatten(1) @ w(144, 4),
    "t": lambda v: vector(v) @ w(4, 7).t(),
    "expand": lambda v: v[:, :1].expand(-1, 3, -1, -1) + v,
    "expand of a gate": lambda v: gap(v).expand_as(v) - v,
    "select": lambda v: gap(v)[:, :, 0].select(-1, -1),
    "squeeze": lambda v: gap(v).squeeze(),
    "squeeze of one": lambda v: gap(v).squeeze(-1),
    "squeeze of none": lambda v: v.squeeze(1),
    "squeeze of several": lambda v: gap(v).squeeze((2, -1)),
    "unsqueeze": lambda v: v * v.mean((2, 3)).unsqueeze(2).unsqueeze(-1),
    "clone": lambda v: v.clone() * 2,
    "contiguous": lambda v: v.permute(0, 2, 3, 1).contiguous().flatten(1) @ w(144, 4),
    "alias": lambda v: A.alias(v) * 2,
    "detach": lambda v: v.detach() * 2,
    "_to_copy to the same": lambda v: A._to_copy(v) * 2,
    "_to_copy": lambda v: v.double().float() * 2,
    "dropout": lambda v: F.dropout(v, 0.5, False) * 2,
    "dropout of nothing": lambda v: F.dropout(v, 0.0, True) * 2,
    "feature_dropout": lambda v: F.dropout2d(v, 0.5, False) * 2,
    "constant_pad_nd": lambda v: A.constant_pad_nd(v, [1, 2, 0, 3]),
    "constant_pad_nd, crop": lambda v: A.constant_pad_nd(v, [-1, 2, 1, -2], 0),
    "pad": lambda v: F.pad(v + 40, (1, 0, 2, 1)),
    "pad, zero": lambda v: F.pad(v + 40, (1, 0, 2, 1), "constant", 0.0),
    "pad of channels": lambda v: F.pad(v, (0, 0, 0, 0, 1, 2)),
}
CASES = {**ACTIVATIONS, **ARITHMETIC, **LAYERS, **POOLING, **REARRANGING}

# Calls that are refused, by what the message says.
REFUSED: dict[str, tuple[Function, str]] = {
    "elu, scale": (lambda v: A.elu(v, 1, 2), "elu is supported with scale 1"),
    "elu, input_scale": (lambda v: A.elu(v, 1, 1, 2), "input_scale 1 only"),
    "celu": (lambda v: F.celu(v, 2), "celu"),
    "clamp by channels": (lambda v: v.clamp(w(3, 1, 1)), "scalar bounds only"),
    "clamp by a value": (lambda v: torch.clamp(v, max=v.mean((2, 3), True)), "constant bounds"),
    "clamp by nan": (lambda v: v.clamp(float("nan"), 3), "not a number"),
    "cat of images": (lambda v: torch.cat([v, v])[: len(v)], "over the images of a batch"),
    "cat of rows": (lambda v: torch.cat([v, v], 2), "along channels only"),
    "split of images": (lambda v: A.split(v, 9)[0], "over the images of a batch"),
    "split of images by size": (lambda v: A.split.sizes(v, [len(v)])[0], "over the images"),
    "split_with_sizes of images": (
        lambda v: A.split_with_sizes(v, [len(v)])[0],
        "over the images of a batch",
    ),
    "slice of every second channel": (lambda v: v[:, ::2], "ranges of channels"),
    "div, floor": (lambda v: torch.div(v, 3, rounding_mode="floor"), "rounding_mode='floor'"),
    "div, trunc": (lambda v: A.div.Scalar_mode(v, 3, rounding_mode="trunc"), "'trunc'"),
    "div by a value": (lambda v: 1 / v, "by constants only|reciprocal"),
    "pow 3": (lambda v: v**3, "exponent 3"),
    "pow of numbers": (lambda v: v ** w(3, 1, 1), "exponent of several numbers"),
    "pow by a value": (lambda v: 2**v, "exponent that is not constant"),
    "softmax at each pixel": (lambda v: v.softmax(1), "at each pixel"),
    "softmax of rows": (lambda v: v.softmax(-1), "over the classes only"),
    "softmax in float16": (
        lambda v: F.softmax(vector(v), 1, dtype=torch.float16),
        "softmax.int with dtype float16",
    ),
    "log_softmax in float16": (
        lambda v: F.log_softmax(vector(v), 1, dtype=torch.bfloat16),
        "log_softmax.int with dtype bfloat16",
    ),
    "addmm, beta": (lambda v: torch.addmm(w(5), v.flatten(1), w(144, 5), beta=2), "beta and alpha"),
    "addmm, alpha": (lambda v: torch.addmm(w(5), v.flatten(1), w(144, 5), alpha=2), "beta and al"),
    "max_pool2d, ceil": (lambda v: F.max_pool2d(v, 4, 3, 0, 1, True), "ceil_mode"),
    "avg_pool2d, ceil": (lambda v: F.avg_pool2d(v, 4, 3, 0, True), "ceil_mode"),
    "avg_pool2d, divisor": (lambda v: F.avg_pool2d(v, 2, divisor_override=3), "divisor_override"),
    "adaptive_avg_pool2d": (lambda v: F.adaptive_avg_pool2d(v, 4), "whose windows differ in size"),
    "amax of channels": (lambda v: v.amax(1), "amax is supported over the whole map only"),
    "amax of all": (lambda v: v + A.amax(v), "amax over the images of a batch"),
    "mean of rows": (lambda v: v.mean(2), "whole map only"),
    "mean of images": (lambda v: v - v.mean(), "over the images of a batch"),
    "sum of images": (lambda v: v - v.sum(), "over the images of a batch"),
    "mean to float16": (lambda v: v.mean((2, 3), dtype=torch.float16), "mean.* float16"),
    "mean of all to float16": (
        lambda v: v.mean(dtype=torch.float16) + v,
        "mean with dtype float16",
    ),
    "sum to float16": (lambda v: v.sum((2, 3), dtype=torch.float16), "sum.* float16"),
    "sum of all to float16": (lambda v: v.sum(dtype=torch.float16) + v, "sum.* float16"),
    "view as integers": (lambda v: v.view(torch.int32).float(), "view.dtype"),
    "_to_copy to int": (lambda v: v.int().float(), "a cast to int32"),
    "dropout": (lambda v: F.dropout(v, 0.5, True), "dropout that is active in evaluation mode"),
    "feature_dropout": (lambda v: F.dropout2d(v, 0.5, True), "bernoulli draws random"),
    "constant_pad_nd": (lambda v: A.constant_pad_nd(v, [1, 1], 3), "with zeros"),
    "pad with 1": (lambda v: F.pad(v, (1, 1), value=1), "with zeros"),
    "pad, reflect": (lambda v: F.pad(v, (1, 1, 1, 1), "reflect"), "reflect"),
    "pad, replicate": (lambda v: F.pad(v, (1, 1, 1, 1), "replicate"), "replic"),
    "pad, circular": (lambda v: F.pad(v, (1, 1, 1, 1), "circular"), "circular"),
    "constant of the batch": (
        lambda v: v + torch.arange(len(v)).view(-1, 1, 1, 1),
        "differs from image to image of a batch",
    ),
    "random numbers": (lambda v: v + torch.randn(3, 6, 8), "draws random numbers"),
    "upsampling": (
        lambda v: F.interpolate(v, scale_factor=2),
        "upsample_nearest2d.* not supported",
    ),
    "sorted": (
        lambda v: v.flatten(1).sort(1).values,
        "the operator sort(.|\n)*Operators that every format supports: ada",
    ),
}
