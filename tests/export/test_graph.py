"""One fused graph: equal to the network, as small as it can be, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.zoo import CLASSES, networks, some_images
from whit.errors import ModelError
from whit.export.html.graph_json import graph_json
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.export.ir.graph import Graph, Operation
from whit.export.ir.interpreter import run_graph, run_logits
from whit.export.ir.ops.activation import FUNCTIONS
from whit.export.ir.ops.registry import OP_CONVERTERS, OPERATORS
from whit.export.ir.ops.values import UnsupportedOp
from whit.models.layers import Deskew, MultiColumn, ShiftTTA

EVERY = dict(networks())
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


@cache
def read(name: str) -> Graph:
    return capture_graph(EVERY[name], (1, 28, 28), CLASSES, name)


@pytest.mark.parametrize("name", EVERY)
def test_a_graph_gives_what_the_network_gives(name: str) -> None:
    images = some_images()
    with torch.inference_mode():
        wanted = EVERY[name](images.float())
    graph = read(name)
    for found in (graph, fuse(graph)):
        assert torch.allclose(run_logits(found, images).float(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_folding_leaves_nothing_that_could_go(name: str) -> None:
    graph = fuse(read(name))
    held, readers = graph.constant_users(), graph.consumers()
    made = {op.name: op for op in graph.operations}

    def takes_up(op: Operation) -> bool:
        own = all(held[name] == 1 for name in op.constants.values())
        return op.kind in ("conv", "linear") and own

    for op in graph.operations:
        (source,) = [made[name] for name in op.inputs if name in made][:1] or [None]
        if source is None or readers[source.name] > 1:
            continue
        if op.kind == "scale":
            assert source.kind != "scale"
            assert not takes_up(source)
        elif source.kind == "scale" and takes_up(op):
            assert op.attributes["padding"] != (0, 0)
    assert set(held) == set(graph.constants)
    assert all(tensor.dtype == torch.float32 for tensor in graph.constants.values())


def test_the_zoo_holds_every_kind_and_function() -> None:
    operations = [op for name in EVERY for op in fuse(read(name)).operations]
    kinds = {op.kind for op in operations}
    assert kinds == {
        *("conv", "linear", "flatten", "scale", "activation", "maxpool", "avgpool", "mean"),
        *("add", "subtract", "multiply", "concat", "slice", "pad", "softmax", "log_softmax"),
        "deskew",
    }
    assert kinds == set(OPERATORS)
    functions = {op.attributes["function"] for op in operations if op.kind == "activation"}
    assert functions == set(FUNCTIONS)


def test_shared_weights_are_stored_once() -> None:
    graph = fuse(read("fewest-epochs"))
    holders = [op.name for op in graph.operations if "conv3.weight" in op.constants.values()]
    assert holders == ["conv3", "conv4", "conv5"]
    assert "conv4.weight" not in graph.constants


def test_the_same_weights_give_the_same_bytes() -> None:
    again = capture_graph(EVERY["Branches"], (1, 28, 28), CLASSES, "Branches")
    assert graph_json(fuse(again)) == graph_json(fuse(read("Branches")))


def test_every_value_has_its_shape() -> None:
    graph = fuse(read("Branches"))
    values = run_graph(graph, some_images(2))
    assert {name: tuple(value.shape[1:]) for name, value in values.items()} == {
        name: graph.value_shape(name) for name in ("image", *(op.name for op in graph.operations))
    }


class _Refused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(self.conv(x), scale_factor=2)
        x = torch.cumsum(x, 1)
        return F.adaptive_avg_pool2d(x, 1).flatten(1).sort(1).values


class _Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((1, 2, 3))
        return x.flatten(1)[:, :10] if y.sum() > 0 else x.flatten(1)[:, 10:20]


class _Framed(nn.Module):
    """A 1x1 convolution with a frame of zeros around a map of one number a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 10, 1, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(F.relu(self.conv1(images)), 1)
        mean: Tensor = self.conv2(pooled).mean((2, 3))
        return mean


class _Exchanged(nn.Module):
    """Logits from a map, its channels last."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 10 // places, (28, 29 - places))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.conv(images).permute(0, 2, 3, 1).flatten(1)
        return logits


class _Doing(nn.Module):
    """Something done to ten channels, then their means."""

    channels: Tensor
    one: Tensor

    def __init__(self, does: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.does = does
        self.conv = nn.Conv2d(1, 10, 3)
        self.register_buffer("channels", torch.linspace(-1, 1, 10).view(1, 10, 1, 1))
        self.register_buffer("one", torch.ones(1, 1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.does(self, self.conv(images)).mean((2, 3))


REFUSED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "it cuts values at more than one bound": lambda own, x: torch.clamp(x, min=own.channels),
    "it cuts values at a bound that depends on the image": lambda own, x: torch.clamp(x, max=x + 1),
    "division with rounding by floor": lambda own, x: torch.div(x, 2, rounding_mode="floor"),
    "multiply of one number by several": lambda own, x: (
        x.mean((2, 3), keepdim=True)[:, :1] * own.channels
    ),
    "it uses a cast to int32": lambda own, x: x.int().float(),
    "it uses a cast to float16": lambda own, x: x.half().float(),
    "its answers depend on one, which its forward pass changes": lambda own, x: x * own.one.add_(1),
    "add by a constant of more dimensions": lambda own, x: x.mean((2, 3)) + own.one,
    "it uses mean.dim of a value that was expanded": lambda own, x: (
        x.mean((2, 3), keepdim=True).expand_as(x).relu()
    ),
    "multiply of two values of different shapes": lambda own, x: x * x[:, :, :1],
    "it puts a dimension in front of the batch": lambda own, x: (
        x - x.mean((2, 3))[None].expand(2, -1, -1).mean(1)[:, :, None, None]
    ),
    "it uses a view that mixes the images of a batch": lambda own, x: x.view(-1, 10, 13, 26),
    "it uses a power of 3": lambda own, x: x**3,
    "it takes one channel, row or image out of several": lambda own, x: x[:, :, 5][:, :, None],
    "a pooling of one number a channel": lambda own, x: F.avg_pool2d(
        x.mean((2, 3), keepdim=True), 1, 2
    ),
    "numbers of a map that was flattened in another order": lambda own, x: torch.cat(
        [x.permute(0, 2, 3, 1).flatten(1), x.flatten(1)], 1
    )[:, :10, None, None],
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_stands_between_layers_is_refused_by_name(why: str) -> None:
    with pytest.raises(ModelError, match=why):
        capture_graph(_Doing(REFUSED[why]), (1, 28, 28), CLASSES, "mine")


@pytest.mark.parametrize(
    "does",
    [
        lambda own, x: x.double().float().to(own.one.dtype),
        lambda own, x: x + 0 * len(own.one.add_(1)),
    ],
    ids=["casts", "a count of its own"],
)
def test_what_leaves_the_answer_alone_is_no_operation(
    does: Callable[[Any, Tensor], Tensor],
) -> None:
    model, images = _Doing(does).eval(), some_images(2)
    graph = capture_graph(model, (1, 28, 28), CLASSES, "mine")
    with torch.inference_mode():
        wanted = model(images.float())
    assert torch.allclose(run_logits(graph, images).float(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (ShiftTTA(ShiftTTA(_Exchanged(1), 5), 5), "views of a network with views"),
        (
            nn.Sequential(ShiftTTA(_Exchanged(1), 5), nn.ReLU()),
            "its Views are not around all of it",
        ),
        (nn.Sequential(Deskew(), Deskew(), _Exchanged(1)), "it deskews what is deskewed"),
        (MultiColumn(one=ShiftTTA(_Exchanged(1), 5)), "views of a column"),
        (
            nn.Sequential(MultiColumn(one=_Exchanged(1)), nn.ReLU()),
            "its Columns are not around all",
        ),
    ],
)
def test_looks_that_no_graph_can_hold_are_refused(model: nn.Module, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        capture_graph(model, (1, 28, 28), CLASSES, "mine")


def test_a_handler_that_fails_refuses_by_name_and_shows_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*given: Any) -> None:
        raise IndexError("a mistake")

    monkeypatch.setitem(OP_CONVERTERS, "abs", failing)
    said = r"it uses abs in a way that has no plain form here"
    with pytest.raises(ModelError, match=said) as refused:
        capture_graph(_Doing(lambda own, x: x.abs()), (1, 28, 28), CLASSES, "mine")
    causes = [refused.value.__cause__, getattr(refused.value.__cause__, "__cause__", None)]
    assert [type(cause) for cause in causes] == [UnsupportedOp, IndexError]


def test_what_has_no_plain_form_is_refused_by_name() -> None:
    with pytest.raises(ModelError) as refused:
        capture_graph(_Refused(), (1, 28, 28), CLASSES, "mine")
    said = str(refused.value)
    assert "mine: cannot be exported: it uses upsample_nearest2d" in said
    with pytest.raises(ModelError, match="no fixed list of operations"):
        capture_graph(_Decides(), (1, 28, 28), CLASSES, "mine")
    with pytest.raises(ModelError, match="a convolution with padding of a map of 1x1"):
        capture_graph(_Framed(), (1, 28, 28), CLASSES, "mine")
    with pytest.raises(ModelError, match="its logits are the numbers of a map"):
        capture_graph(_Exchanged(5), (1, 28, 28), CLASSES, "mine")
    assert capture_graph(_Exchanged(1), (1, 28, 28), CLASSES, "mine").output
