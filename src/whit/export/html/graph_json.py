"""The form of a network that the browser runs: its graph as JSON, its numbers as base64."""

from __future__ import annotations

import base64
from typing import Any

from whit.export.ir.build import graph_of
from whit.export.ir.graph import Graph
from whit.trained import Trained


def network_json(trained: Trained) -> dict[str, Any]:
    """Return the network of a run as `network.js` reads it.

    Raises ModelError naming every operation that has no plain form.
    """
    return graph_json(graph_of(trained))


def graph_json(graph: Graph) -> dict[str, Any]:
    """Return a graph with its constants as one row of little-endian float32 numbers."""
    places: dict[str, dict[str, Any]] = {}
    numbers = bytearray()
    for name, tensor in graph.constants.items():
        places[name] = {"offset": len(numbers) // 4, "shape": list(tensor.shape)}
        numbers += tensor.numpy().astype("<f4").tobytes()
    operations = [
        {
            **op.attributes,
            "name": op.name,
            "kind": op.kind,
            "inputs": list(op.inputs),
            "shape": list(op.shape),
            "constants": dict(op.constants),
        }
        for op in graph.operations
    ]
    return {
        "name": graph.name,
        "image_shape": list(graph.image_shape),
        "classes": list(graph.classes),
        "shifts": [list(shift) for shift in graph.shifts],
        "operations": operations,
        "constants": places,
        "weights": base64.b64encode(bytes(numbers)).decode(),
    }
