"""Weights and constants computed in the forward pass are folded: results equal, sizes the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from export.test_onnx import near
from export.zoo import CLASSES, StandardizedConv2d, as_if_trained, some_images
from whit.export.c.compile import c_logits
from whit.export.c.float_lowering import float_program
from whit.export.c.source import c_files
from whit.export.html.graph_json import graph_json
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.export.ir.graph import Graph
from whit.export.ir.interpreter import run_logits
from whit.export.onnx import onnx_bytes, onnx_logits
from whit.export.quantization.quantize import quantize
from whit.export.quantization.reference import int8_logits

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")


class _Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return (weight + weight.flip(-1)) / 2


def parametrized(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", _Symmetric())
    return layer


# Each returns a layer that computes its weight in the forward pass.
WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm, hook": nn.utils.weight_norm,
    "weight norm of all, hook": lambda layer: nn.utils.weight_norm(layer, dim=None),
    "weight norm": parametrizations.weight_norm,
    "weight norm, dimension 1": lambda layer: parametrizations.weight_norm(layer, dim=1),
    "spectral norm, hook": nn.utils.spectral_norm,
    "spectral norm": lambda layer: parametrizations.spectral_norm(layer, n_power_iterations=3),
    "both": lambda layer: parametrizations.spectral_norm(parametrizations.weight_norm(layer)),
    "a parametrization": parametrized,
}


class Net(nn.Sequential):
    """The second convolution is called twice."""

    def __init__(self, wrap: Callable[[nn.Module], nn.Module], conv: type[nn.Conv2d]):
        again = wrap(conv(4, 4, 3))
        head = wrap(nn.Linear(4, 10))
        first = [wrap(conv(1, 4, 3, 2)), nn.BatchNorm2d(4), nn.ReLU()]
        super().__init__(
            *first, again, nn.ReLU(), again, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head
        )


def captured(model: nn.Module) -> Graph:
    return fuse(capture_graph(model, (1, 28, 28), CLASSES, "folded"))


def check(model: nn.Module) -> Graph:
    images = some_images(4)
    with torch.inference_mode():
        expected = model(images.float())
    graph = captured(model)
    with torch.inference_mode():
        assert torch.equal(model(images.float()), expected)  # the model is left as it was
    assert near(run_logits(graph, images), expected)
    assert near(onnx_logits(onnx_bytes(graph), images), expected)
    program = float_program(graph)
    if shutil.which("cc"):
        assert near(c_logits(program, c_files(program, "."), images, ["-O0"]).float(), expected)
    assert program.constant_bytes == 4 * graph.num_constants
    assert int8_logits(quantize(graph, images).program, images).shape == (4, 10)
    return graph


@pytest.mark.parametrize("name", [*WRAPPERS, "weight standardization"])
def test_computed_weights_are_folded(name: str) -> None:
    torch.manual_seed(0)
    conv = StandardizedConv2d if name == "weight standardization" else nn.Conv2d
    model = Net(WRAPPERS.get(name, lambda layer: layer), conv)
    with torch.no_grad():
        for _ in range(20):  # spectral norm estimates its singular vectors
            model(some_images(4).float())
    as_if_trained(model)
    plain = captured(as_if_trained(Net(lambda layer: layer, nn.Conv2d)))
    graph = check(model)
    assert graph.num_constants == plain.num_constants
    assert len(graph_json(graph)["weights"]) == len(graph_json(plain)["weights"])
    assert len(onnx_bytes(graph)) == len(onnx_bytes(plain))
    kinds = [op.kind for op in graph.operations]
    assert kinds == [op.kind for op in plain.operations]


class Base(nn.Module):
    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 10, 3, 2)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).mean((2, 3))


class CachedGrid(Base):
    """Made in the first forward pass and kept."""

    grid: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None:
            self.grid = torch.linspace(-90, 90, 28).expand(1, 1, 28, 28)
        return self.body(torch.cat([x, self.grid.expand(len(x), 1, 28, 28)], 1))


class LazyBuffer(Base):
    """Made in the first forward pass as a buffer."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "grid"):
            grid = torch.linspace(-90, 90, 28).expand(1, 1, 28, 28).contiguous()
            self.register_buffer("grid", grid)
        return self.body(torch.cat([x, self.grid.expand(len(x), 1, 28, 28)], 1))


class Mixed(Base):
    """A matrix computed from buffers, sines of positions, and a mask by comparison."""

    def __init__(self) -> None:
        super().__init__(1)
        self.register_buffer("steps", torch.arange(10))

    def forward(self, x: Tensor) -> Tensor:
        mask = (torch.arange(28)[:, None] - torch.arange(28)).abs() < 9
        angles = self.steps[:, None] * torch.exp(self.steps / -3.0)
        mixed = self.body(x * mask + 50 * angles.sin().mean()) @ torch.softmax(angles, 1).t()
        return mixed + angles.cos().sum(0) * torch.ones(len(x), 1)


@pytest.mark.parametrize("model", [CachedGrid, LazyBuffer, Mixed])
def test_computed_constants_are_folded(model: type[nn.Module]) -> None:
    torch.manual_seed(0)
    fresh = model().eval()
    used = deepcopy(fresh)
    used(some_images(3).float())
    first, second = check(fresh), check(used)
    assert first.num_constants == second.num_constants


def test_a_constant_used_twice_is_stored_once() -> None:
    class Twice(Base):
        def __init__(self) -> None:
            super().__init__(1)
            self.kernel = nn.Parameter(torch.linspace(-1, 1, 9).view(1, 1, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2):
                weight = self.kernel - self.kernel.mean()
                x = F.conv2d(x, weight / weight.norm())
            return self.body(x)

    graph = check(Twice().eval())
    assert graph.num_constants == 9 + 1 + 1 + 10 * 9 + 10
