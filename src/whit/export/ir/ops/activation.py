"""Activations, as PyTorch defines them: one entry each in FUNCTIONS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf, isnan
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whit.export.ir.graph import Operation
from whit.export.ir.ops.operator import Converter, Operator, lower_float
from whit.export.ir.ops.values import Expanded, GraphBuilder, UnsupportedOp, ValueView
from whit.export.onnx import OnnxWriter
from whit.export.program import Ints, Kernel, ProgramBuilder, Step
from whit.export.quantization.builder import QuantizedProgramBuilder
from whit.export.quantization.fixed_point import scalar_multiplier

Settings = tuple[dict[str, Any], dict[str, Tensor]]  # attributes and constants
_MAX_FLOAT = float(np.finfo(np.float32).max)  # stands for a bound that is missing or infinite
_PARTS = 16  # hardswish computes in 1/16 of a quantization step
# Below, the constant 3 would be rounded too coarsely; above, int32 could overflow.
_MIN_THREE, _MAX_THREE = 48, 1 << 20


@dataclass(frozen=True)
class Function:
    """One activation.

    expression: in C, a function of `x` and its parameters.
    run: takes a tensor and its parameters, or a constant.
    onnx: the ONNX operator, or a function that writes several nodes.
    parameters: the names of its attributes, which are numbers.
    clamps_to: returns the bounds of a function that clamps, from its parameters.
    read: returns attributes and constants from the arguments of its ATen operator; raises
        UnsupportedOp for arguments that are not supported.
    lower_int8: tries to add a step without a lookup table; returns whether it did.
    """

    name: str
    expression: str
    run: Callable[..., Tensor]
    onnx: str | Callable[[OnnxWriter, Operation], str]
    parameters: tuple[str, ...] = ()
    clamps_to: Callable[..., tuple[float, float]] | None = None
    read: Callable[..., Settings] = lambda value: ({}, {})
    lower_int8: Callable[[QuantizedProgramBuilder, Operation], bool] = lambda builder, op: False

    def kernel(self) -> Kernel:
        """Return its float32 kernel."""
        if not self.expression:
            return Kernel(self.name, self.name + "({values}, {slope}, {output})", in_place=True)
        numbers = "".join(f"{{{name}}}, " for name in self.parameters)
        call = f"apply_{self.name}({{input}}, {{count}}, {numbers}{{output}})"
        words = {"function": self.name, "expression": self.expression}
        words["parameters"] = "".join(f"float {name}, " for name in self.parameters)
        return Kernel(self.name, call, None, "float/activation.c", words, in_place=True)


def _read_slope(value: ValueView, slope: float) -> Settings:
    return {"slope": float(slope)}, {}


def _read_elu(value: ValueView, alpha: float, scale: float, input_scale: float) -> Settings:
    if (scale, input_scale) != (1, 1):
        raise UnsupportedOp("elu is supported with scale 1 and input_scale 1 only")
    return _read_slope(value, alpha)


def _read_gelu(value: ValueView, *, approximate: str) -> Settings:
    return {"function": "gelu" if approximate == "none" else "gelu_tanh"}, {}


def read_clamp(value: ValueView, low: Any, high: Any) -> Settings:
    lowest, highest = _read_bound(low, -_MAX_FLOAT), _read_bound(high, _MAX_FLOAT)
    if lowest == 0 and highest in (6, _MAX_FLOAT):
        return {"function": "relu6" if highest == 6 else "relu"}, {}
    # As in torch, the upper bound applies where it is the lower one.
    return {"function": "clamp", "low": min(lowest, highest), "high": highest}, {}


def _read_bound(bound: Any, missing: float) -> float:
    if isinstance(bound, ValueView | Expanded):
        raise UnsupportedOp("clamp is supported with constant bounds only")
    if isinstance(bound, Tensor) and bound.numel() > 1:
        raise UnsupportedOp("clamp is supported with scalar bounds only")
    number = float(missing if bound is None else bound)
    if isnan(number):
        raise UnsupportedOp("clamp with a bound that is not a number is not supported")
    return min(_MAX_FLOAT, max(-_MAX_FLOAT, number))


def _read_prelu(value: ValueView, slope: Any) -> Settings:
    if not isinstance(slope, Tensor):
        raise UnsupportedOp("prelu is supported with a constant slope only")
    if slope.numel() > 1 and not value.has_channels:
        raise UnsupportedOp("prelu is not supported after channels were permuted or merged")
    return {}, {"slope": slope.flatten().expand(value.shape[0])}


def _lower_hardswish(builder: QuantizedProgramBuilder, op: Operation) -> bool:
    read, qparams = builder.qparams[op.inputs[0]], builder.qparams[op.name]
    three = round(3 * _PARTS / read.scale)  # the constant 3 of its definition, in parts of a step
    if not _MIN_THREE <= three <= _MAX_THREE:
        return False
    factor, highest = read.scale**2 / (6 * _PARTS * qparams.scale), 255 * 2 * three
    multiplier = scalar_multiplier(op.name, factor, qparams.zero_point, -highest, highest)
    builder.add(op, _HARDSWISH, {**multiplier, "zero_point": read.zero_point, "three": three})
    return True


def _compute_hardswish(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    x, three = inputs[0] - step.settings["zero_point"], step.settings["three"]
    products: Ints = x * (_PARTS * x + three).clip(0, 2 * three)
    return products


_HARDSWISH = Kernel(
    "hardswish",
    "hardswish({input}, {count}, {zero_point}, {three}, {scalars}, {output})",
    _compute_hardswish,
    helpers=("requantize",),
    in_place=True,
    elementwise=True,
)


def _write_silu(writer: OnnxWriter, op: Operation) -> str:
    gate = writer.node("Sigmoid", f"{op.name}:sigmoid", *op.inputs)
    return writer.node("Mul", op.name, *op.inputs, gate)


def _write_prelu(writer: OnnxWriter, op: Operation) -> str:
    return writer.node("PRelu", op.name, *op.inputs, writer.channel_constant(op, "slope"))


def _write_gelu_tanh(writer: OnnxWriter, op: Operation) -> str:
    return writer.node("Gelu", op.name, *op.inputs, approximate="tanh")


def _write_hardsigmoid(writer: OnnxWriter, op: Operation) -> str:
    return writer.node("HardSigmoid", op.name, *op.inputs, alpha=1 / 6, beta=0.5)


def _write_clip(writer: OnnxWriter, op: Operation) -> str:
    bounds = (writer.array(f"bound:{bound}", bound, np.float32) for bound in _bounds(op) or ())
    return writer.node("Clip", op.name, *op.inputs, *bounds)


def _clamp(x: Tensor, low: float, high: float) -> Tensor:
    return x.clamp(low, high)


_GELU = "0.5f * x * (1 + erff(0.707106781f * x))"  # the constant is the square root of one half
# The constant is the square root of 2 / pi.
_GELU_TANH = "0.5f * x * (1 + tanhf(0.797884561f * (x + 0.044715f * x * x * x)))"
_SWISH = "x <= -3 ? 0 : x >= 3 ? x : x * (x + 3) / 6"
_CLAMP = "x > high ? high : x > low ? x : low"
_SIGMOID = "x <= -3 ? 0 : x >= 3 ? 1 : (x + 3) / 6"
FUNCTIONS = {
    function.name: function
    for function in (
        Function("relu", "x > 0 ? x : 0", F.relu, "Relu", clamps_to=lambda: (0, inf)),
        Function(
            "relu6", "x > 6 ? 6 : x > 0 ? x : 0", F.relu6, _write_clip, clamps_to=lambda: (0, 6)
        ),
        Function(
            *("clamp", _CLAMP, _clamp, _write_clip, ("low", "high")),
            clamps_to=lambda low, high: (low, high),
            read=read_clamp,
        ),
        Function(
            *("leaky_relu", "x > 0 ? x : x * slope", F.leaky_relu, "LeakyRelu", ("slope",)),
            read=_read_slope,
        ),
        Function("prelu", "", F.prelu, _write_prelu, read=_read_prelu),
        Function(
            *("elu", "x > 0 ? x : slope * expm1f(x)", F.elu, "Elu", ("slope",)), read=_read_elu
        ),
        Function("gelu", _GELU, F.gelu, "Gelu", read=_read_gelu),
        Function("gelu_tanh", _GELU_TANH, partial(F.gelu, approximate="tanh"), _write_gelu_tanh),
        Function("silu", "x / (1 + expf(-x))", F.silu, _write_silu),
        Function("hardswish", _SWISH, F.hardswish, "HardSwish", lower_int8=_lower_hardswish),
        Function("hardsigmoid", _SIGMOID, F.hardsigmoid, _write_hardsigmoid),
        Function("sigmoid", "1 / (1 + expf(-x))", torch.sigmoid, "Sigmoid"),
        Function("tanh", "tanhf(x)", torch.tanh, "Tanh"),
    )
}
_KERNELS = {name: function.kernel() for name, function in FUNCTIONS.items()}


def _converter(name: str, read: Callable[..., Settings]) -> Converter:
    def convert(builder: GraphBuilder, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, Expanded):
            return Expanded(convert(builder, value.value, *args, **kwargs), value.lengths)
        if not isinstance(value, ValueView):
            raise UnsupportedOp(f"{name} of a constant is not supported")
        settings, constants = read(value, *args, **kwargs)
        attributes = {"function": name, **settings}
        return builder.add(ACTIVATION, [value], value.shape, attributes, constants, value.axes)

    return convert


def _compute_lookup(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    (x,), table = inputs, constants["table"]
    return table[np.arange(len(table)), x] if step.settings["per_channel"] else table[0][x]


_LOOKUP = Kernel(
    "lookup",
    "lookup({values}, {per_channel}, {table}, {output})",
    _compute_lookup,
    in_place=True,
    elementwise=True,
)


def _parameters(op: Operation) -> list[float]:
    return [op.attributes[name] for name in FUNCTIONS[op.attributes["function"]].parameters]


def _bounds(op: Operation) -> tuple[float, float] | None:
    """The bounds of a function that clamps."""
    clamps_to = FUNCTIONS[op.attributes["function"]].clamps_to
    return clamps_to(*_parameters(op)) if clamps_to else None


def _run(op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
    arguments = [*_parameters(op), *constants.values()]
    return FUNCTIONS[op.attributes["function"]].run(inputs[0], *arguments)


def _needed_range(op: Operation, low: float, high: float) -> tuple[float, float]:
    bounds = _bounds(op)
    return (max(low, bounds[0]), min(high, bounds[1])) if bounds else (-inf, inf)


def _lower_float(builder: ProgramBuilder, op: Operation) -> None:
    lower_float(builder, op, _KERNELS[op.attributes["function"]])


def _lower_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    read = builder.qparams[op.inputs[0]]
    function = FUNCTIONS[op.attributes["function"]]
    # Half a step: the rounded scale may extend a range slightly beyond its bound.
    bounds, half = _bounds(op), read.scale / 2
    if bounds and bounds[0] - half <= read.lowest and read.highest <= bounds[1] + half:
        builder.keep(op)
        builder.alias(op)
        return
    qparams = builder.choose(op.name)
    if function.lower_int8(builder, op):
        return
    per_channel = bool(op.constants)
    # The activation of all 256 values, as a batch (256, C).
    x = torch.from_numpy(np.tile(read.values()[:, None], (1, op.shape[0] if per_channel else 1)))
    constants = {role: torch.from_numpy(builder.constant(op, role)) for role in op.constants}
    outputs = _run(op, [x if constants else x.float()], constants).double().numpy()
    table = builder.store(f"{op.name}.table", qparams.quantize(outputs).T.astype(np.uint8))
    builder.add(op, _LOOKUP, {"per_channel": per_channel}, table=table)


def _write_onnx(writer: OnnxWriter, op: Operation) -> None:
    function = FUNCTIONS[op.attributes["function"]]
    if callable(function.onnx):
        function.onnx(writer, op)
    else:
        alpha = dict(zip(("alpha",), _parameters(op), strict=False))
        writer.node(function.onnx, op.name, *op.inputs, **alpha)


_CONVERTERS = {name: _converter(name, each.read) for name, each in FUNCTIONS.items()}
del _CONVERTERS["gelu_tanh"]  # a form of gelu
_CONVERTERS["_prelu_kernel"] = _CONVERTERS["prelu"]
_CONVERTERS |= {
    "hardtanh": _CONVERTERS["clamp"],
    "clamp_min": _converter("clamp", lambda value, low: read_clamp(value, low, None)),
    "clamp_max": _converter("clamp", lambda value, high: read_clamp(value, None, high)),
}
# Attributes: function and its parameters. Constant: slope (C,) of prelu.
ACTIVATION = Operator(
    kind="activation",
    run=_run,
    kernel=_LOOKUP,
    onnx=_write_onnx,
    converters=_CONVERTERS,
    accepts_expanded=_CONVERTERS.keys(),
    needed_range=_needed_range,
    lower_float=_lower_float,
    lower_int8=_lower_int8,
)
OPERATORS = (ACTIVATION,)
