"""A fused graph as a float32 program."""

from __future__ import annotations

from whit.export.ir.graph import INPUT, Graph
from whit.export.program import Kernel, Program, ProgramBuilder, Step

_FLOATS = "floats"  # the pixels as floating-point numbers
_TO_FLOAT = Kernel("numbers", "numbers({input}, {count}, {output})")


def float_program(graph: Graph) -> Program:
    """Return the steps of a graph; the image is made floating-point first."""
    builder = ProgramBuilder(graph)
    builder.steps.append(Step(_FLOATS, _TO_FLOAT, (INPUT,), graph.image_shape))
    builder.aliases[INPUT] = _FLOATS
    for op in graph.operations:
        op.operator.lower_float(builder, op)
    output = builder.aliases.get(graph.output, graph.output)
    assert builder.steps[-1].name == output, "the logits come last"
    return builder.program(int8=False)
