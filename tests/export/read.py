"""The fused graphs of the test networks and of a recorded run, cached."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch import nn

from export.zoo import CLASSES, OTHERS, networks
from harness.records import KEPT
from whit.export.ir.build import build_graph
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.export.ir.graph import Graph
from whit.export.quantization.quantize import QuantizedProgram, quantize
from whit.recipes.recipe import builtin_recipes
from whit.runs.reader import read_run
from whit.verification.restore import LoadedRun, load_run_model

NAMES = (*builtin_recipes(), *(kind.__name__ for kind in OTHERS))


@cache
def _networks() -> dict[str, nn.Module]:
    return dict(networks())


def network(name: str) -> nn.Module:
    return _networks()[name]


@cache
def graph(name: str) -> Graph:
    return fuse(capture_graph(network(name), (1, 28, 28), CLASSES, name))


def recorded(seed: int) -> Path:
    return KEPT / f"seed-{seed}"


@cache
def trained(seed: int = 0) -> LoadedRun:
    return load_run_model(read_run(recorded(seed)))


@cache
def trained_graph(seed: int = 0) -> Graph:
    return build_graph(trained(seed))


@cache
def trained_int8(seed: int = 0) -> QuantizedProgram:
    return quantize(trained_graph(seed), trained(seed).dataset.train.images)
