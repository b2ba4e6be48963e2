"""The ONNX form: one file with the folded graph, and onnxruntime to run it.

Built node by node, so that the same weights give the same bytes; nothing is traced again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from whit.export.ir.graph import INPUT, Graph, Operation
from whit.models.layers import LEAST_MASS

if TYPE_CHECKING:
    from whit.export.quantization.quantize import Quantised

# The oldest opset with all that is used; Gelu is the newest of them. Its IR version is the one
# of the same ONNX release.
_OPSET, _IR = 20, 9
OUTPUT = "logits"
_BATCH = 500


def onnx_bytes(graph: Graph, quantised: Quantised | None = None) -> bytes:
    """Return a graph as an ONNX file that reads `image` and gives `logits`, for any batch.

    With `quantised`, the same graph with its weights in int8 and each value that the integer form
    keeps rounded to the same uint8 numbers (QuantizeLinear, DequantizeLinear).

    Raises onnx.checker.ValidationError, which would be a mistake of ours.
    """
    model = _Writer(graph, quantised).model()
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def onnx_logits(content: bytes, images: Tensor) -> Tensor:
    """Return the logits (N, K) that onnxruntime gives for uint8 images (N, C, H, W)."""
    import onnxruntime  # type: ignore[import-untyped]
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; it warns of machines without its own kind of clock
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    parts = [
        session.run([OUTPUT], {INPUT: images[first : first + _BATCH].numpy().astype(np.float32)})
        for first in range(0, len(images), _BATCH)
    ]
    return torch.from_numpy(np.concatenate([part[0] for part in parts]))


class _Writer:
    """Writes one graph; `nodes` and `stored` grow in the order of its operations."""

    def __init__(self, graph: Graph, quantised: Quantised | None):
        self.graph = graph
        self.quantised = quantised
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        graph = self.graph
        for op in self.looking():
            _WRITERS[op.kind](self, op)
            self.rounded(op.name)
        self.end()
        whole = helper.make_graph(
            self.nodes,
            "whit",
            [_value_info(INPUT, graph.image_shape)],
            [_value_info(OUTPUT, (len(graph.classes),))],
            list(self.stored.values()),
            doc_string=(
                f"{graph.name}: reads pixels from 0 to 255 as float32, N x C x H x W, not "
                "normalised; gives one logit a class."
            ),
        )
        model = helper.make_model(
            whole,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR,
            producer_name="whit",
        )
        helper.set_model_props(
            model,
            {
                "name": graph.name,
                "classes": json.dumps(graph.classes),
                "input": "pixels 0..255, float32, N C H W, not normalised",
                "output": "logits, N K, in the order of classes",
                "numbers": "int8" if self.quantised else "float32",
            },
        )
        return model

    def looking(self) -> Iterator[Operation]:
        """The operations, which read the image as it is, or all its views in one batch."""
        shifts = self.graph.shifts
        if len(shifts) == 1:
            yield from self.graph.operations
            return
        _, height, width = self.graph.image_shape
        farthest = max(abs(pixels) for shift in shifts for pixels in shift)
        around = self.array("views:around", [0, 0, farthest, farthest] * 2, np.int64)
        wide = self.node("Pad", "views:wide", INPUT, around, mode="edge")
        moved = []
        for i, (right, down) in enumerate(shifts):
            top, left = farthest - down, farthest - right
            bounds = (
                self.array(f"view{i}:start", [top, left], np.int64),
                self.array(f"view{i}:stop", [top + height, left + width], np.int64),
            )
            axes = self.array("axes:HW", [2, 3], np.int64)
            moved.append(self.node("Slice", f"view{i}", wide, *bounds, axes))
        self.node("Concat", "views", *moved, axis=0)
        for op in self.graph.operations:
            inside = tuple("views" if name == INPUT else name for name in op.inputs)
            yield replace(op, inputs=inside)

    def end(self) -> None:
        """Name the logits, or the mean of those of all views."""
        shifts, classes = self.graph.shifts, len(self.graph.classes)
        if len(shifts) == 1:
            self.node("Identity", OUTPUT, self.graph.output)
            return
        shape = self.array("views:shape", [len(shifts), -1, classes], np.int64)
        looks = self.node("Reshape", "views:logits", self.graph.output, shape)
        first = self.array("axes:views", [0], np.int64)
        self.node("ReduceMean", OUTPUT, looks, first, keepdims=0)

    def node(self, kind: str, name: str, *inputs: str, **settings: Any) -> str:
        made = helper.make_node(kind, list(inputs), [name], name=name, **settings)
        made.attribute.sort(key=lambda attribute: attribute.name)
        self.nodes.append(made)
        return name

    def array(self, name: str, values: Any, dtype: Any) -> str:
        """Store a constant once; return its name."""
        if name not in self.stored:
            array = np.array(values, dtype, order="C")
            self.stored[name] = numpy_helper.from_array(array, name)
        return name

    def constant(self, op: Operation, role: str, spread: bool = False) -> str:
        """Store a constant of an operation; `spread` over the channels of its map."""
        name = op.constants[role]
        tensor = self.graph.constants[name]
        if spread and len(op.shape) == 3:
            return self.array(f"{name}:map", tensor.reshape(-1, 1, 1).numpy(), np.float32)
        return self.array(name, tensor.numpy(), np.float32)

    def weight(self, op: Operation) -> str:
        """Store the weights; in the int8 form as whole numbers with a scale an output channel."""
        name = op.constants["weight"]
        if self.quantised is None:
            return self.constant(op, "weight")
        wide = f"{name}:wide"
        if wide not in self.stored and not any(node.name == wide for node in self.nodes):
            whole = self.quantised.weights[name]
            # As uint8 around 128: onnxruntime adds products of uint8 and int8 in 16 bits, which
            # overflow, on processors without VNNI.
            numbers = whole.numbers.astype(np.int16) + 128
            given = (
                self.array(name, numbers, np.uint8),
                self.array(f"{name}:scales", whole.scales, np.float32),
                self.array(f"{name}:zeros", np.full(len(whole.scales), 128), np.uint8),
            )
            self.node("DequantizeLinear", wide, *given, axis=0)
        return wide

    def rounded(self, name: str) -> None:
        """Let a value be rounded as the integer form rounds it, where that form keeps it."""
        levels = self.quantised.levels.get(name) if self.quantised else None
        if levels is None:
            return
        self.nodes[-1].output[0] = f"{name}:wide"
        self.nodes[-1].name = f"{name}:wide"
        given = (
            self.array(f"{name}:scale", levels.scale, np.float32),
            self.array(f"{name}:zero", levels.zero, np.uint8),
        )
        self.node("QuantizeLinear", f"{name}:bytes", f"{name}:wide", *given)
        self.node("DequantizeLinear", name, f"{name}:bytes", *given)


def _value_info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])


def _conv(writer: _Writer, op: Operation) -> None:
    settings = op.attributes
    weight = writer.graph.constants[op.constants["weight"]]
    writer.node(
        "Conv",
        op.name,
        *op.inputs,
        writer.weight(op),
        writer.constant(op, "bias"),
        kernel_shape=list(weight.shape[2:]),
        strides=list(settings["stride"]),
        pads=[*settings["padding"], *settings["padding"]],
        dilations=list(settings["dilation"]),
        group=settings["groups"],
    )


def _linear(writer: _Writer, op: Operation) -> None:
    writer.node(
        "Gemm", op.name, *op.inputs, writer.weight(op), writer.constant(op, "bias"), transB=1
    )


def _scale(writer: _Writer, op: Operation) -> None:
    scaled = writer.node("Mul", f"{op.name}:scaled", *op.inputs, writer.constant(op, "scale", True))
    writer.node("Add", op.name, scaled, writer.constant(op, "offset", True))


def _activation(writer: _Writer, op: Operation) -> None:
    function, (x,) = op.attributes["function"], op.inputs
    if function == "relu6":
        bounds = (writer.array(f"bound:{bound}", bound, np.float32) for bound in (0, 6))
        writer.node("Clip", op.name, x, *bounds)
    elif function == "prelu":
        writer.node("PRelu", op.name, x, writer.constant(op, "slope", True))
    elif function == "silu":
        writer.node("Mul", op.name, x, writer.node("Sigmoid", f"{op.name}:sigmoid", x))
    elif function in ("leaky_relu", "elu"):
        kind = {"leaky_relu": "LeakyRelu", "elu": "Elu"}[function]
        writer.node(kind, op.name, x, alpha=float(op.attributes["slope"]))
    elif function == "hardsigmoid":
        writer.node("HardSigmoid", op.name, x, alpha=1 / 6, beta=0.5)
    else:
        kinds = {
            "relu": "Relu",
            "gelu": "Gelu",
            "hardswish": "HardSwish",
            "sigmoid": "Sigmoid",
            "tanh": "Tanh",
        }
        writer.node(kinds[function], op.name, x)


def _pool(kind: str) -> Callable[[_Writer, Operation], None]:
    def write(writer: _Writer, op: Operation) -> None:
        settings = op.attributes
        if kind == "MaxPool":
            more: dict[str, Any] = {"dilations": list(settings["dilation"])}
        else:
            more = {"count_include_pad": int(settings["counts_padding"])}
        writer.node(
            kind,
            op.name,
            *op.inputs,
            kernel_shape=list(settings["kernel"]),
            strides=list(settings["stride"]),
            pads=[*settings["padding"], *settings["padding"]],
            **more,
        )

    return write


def _mean(writer: _Writer, op: Operation) -> None:
    axes = writer.array("axes:HW", [2, 3], np.int64)
    writer.node("ReduceMean", op.name, *op.inputs, axes, keepdims=0)


def _binary(kind: str) -> Callable[[_Writer, Operation], None]:
    def write(writer: _Writer, op: Operation) -> None:
        a, b = op.inputs
        if writer.graph.shape_of(b) != writer.graph.shape_of(a):
            axes = writer.array("axes:HW", [2, 3], np.int64)
            b = writer.node("Unsqueeze", f"{op.name}:map", b, axes)
        writer.node(kind, op.name, a, b)

    return write


def _concat(writer: _Writer, op: Operation) -> None:
    writer.node("Concat", op.name, *op.inputs, axis=1)


def _slice(writer: _Writer, op: Operation) -> None:
    bounds = (
        writer.array(f"place:{op.attributes[side]}", [op.attributes[side]], np.int64)
        for side in ("start", "stop")
    )
    writer.node("Slice", op.name, *op.inputs, *bounds, writer.array("axes:C", [1], np.int64))


def _deskew(writer: _Writer, op: Operation) -> None:
    """`layers.Deskew`, node by node."""
    _, height, width = op.shape
    (image,) = op.inputs

    def node(kind: str, name: str, *inputs: str, **settings: Any) -> str:
        return writer.node(kind, f"{op.name}:{name}", *inputs, **settings)

    def total(name: str, value: str, *axes: int, kept: int = 1) -> str:
        over = writer.array(f"axes:{''.join(map(str, axes))}", list(axes), np.int64)
        return node("ReduceSum", name, value, over, keepdims=kept)

    def number(name: str, value: Any) -> str:
        return writer.array(f"{op.name}:{name}", value, np.float32)

    x = number("x", np.arange(width).reshape(1, 1, -1))
    y = number("y", np.arange(height).reshape(1, -1, 1))
    least = number("least", LEAST_MASS)
    smallest = node("ReduceMin", "smallest", image, writer.array("axes:HW", [2, 3], np.int64))
    mass = total("mass", node("Sub", "above", image, smallest), 1, kept=0)
    rows, columns = total("rows", mass, 2), total("columns", mass, 1)
    whole = node("Max", "whole", total("total", rows, 1), least)
    sum_y = total("sum_y", node("Mul", "by_y", rows, y), 1)
    sum_x = total("sum_x", node("Mul", "by_x", columns, x), 2)
    from_y = node("Sub", "from_y", y, node("Div", "centre_y", sum_y, whole))
    from_x = node("Sub", "from_x", x, node("Div", "centre_x", sum_x, whole))
    along = total("along", node("Mul", "by_from_x", mass, from_x), 2)
    mixed = total("mixed", node("Mul", "by_both", along, from_y), 1)
    squared = node("Mul", "squared", from_y, from_y)
    spread = total("spread", node("Mul", "by_squared", rows, squared), 1)
    slope = node("Div", "slope", mixed, node("Max", "some_spread", spread, least))
    source = node("Add", "source", x, node("Mul", "moved", slope, from_y))
    scaled = node("Mul", "scaled", source, number("width", 2 / width))
    across = node("Add", "across", scaled, number("edge", 1 / width - 1))
    heights = (np.arange(height) * (2 / height) + (1 / height - 1)).reshape(1, -1, 1)
    shape = node("Shape", "shape", across)
    upwards = node("Expand", "upwards", number("heights", heights), shape)
    last = writer.array("axes:3", [3], np.int64)
    pairs = (
        node("Unsqueeze", f"{name}:one", name_of, last)
        for name, name_of in (("across", across), ("upwards", upwards))
    )
    grid = node("Concat", "grid", *pairs, axis=3)
    writer.node(
        "GridSample", op.name, image, grid, mode="linear", padding_mode="border", align_corners=0
    )


def _pad(writer: _Writer, op: Operation) -> None:
    left, right, top, bottom = op.attributes["around"]
    around = [0, 0, top, left, 0, 0, bottom, right]
    writer.node("Pad", op.name, *op.inputs, writer.array(f"{op.name}:around", around, np.int64))


def _by_class(kind: str) -> Callable[[_Writer, Operation], None]:
    def write(writer: _Writer, op: Operation) -> None:
        writer.node(kind, op.name, *op.inputs, axis=1)

    return write


_WRITERS: dict[str, Callable[[_Writer, Operation], None]] = {
    "conv": _conv,
    "linear": _linear,
    "flatten": _by_class("Flatten"),
    "scale": _scale,
    "activation": _activation,
    "maxpool": _pool("MaxPool"),
    "avgpool": _pool("AveragePool"),
    "mean": _mean,
    "add": _binary("Add"),
    "subtract": _binary("Sub"),
    "multiply": _binary("Mul"),
    "concat": _concat,
    "slice": _slice,
    "deskew": _deskew,
    "pad": _pad,
    "softmax": _by_class("Softmax"),
    "log_softmax": _by_class("LogSoftmax"),
}
