"""Which targets support the operators of a graph."""

from __future__ import annotations

from whit.errors import ModelError
from whit.export.ir.graph import Graph

_MAX_LAYERS = 4  # named in one message


def require_supported(graph: Graph, target: str) -> None:
    """Raise ModelError naming each operation that a target does not support, with its layers.

    target: a format, or int8. Operations on the outputs of such operations are not named.
    """
    unsupported = [op for op in graph.operations if target not in op.operator.targets]
    layers: dict[str, dict[str, None]] = {}  # by reason, each once, in order
    for op in unsupported:
        if op.origin and op.origin[0]:
            layers.setdefault(op.origin[0], {})[op.origin[1]] = None
    if not unsupported:
        return
    if not layers:
        layers = {f"the operator {unsupported[0].kind} is not supported": {"its network": None}}
    where = "in int8" if target == "int8" else f"to {target}"
    advice = "omit --int8" if target == "int8" else "--format onnx supports it"
    raise ModelError(
        [
            f"{graph.name}: cannot be exported {where}: {', '.join(_shortened(names))}: {reason}; "
            f"{advice}."
            for reason, names in layers.items()
        ]
    )


def _shortened(names: dict[str, None]) -> list[str]:
    more = len(names) - _MAX_LAYERS
    return [*list(names)[:_MAX_LAYERS], *([f"{more} more"] if more > 0 else [])]
