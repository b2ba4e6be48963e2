"""A fused graph as a float32 program."""

from __future__ import annotations

from whit.export.ir.graph import INPUT, Graph
from whit.export.ir.support import require_supported
from whit.export.program import Kernel, Program, ProgramBuilder, Step

_FLOAT_IMAGE = "float_image"
_TO_FLOAT = Kernel("to_float", "to_float({input}, {count}, {output})")


def float_program(graph: Graph) -> Program:
    """Lower a fused graph to steps; the first converts the image to float.

    Raises ModelError naming every operation that C does not support.
    """
    require_supported(graph, "c")
    builder = ProgramBuilder(graph)
    builder.steps.append(Step(_FLOAT_IMAGE, _TO_FLOAT, (INPUT,), graph.image_shape))
    builder.aliases[INPUT] = _FLOAT_IMAGE
    for op in graph.operations:
        op.operator.lower_float(builder, op)
    output = builder.aliases.get(graph.output, graph.output)
    assert builder.steps[-1].name == output, "the last step computes the logits"
    return builder.program(int8=False)
