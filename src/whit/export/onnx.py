"""The ONNX target: writes the fused graph to one file and runs it with onnxruntime.

Built node by node, without tracing; the same weights give the same bytes. `onnx` is imported inside
functions, since the operator table imports this module.
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

# The oldest opset with all operators used, of which Gelu is the newest; the IR version is that of
# the same ONNX release.
_OPSET, _IR = 20, 9
OUTPUT = "logits"
_BATCH_SIZE = 500


def onnx_bytes(graph: Graph, quantized: QuantizedProgram | None = None) -> bytes:
    """Return an ONNX file with input `image` and output `logits`, for any batch size.

    With `quantized`, weights are int8 and activations are rounded like in the int8 program, by
    QuantizeLinear and DequantizeLinear.

    Raises onnx.checker.ValidationError, which would be a bug in whit.
    """
    import onnx

    model = OnnxWriter(graph, quantized).model()
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def onnx_logits(content: bytes, images: Tensor) -> Tensor:
    """Return the logits (N, K) of uint8 images (N, C, H, W), computed by onnxruntime."""
    import onnxruntime  # type: ignore[import-untyped]
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only; it warns about clocks of some machines
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    parts = [
        session.run([OUTPUT], {INPUT: batch.numpy().astype(np.float32)})
        for batch in images.split(_BATCH_SIZE)  # type: ignore[no-untyped-call]
    ]
    return torch.from_numpy(np.concatenate([part[0] for part in parts]))


class OnnxWriter:
    """Writes the nodes and constants of one graph, in the order of its operations."""

    def __init__(self, graph: Graph, quantized: QuantizedProgram | None):
        self.graph = graph
        self.quantized = quantized
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}
        self.images = INPUT  # the batch that the operations read

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
                f"{graph.name}: input: pixels 0..255 as float32, NCHW, not normalized; output: "
                "one logit per class."
            ),
        )
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(
            content, opset_imports=[opset], ir_version=_IR, producer_name="whit"
        )
        properties = {
            "name": graph.name,
            "classes": json.dumps(graph.classes),
            "input": "pixels 0..255, float32, NCHW, not normalized",
            "output": "logits, NK, in the order of classes",
            "precision": "int8" if self.quantized else "float32",
        }
        helper.set_model_props(model, properties)
        return model

    def _operations(self) -> Iterator[Operation]:
        """The operations on the image or, with several shifts, on a batch of shifted images."""
        (_, height, width), shifts = self.graph.image_shape, self.graph.shifts
        if len(shifts) == 1:
            yield from self.graph.operations
            return
        max_shift = max(abs(pixels) for shift in shifts for pixels in shift)
        pads = self.array("tta:pads", [0, 0, max_shift, max_shift] * 2, np.int64)
        padded = self.node("Pad", "tta:padded", INPUT, pads, mode="edge")
        shifted = []
        for i, (right, down) in enumerate(shifts):
            top, left = max_shift - down, max_shift - right
            start = self.array(f"tta:shift{i}:start", [top, left], np.int64)
            stop = self.array(f"tta:shift{i}:stop", [top + height, left + width], np.int64)
            axes = self.array("axes:HW", [2, 3], np.int64)
            shifted.append(self.node("Slice", f"tta:shift{i}", padded, start, stop, axes))
        self.images = batch = self.node("Concat", "tta:batch", *shifted, axis=0)
        for op in self.graph.operations:
            yield replace(op, inputs=tuple(batch if i == INPUT else i for i in op.inputs))

    def _write_logits(self) -> None:
        """Write the output: the logits, or their mean over all shifts."""
        shifts, classes = self.graph.shifts, len(self.graph.classes)
        if len(shifts) == 1:
            self.node("Identity", OUTPUT, self.graph.output)
            return
        shape = self.array("tta:shape", [len(shifts), -1, classes], np.int64)
        logits = self.node("Reshape", "tta:logits", self.graph.output, shape)
        first = self.array("axes:tta", [0], np.int64)
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
        """Store a per-channel constant, shaped to broadcast over the pixels of a map."""
        if len(op.shape) != 3:
            return self.constant(op, role)
        name = op.constants[role]
        values = self.graph.constants[name].reshape(-1, 1, 1).numpy()
        return self.array(f"{name}:map", values, np.float32)

    def weight(self, op: Operation) -> str:
        """Store the weights; if quantized, as integers with a scale per output channel."""
        name = op.constants["weight"]
        if self.quantized is None:
            return self.constant(op, "weight")
        dequantized = f"{name}:dequantized"
        if not any(node.name == dequantized for node in self.nodes):
            weights = self.quantized.weights[name]
            # As uint8 with zero point 128: on processors without VNNI, onnxruntime accumulates
            # products of uint8 and int8 in 16 bits, which overflow.
            values = self.array(name, weights.values.astype(np.int16) + 128, np.uint8)
            scales = self.array(f"{name}:scale", weights.scales, np.float32)
            zeros = np.full(len(weights.scales), 128)
            zero_points = self.array(f"{name}:zero_point", zeros, np.uint8)
            self.node("DequantizeLinear", dequantized, values, scales, zero_points, axis=0)
        return dequantized

    def _round(self, name: str) -> None:
        """Round a value as the int8 program does."""
        qparams = self.quantized.qparams.get(name) if self.quantized else None
        if qparams is None:
            return
        self.nodes[-1].output[0] = self.nodes[-1].name = exact = f"{name}:float"
        scale = self.array(f"{name}:scale", qparams.scale, np.float32)
        zero_point = self.array(f"{name}:zero_point", qparams.zero_point, np.uint8)
        rounded = self.node("QuantizeLinear", f"{name}:quantized", exact, scale, zero_point)
        self.node("DequantizeLinear", name, rounded, scale, zero_point)
