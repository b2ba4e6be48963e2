"""A graph as JSON for the browser, its constants in base64."""

from __future__ import annotations

import base64
from typing import Any

from whit.export.ir.graph import Graph
from whit.export.ir.support import require_supported


def graph_json(graph: Graph, data: str = "") -> dict[str, Any]:
    """Return a graph as JSON; `weights` holds all constants as little-endian float32 in base64.

    `data` is the name of the data set, from which the page tells digits from other images. Raises
    ModelError naming every operation that the page does not support.
    """
    require_supported(graph, "html")
    positions: dict[str, dict[str, Any]] = {}
    content = bytearray()
    for name, tensor in graph.constants.items():
        positions[name] = {"offset": len(content) // 4, "shape": list(tensor.shape)}
        content += tensor.numpy().astype("<f4").tobytes()
    operations = [
        {**op.attributes, "name": op.name, "kind": op.kind, "inputs": list(op.inputs)}
        | {"shape": list(op.shape), "constants": dict(op.constants)}
        for op in graph.operations
    ]
    return {
        "name": graph.name,
        "data": data,
        "image_shape": list(graph.image_shape),
        "classes": list(graph.classes),
        "shifts": [list(shift) for shift in graph.shifts],
        "operations": operations,
        "constants": positions,
        "weights": base64.b64encode(bytes(content)).decode(),
    }
