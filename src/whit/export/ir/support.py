"""Which targets support the operators of a graph."""

from __future__ import annotations

from whit.errors import ModelError
from whit.export.ir.graph import Graph
from whit.export.ir.problems import add_sites


def require_supported(graph: Graph, target: str) -> None:
    """Raise ModelError naming each operation that a target does not support, and where it is.

    target: a format, or int8. Operations on the outputs of such operations are not named.
    """
    unsupported = [op for op in graph.operations if target not in op.operator.targets]
    if not unsupported:
        return
    sites: dict[str, dict[str, None]] = {}  # by reason, each once, in order
    for op in unsupported:
        if op.onnx_reason:
            sites.setdefault(op.onnx_reason, {})[op.site] = None
    if not sites:
        sites = {f"the operator {unsupported[0].kind} is not supported": {}}
    where = "in int8" if target == "int8" else f"to {target}"
    advice = "omit --int8" if target == "int8" else "--format onnx supports it"
    raise ModelError(
        [
            f"{graph.name}: cannot be exported {where}: {add_sites(reason, [*found])}; {advice}."
            for reason, found in sites.items()
        ]
    )
