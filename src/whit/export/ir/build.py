"""The graph of a finished run, normalisation included, and the proof that it is the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whit.export.ir.capture import read_graph
from whit.export.ir.fusion import folded
from whit.export.ir.graph import INPUT, Graph, Operation, behind
from whit.trained import Trained


def graph_of(trained: Trained) -> Graph:
    """Return the folded graph of a run's network, from pixels 0..255 to logits.

    The same weights give the same graph, to the byte. Raises ModelError naming every operation
    that has no plain form.
    """
    dataset = trained.dataset
    model = trained.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    graph = read_graph(model, dataset.image_shape, dataset.classes, trained.run.recipe.name)
    if spec := trained.run.recipe.quantise:
        graph = replace(graph, bits=spec.bits)
    trained.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded(_with_normalisation(graph, trained))


def _with_normalisation(graph: Graph, trained: Trained) -> Graph:
    scale, offset = (t.flatten() for t in (trained.normalise.scale, trained.normalise.offset))
    constants = {"normalise.scale": scale.double(), "normalise.offset": offset.double()}
    first = Operation(
        "normalise",
        "scale",
        (INPUT,),
        graph.image_shape,
        {},
        {"scale": "normalise.scale", "offset": "normalise.offset"},
    )
    return behind(first, replace(graph, constants={**graph.constants, **constants}))


@dataclass(frozen=True)
class Proof:
    """How two ways of running a network agree on the same images."""

    num_images: int
    same_class: int
    largest_difference: float  # of any logit

    @classmethod
    def between(cls, ours: Tensor, theirs: Tensor) -> Proof:
        """Compare logits (N, K) with logits (N, K)."""
        assert ours.shape == theirs.shape
        return cls(
            len(ours),
            int((ours.argmax(1) == theirs.argmax(1)).sum()),
            float((ours - theirs).abs().max()),
        )
