"""From a trained network to what runs elsewhere: one folded graph, and the forms made from it."""

from __future__ import annotations

from whit.export.folding import folded
from whit.export.graph import Graph
from whit.export.reading import read_graph
from whit.export.shipping import graph_of

__all__ = ["Graph", "folded", "graph_of", "read_graph"]
