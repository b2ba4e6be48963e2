"""The definition of an operator: everything that the export needs for one kind of operation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from whit.export.ir.graph import Graph, Operation
from whit.export.onnx import OnnxWriter
from whit.export.program import Kernel, ProgramBuilder
from whit.export.quantization.builder import QuantizedProgramBuilder

Converter = Callable[..., Any]
Constants = Mapping[str, Tensor]  # by role
EVERY_TARGET = frozenset({"onnx", "c", "html", "int8"})


def lower_float(builder: ProgramBuilder, op: Operation, kernel: Kernel | None = None) -> None:
    """Add one step that calls the operator's kernel, or `kernel`."""
    names = {role: builder.store_constant(op, role) for role in op.constants}
    settings = op.operator.settings(builder.graph, op)
    kernel = kernel or op.operator.kernel
    assert kernel, f"{op.kind} has no kernel"
    builder.add(op, kernel, settings, **names)


def lower_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    """Add one step for an operator whose output has the range of its input."""
    assert op.operator.keeps_range, f"{op.kind} needs its own lower_int8"
    operator, zero = op.operator, builder.keep(op).zero_point
    settings = {**operator.settings(builder.graph, op), "zero_point": zero}
    kernel = operator.int8_kernel or operator.kernel
    assert kernel, f"{op.kind} has no kernel"
    builder.add(op, kernel, settings)


@dataclass(frozen=True, eq=False, kw_only=True)
class Operator:
    """One kind of operation.

    kind: its name, also in the JSON of the HTML target.
    targets: what supports it: formats, and int8 for programs in int8 of any format.
    run: computes its output (N, ...) with PyTorch from its inputs and constants.
    kernel, int8_kernel: the kernels of its steps, if C supports it; int8_kernel defaults to kernel.
    onnx: the ONNX operator, with onnx_attributes, or a function that writes several nodes.
    converters: by ATen operator; a converter takes a GraphBuilder and the arguments as listed by
        torch.export, and returns a ValueView or raises UnsupportedOp.
    accepts_expanded: ATen operators whose converters accept an Expanded value.
    stem: the prefix of its operations' names; defaults to its function or kind.
    num_macs: returns the multiply-adds of one operation.
    commutes_with_scale: whether op(x * scale + offset) = op(x) * scale + offset per channel.
    fuse: returns the graph with an operation merged into a neighbor; None if that is impossible.
    needed_range: returns the input interval outside which inputs do not affect outputs within an
        output interval.
    keeps_range: whether outputs stay within the range of the inputs, which share QuantParams.
    keeps_argmax: whether the argmax of the output is that of the input; int8 programs omit such an
        operation at the end.
    settings: returns the settings of its steps, by default its attributes.
    lower_float, lower_int8: add its steps; raise ModelError if integers could overflow.
    """

    kind: str
    run: Callable[[Operation, list[Tensor], Constants], Tensor]
    targets: frozenset[str] = EVERY_TARGET
    kernel: Kernel | None = None
    int8_kernel: Kernel | None = None
    onnx: str | Callable[[OnnxWriter, Operation], object]
    onnx_attributes: Callable[[Operation], dict[str, Any]] = lambda op: {}
    converters: Mapping[str, Converter] = field(default_factory=dict)
    accepts_expanded: Collection[str] = ()
    stem: str = ""
    num_macs: Callable[[Operation, Constants], int] = lambda op, constants: 0
    commutes_with_scale: Callable[[Operation, Tensor], bool] = lambda op, scale: False
    fuse: Callable[[Graph, Operation], Graph | None] = lambda graph, op: None
    needed_range: Callable[[Operation, float, float], tuple[float, float]] | None = None
    keeps_range: bool = False
    keeps_argmax: bool = False
    settings: Callable[[Graph, Operation], dict[str, Any]] = lambda graph, op: dict(op.attributes)
    lower_float: Callable[[ProgramBuilder, Operation], None] = lower_float
    lower_int8: Callable[[QuantizedProgramBuilder, Operation], None] = lower_int8

    def write_onnx(self, writer: OnnxWriter, op: Operation) -> None:
        """Write its nodes; the last one has the operation's name."""
        if callable(self.onnx):
            self.onnx(writer, op)
        else:
            writer.node(self.onnx, op.name, *op.inputs, **self.onnx_attributes(op))
