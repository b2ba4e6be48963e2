"""What an operator is: everything that the export needs to know of one kind of operation."""

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


def lower_float(builder: ProgramBuilder, op: Operation, kernel: Kernel | None = None) -> None:
    """Add one step by the operator's kernel, or another one."""
    names = {role: builder.store_constant(op, role) for role in op.constants}
    settings = op.operator.settings(builder.graph, op)
    builder.add(op, kernel or op.operator.kernel, settings, **names)


def lower_int8(builder: QuantizedProgramBuilder, op: Operation) -> None:
    """Add one step by the kernel of an operator that keeps the range of its input."""
    assert op.operator.keeps_range, f"{op.kind} needs a lower_int8 of its own"
    operator, zero = op.operator, builder.keep(op).zero_point
    settings = {**operator.settings(builder.graph, op), "zero": zero}
    builder.add(op, operator.int8_kernel or operator.kernel, settings)


@dataclass(frozen=True, eq=False, kw_only=True)
class Operator:
    """One kind of operation.

    kind: its name, also in the JSON of the HTML target.
    run: returns its output, (N, ...), by PyTorch's functions, from its inputs and constants.
    kernel, int8_kernel: of its steps; int8_kernel where that is another.
    onnx: the ONNX operator, with onnx_attributes, or what writes several nodes.
    converters: by the ATen operator that each reads; they take a GraphBuilder and the arguments as
        torch.export lists them. They return a ValueView or raise UnsupportedOp.
    accepts_expanded: ATen operators whose converters read an Expanded value.
    stem: what the names of its operations begin with; by default its function or kind.
    num_macs: returns the multiply-adds of one operation.
    commutes_with_scale: whether op(x * scale + offset) = op(x) * scale + offset, by channel.
    fuse: returns the graph with an operation merged into a neighbor; None where it cannot be.
    needed_range: returns the interval beyond which its inputs change no output in an interval.
    keeps_range: whether its outputs are inputs or lie between them, so that QuantParams stay.
    keeps_argmax: whether its largest output is that of its input: an int8 program ends before it.
    settings: returns the settings of its steps, by default its attributes.
    lower_float, lower_int8: add its steps; ModelError where integers could overflow.
    """

    kind: str
    run: Callable[[Operation, list[Tensor], Constants], Tensor]
    kernel: Kernel
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
        """Write its nodes; the last one gives the operation's name."""
        if callable(self.onnx):
            self.onnx(writer, op)
        else:
            writer.node(self.onnx, op.name, *op.inputs, **self.onnx_attributes(op))
