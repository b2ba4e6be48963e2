"""The fused graph: equivalent to the model, minimal, reproducible."""

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
from whit.export.ir.ops.tensors.convert import TENSOR_CONVERTERS
from whit.export.ir.ops.values import UnsupportedOp
from whit.export.ir.support import require_supported
from whit.export.onnx import onnx_bytes, onnx_logits
from whit.models.layers import Deskew, MultiColumn
from whit.models.tta import ShiftTTA

EVERY = dict(networks())
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


@cache
def read(name: str) -> Graph:
    return capture_graph(EVERY[name], (1, 28, 28), CLASSES, name)


@pytest.mark.parametrize("name", EVERY)
def test_a_graph_computes_what_the_model_computes(name: str) -> None:
    images = some_images()
    with torch.inference_mode():
        expected = EVERY[name](images.float())
    graph = read(name)
    for found in (graph, fuse(graph)):
        assert torch.allclose(run_logits(found, images).float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_fusion_is_complete(name: str) -> None:
    graph = fuse(read(name))
    users, consumers = graph.constant_users(), graph.consumers()
    producers = {op.name: op for op in graph.operations}

    def can_absorb(op: Operation) -> bool:
        is_exclusive = all(users[name] == 1 for name in op.constants.values())
        return op.kind in ("conv", "linear") and is_exclusive

    for op in graph.operations:
        (source,) = [producers[name] for name in op.inputs if name in producers][:1] or [None]
        if source is None or consumers[source.name] > 1:
            continue
        if op.kind == "scale":
            assert source.kind != "scale"
            assert not can_absorb(source)
        elif source.kind == "scale" and can_absorb(op):
            assert op.attributes["padding"] != (0, 0)
    assert set(users) == set(graph.constants)
    assert all(tensor.dtype == torch.float32 for tensor in graph.constants.values())


def test_the_test_networks_cover_every_operator_and_activation() -> None:
    operations = [op for name in EVERY for op in fuse(read(name)).operations]
    kinds = {op.kind for op in operations}
    assert kinds == {
        *("conv", "linear", "flatten", "scale", "activation", "maxpool", "avgpool", "mean"),
        *("add", "subtract", "multiply", "concat", "slice", "pad", "softmax", "log_softmax"),
        *("deskew", "constant"),
    }
    assert kinds == {kind for kind, operator in OPERATORS.items() if "c" in operator.targets}
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


class _Unsupported(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fft.rfft(self.conv(x)).abs()
        return torch.cummax(F.adaptive_avg_pool2d(x, 1).flatten(1), 1).values.sort(1).values


class _DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((1, 2, 3))
        return x.flatten(1)[:, :10] if y.sum() > 0 else x.flatten(1)[:, 10:20]


class _PaddedConv1x1(nn.Module):
    """A 1x1 convolution with padding of a 1x1 map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 10, 1, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(F.relu(self.conv1(images)), 1)
        mean: Tensor = self.conv2(pooled).mean((2, 3))
        return mean


class _ChannelsLast(nn.Module):
    """Logits from a map in channels-last order."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 10 // pixels, (28, 29 - pixels))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.conv(images).permute(0, 2, 3, 1).flatten(1)
        return logits


class _Applies(nn.Module):
    """A function of ten channels, then global average pooling."""

    channels: Tensor
    one: Tensor

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(1, 10, 3)
        self.register_buffer("channels", torch.linspace(-1, 1, 10).view(1, 10, 1, 1))
        self.register_buffer("one", torch.ones(1, 1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self, self.conv(images)).mean((2, 3))


# By C, HTML and int8; ONNX has them.
ONLY_ONNX: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "clamp is supported with scalar bounds only": lambda module, x: torch.clamp(
        x, min=module.channels
    ),
    "clamp is supported with constant bounds only": lambda module, x: torch.clamp(x, max=x + 1),
    "multiply that broadcasts one channel to several is not supported": lambda module, x: (
        x.mean((2, 3), keepdim=True)[:, :1] * module.channels
    ),
    "add with a constant of more dimensions": lambda module, x: (x.mean((2, 3)) + module.one)[0, 0][
        :, :, None, None
    ],
    "the operator mean.dim is not supported on an expanded tensor": lambda module, x: (
        x.mean((2, 3), keepdim=True).expand_as(x).relu()
    ),
    "multiply of these two shapes is not supported": lambda module, x: x * x[:, :, :1],
    "adding a dimension before the batch dimension": lambda module, x: (
        x - x.mean((2, 3))[None].expand(2, -1, -1).mean(0)[:, :, None, None]
    ),
    "a view that changes the batch dimension": lambda module, x: (
        x.view(-1, 10, 13, 26).relu().view(-1, 10, 26, 26)
    ),
    "a power with exponent 3 is not supported": lambda module, x: x**3,
    "selecting one channel, row, column or image": lambda module, x: x[:, :, 5][:, :, None],
    "pooling of one value per channel": lambda module, x: F.avg_pool2d(
        x.mean((2, 3), keepdim=True), 1, 2
    ),
    "a map flattened in another order than CHW": lambda module, x: torch.cat(
        [x.permute(0, 2, 3, 1).flatten(1), x.flatten(1)], 1
    )[:, :10, None, None],
}
REFUSED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "division with rounding_mode='floor' is not supported": lambda module, x: torch.div(
        x, 2, rounding_mode="floor"
    ),
    "a cast to int32 is not supported": lambda module, x: x.int().float(),
    "a cast to float16 is not supported": lambda module, x: x.half().float(),
    "depends on the buffer one, which its forward pass modifies": lambda module, x: (
        x * module.one.add_(1)
    ),
    "mean.dim over the images of a batch": lambda module, x: x - x.mean(0, keepdim=True),
    "softmax.int over the images of a batch": lambda module, x: x.softmax(0),
    "a value that relates the images of a batch": lambda module, x: (
        x.mean((2, 3)) @ x.mean((2, 3)).t()
    )[:, :1, None, None],
    "dropout that is active in evaluation mode": lambda module, x: F.dropout(x, 0.5),
    "the operator rand draws random numbers": lambda module, x: x * torch.rand(1, 10, 1, 1),
    "a constant that differs from image to image": lambda module, x: (
        x + torch.arange(len(x)).float().view(-1, 1, 1, 1)
    ),
}


@pytest.mark.parametrize("why", ONLY_ONNX)
def test_an_operation_of_onnx_alone_is_named(why: str) -> None:
    model, images = _Applies(ONLY_ONNX[why]).eval(), some_images(2)
    graph = capture_graph(model, (1, 28, 28), CLASSES, "mine")
    with torch.inference_mode():
        expected = model(images.float())
    assert torch.allclose(run_logits(graph, images).float(), expected, rtol=1e-4, atol=1e-4)
    assert torch.allclose(
        onnx_logits(onnx_bytes(fuse(graph)), images), expected, rtol=1e-4, atol=1e-4
    )
    for target in ("c", "html"):
        with pytest.raises(ModelError, match=why) as caught:
            require_supported(graph, target)
        assert "line " in str(caught.value)  # of the function in this file
        assert f"cannot be exported to {target}" in str(caught.value)
        assert "--format onnx supports it" in str(caught.value)


@pytest.mark.parametrize("why", REFUSED)
def test_an_unsupported_operation_is_named(why: str) -> None:
    with pytest.raises(ModelError, match=why):
        capture_graph(_Applies(REFUSED[why]), (1, 28, 28), CLASSES, "mine")


@pytest.mark.parametrize(
    "function",
    [
        lambda module, x: x.double().float().to(module.one.dtype),
        lambda module, x: x + 0 * len(module.one.add_(1)),
    ],
    ids=["casts", "a counter"],
)
def test_what_does_not_affect_the_output_is_no_operation(
    function: Callable[[Any, Tensor], Tensor],
) -> None:
    model, images = _Applies(function).eval(), some_images(2)
    graph = capture_graph(model, (1, 28, 28), CLASSES, "mine")
    with torch.inference_mode():
        expected = model(images.float())
    assert torch.allclose(run_logits(graph, images).float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (
            ShiftTTA(ShiftTTA(_ChannelsLast(1), 4), 4),
            "test-time augmentation within test-time augmentation",
        ),
        (
            nn.Sequential(ShiftTTA(_ChannelsLast(1), 4), nn.ReLU()),
            "its test-time augmentation is not the outermost module",
        ),
        (nn.Sequential(Deskew(), Deskew(), _ChannelsLast(1)), "it deskews its input twice"),
        (
            MultiColumn(one=ShiftTTA(_ChannelsLast(1), 4)),
            "test-time augmentation of a single column",
        ),
        (
            nn.Sequential(MultiColumn(one=_ChannelsLast(1)), nn.ReLU()),
            "its multi-column network is not the outermost module",
        ),
    ],
)
def test_unsupported_nesting_is_refused(model: nn.Module, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        capture_graph(model, (1, 28, 28), CLASSES, "mine")


def test_a_converter_that_fails_names_the_operator_and_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*given: Any) -> None:
        raise IndexError("a bug")

    monkeypatch.setitem(OP_CONVERTERS, "abs", failing)
    monkeypatch.delitem(TENSOR_CONVERTERS, "abs")
    message = r"the operator abs is not supported with these arguments"
    with pytest.raises(ModelError, match=message) as caught:
        capture_graph(_Applies(lambda module, x: x.abs()), (1, 28, 28), CLASSES, "mine")
    causes = [caught.value.__cause__, getattr(caught.value.__cause__, "__cause__", None)]
    assert [type(cause) for cause in causes] == [UnsupportedOp, IndexError]


def test_unsupported_models_are_refused() -> None:
    with pytest.raises(ModelError) as caught:
        capture_graph(_Unsupported(), (1, 28, 28), CLASSES, "mine")
    message = str(caught.value)
    assert "mine: cannot be exported: the operator fft_rfft" in message
    with pytest.raises(ModelError, match="takes another path for other images"):
        capture_graph(_DataDependent(), (1, 28, 28), CLASSES, "mine")
    graph = capture_graph(_PaddedConv1x1(), (1, 28, 28), CLASSES, "mine")
    with pytest.raises(ModelError, match=r"a convolution of a 1x1 map with.*conv2 \(Conv2d\)"):
        require_supported(graph, "c")
    with pytest.raises(ModelError, match="its logits are a flattened map"):
        capture_graph(_ChannelsLast(5), (1, 28, 28), CLASSES, "mine")
    assert capture_graph(_ChannelsLast(1), (1, 28, 28), CLASSES, "mine").output
