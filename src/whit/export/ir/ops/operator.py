"""What an operator is: everything that the export needs to know of one kind of operation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from torch import Tensor

from whit.export.c.kernel import Kernel
from whit.export.ir.graph import Graph, Operation

if TYPE_CHECKING:
    from whit.export.onnx import OnnxWriter
    from whit.export.program import ProgramBuilder
    from whit.export.quantization.builder import QuantizedProgramBuilder

Converter = Callable[..., Any]


class Operator(ABC):
    """One kind of operation. A subclass documents the attributes and constants of its operations.

    kind: its name, also in the JSON of the HTML target.
    kernel: of its steps, in float32 at least.
    converters: by the ATen operator that each reads; they take a GraphBuilder and the arguments as
        torch.export lists them. They return a ValueView or raise UnsupportedOp.
    accepts_expanded: ATen operators whose converters read an Expanded value.
    keeps_range: whether its outputs are inputs or lie between them, so that QuantParams stay.
    keeps_argmax: whether its largest output is that of its input: an int8 program ends before it.
    """

    kind: str
    kernel: Kernel
    converters: Mapping[str, Converter] = {}
    accepts_expanded: Collection[str] = ()
    keeps_range = False
    keeps_argmax = False

    def stem(self, attributes: Mapping[str, Any]) -> str:
        """Return what the names of its operations begin with."""
        return self.kind

    def num_macs(self, op: Operation, constants: Mapping[str, Tensor]) -> int:
        """Return the multiply-adds of one operation."""
        return 0

    @abstractmethod
    def run(self, op: Operation, inputs: list[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
        """Return its output by PyTorch's functions; `constants` by role."""

    def commutes_with_scale(self, op: Operation, scale: Tensor) -> bool:
        """Whether op(x * scale + offset) = op(x) * scale + offset, channel by channel."""
        return False

    def fuse(self, graph: Graph, op: Operation) -> Graph | None:
        """Return the graph with an operation merged into a neighbor; None where it cannot be."""
        return None

    def needed_range(self, op: Operation, low: float, high: float) -> tuple[float, float]:
        """Return the interval beyond which its inputs change no output from `low` to `high`."""
        return (low, high) if self.keeps_range else (-inf, inf)

    def settings(self, graph: Graph, op: Operation) -> dict[str, Any]:
        """Return the settings of its steps."""
        return dict(op.attributes)

    def lower_float(self, builder: ProgramBuilder, op: Operation) -> None:
        """Add its step in float32."""
        held = {role: builder.store_constant(op, role) for role in op.constants}
        builder.add(op, self.kernel, self.settings(builder.graph, op), **held)

    def lower_int8(self, builder: QuantizedProgramBuilder, op: Operation) -> None:
        """Add its step in int8. Raises ModelError where it could overflow."""
        assert self.keeps_range, f"{self.kind} needs an int8 lowering of its own"
        zero = builder.keep(op).zero_point
        builder.add(op, self.kernel, {**self.settings(builder.graph, op), "zero": zero})

    @abstractmethod
    def write_onnx(self, writer: OnnxWriter, op: Operation) -> None:
        """Write its nodes; the last one gives the operation's name."""
