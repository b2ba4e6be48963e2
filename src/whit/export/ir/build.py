"""The graph of a finished run, including normalization."""

from __future__ import annotations

from dataclasses import replace

import torch

from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.export.ir.graph import INPUT, Graph, Operation, prepend
from whit.export.ir.ops.scale import SCALE
from whit.verification.restore import LoadedRun


def build_graph(trained: LoadedRun) -> Graph:
    """Return the fused graph of a run's network, from pixels 0..255 to logits.

    Deterministic: the same weights give the same graph. Raises ModelError naming every operation
    that is not supported.
    """
    dataset, recipe = trained.dataset, trained.run.recipe
    model = trained.predictor.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    graph = capture_graph(model, dataset.image_shape, dataset.classes, recipe.name)
    if recipe.qat:
        graph = replace(graph, bits=recipe.qat.bits)
    trained.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    names = {role: f"normalize.{role}" for role in ("scale", "offset")}
    normalization = Operation("normalize", SCALE, (INPUT,), graph.image_shape, {}, names)
    constants = {
        name: getattr(trained.normalize, role).flatten().double() for role, name in names.items()
    }
    graph = replace(graph, constants={**graph.constants, **constants})
    return fuse(prepend(normalization, graph))
