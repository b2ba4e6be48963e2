"""The ONNX target: one file with the fused graph, and onnxruntime to run it.

Built node by node, so that the same weights give the same bytes; nothing is traced again. `onnx`
is imported by what needs it, as operators know this writer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from whit.export.ir.graph import INPUT, Graph, Operation

if TYPE_CHECKING:
    import onnx

    from whit.export.quantization.quantize import QuantizedProgram

# The oldest opset with all that is used; Gelu is the newest of them. Its IR version is the one
# of the same ONNX release.
_OPSET, _IR = 20, 9
OUTPUT = "logits"
_BATCH_SIZE = 500


def onnx_bytes(graph: Graph, quantized: QuantizedProgram | None = None) -> bytes:
    """Return a graph as an ONNX file that reads `image` and gives `logits`, for any batch.

    With `quantized`, the same graph with its weights in int8 and each value that the int8 program
    keeps rounded to the same uint8 numbers (QuantizeLinear, DequantizeLinear).

    Raises onnx.checker.ValidationError, which would be a mistake of ours.
    """
    import onnx

    model = OnnxWriter(graph, quantized).model()
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
        session.run([OUTPUT], {INPUT: batch.numpy().astype(np.float32)})
        for batch in images.split(_BATCH_SIZE)  # type: ignore[no-untyped-call]
    ]
    return torch.from_numpy(np.concatenate([part[0] for part in parts]))


class OnnxWriter:
    """Writes one graph: its nodes and constants, in the order of its operations."""

    def __init__(self, graph: Graph, quantized: QuantizedProgram | None):
        self.graph = graph
        self.quantized = quantized
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        from onnx import TensorProto, helper

        def value_info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])

        graph = self.graph
        for op in self._operations():
            op.operator.write_onnx(self, op)
            self._round(op.name)
        self._write_logits()
        content = helper.make_graph(
            self.nodes,
            "whit",
            [value_info(INPUT, graph.image_shape)],
            [value_info(OUTPUT, (len(graph.classes),))],
            list(self.stored.values()),
            doc_string=(
                f"{graph.name}: reads pixels from 0 to 255 as float32, N x C x H x W, not "
                "normalised; gives one logit a class."
            ),
        )
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(
            content, opset_imports=[opset], ir_version=_IR, producer_name="whit"
        )
        properties = {
            "name": graph.name,
            "classes": json.dumps(graph.classes),
            "input": "pixels 0..255, float32, N C H W, not normalised",
            "output": "logits, N K, in the order of classes",
            "numbers": "int8" if self.quantized else "float32",
        }
        helper.set_model_props(model, properties)
        return model

    def _operations(self) -> Iterator[Operation]:
        """The operations, which read the image as it is, or all its views in one batch."""
        (_, height, width), shifts = self.graph.image_shape, self.graph.shifts
        if len(shifts) == 1:
            yield from self.graph.operations
            return
        max_shift = max(abs(pixels) for shift in shifts for pixels in shift)
        around = self.array("views:around", [0, 0, max_shift, max_shift] * 2, np.int64)
        wide = self.node("Pad", "views:wide", INPUT, around, mode="edge")
        views = []
        for i, (right, down) in enumerate(shifts):
            top, left = max_shift - down, max_shift - right
            start = self.array(f"view{i}:start", [top, left], np.int64)
            stop = self.array(f"view{i}:stop", [top + height, left + width], np.int64)
            axes = self.array("axes:HW", [2, 3], np.int64)
            views.append(self.node("Slice", f"view{i}", wide, start, stop, axes))
        self.node("Concat", "views", *views, axis=0)
        for op in self.graph.operations:
            yield replace(op, inputs=tuple("views" if i == INPUT else i for i in op.inputs))

    def _write_logits(self) -> None:
        """Name the logits, or the mean of those of all views."""
        shifts, classes = self.graph.shifts, len(self.graph.classes)
        if len(shifts) == 1:
            self.node("Identity", OUTPUT, self.graph.output)
            return
        shape = self.array("views:shape", [len(shifts), -1, classes], np.int64)
        logits = self.node("Reshape", "views:logits", self.graph.output, shape)
        first = self.array("axes:views", [0], np.int64)
        self.node("ReduceMean", OUTPUT, logits, first, keepdims=0)

    def node(self, kind: str, name: str, *inputs: str, **settings: Any) -> str:
        from onnx import helper

        node = helper.make_node(kind, list(inputs), [name], name=name, **settings)
        node.attribute.sort(key=lambda attribute: attribute.name)
        self.nodes.append(node)
        return name

    def array(self, name: str, values: Any, dtype: Any) -> str:
        """Store a constant once; return its name."""
        from onnx import numpy_helper

        if name not in self.stored:
            array = np.array(values, dtype, order="C")
            self.stored[name] = numpy_helper.from_array(array, name)
        return name

    def constant(self, op: Operation, role: str) -> str:
        """Store a constant of an operation; return its name."""
        name = op.constants[role]
        return self.array(name, self.graph.constants[name].numpy(), np.float32)

    def channel_constant(self, op: Operation, role: str) -> str:
        """Store a constant of one number a channel, so that it applies to each pixel of a map."""
        if len(op.shape) != 3:
            return self.constant(op, role)
        name = op.constants[role]
        by_channel = self.graph.constants[name].reshape(-1, 1, 1).numpy()
        return self.array(f"{name}:map", by_channel, np.float32)

    def weight(self, op: Operation) -> str:
        """Store the weights; in int8 as integers with a scale an output channel."""
        name = op.constants["weight"]
        if self.quantized is None:
            return self.constant(op, "weight")
        wide = f"{name}:wide"
        if wide not in self.stored and not any(node.name == wide for node in self.nodes):
            weights = self.quantized.weights[name]
            # As uint8 around 128: onnxruntime adds products of uint8 and int8 in 16 bits, which
            # overflow, on processors without VNNI.
            numbers = self.array(name, weights.numbers.astype(np.int16) + 128, np.uint8)
            scales = self.array(f"{name}:scales", weights.scales, np.float32)
            zeros = self.array(f"{name}:zeros", np.full(len(weights.scales), 128), np.uint8)
            self.node("DequantizeLinear", wide, numbers, scales, zeros, axis=0)
        return wide

    def _round(self, name: str) -> None:
        """Round a value as the int8 program does, where that program keeps it."""
        qparams = self.quantized.qparams.get(name) if self.quantized else None
        if qparams is None:
            return
        self.nodes[-1].output[0] = self.nodes[-1].name = wide = f"{name}:wide"
        scale = self.array(f"{name}:scale", qparams.scale, np.float32)
        zero = self.array(f"{name}:zero", qparams.zero_point, np.uint8)
        rounded = self.node("QuantizeLinear", f"{name}:bytes", wide, scale, zero)
        self.node("DequantizeLinear", name, rounded, scale, zero)
