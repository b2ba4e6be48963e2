"""Operators that only ONNX has: equal to torch on 1,000 images, and refused by name elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from export import read
from export.tensor_zoo import CASES, Network, network
from export.zoo import CLASSES, some_images
from whit.errors import ModelError
from whit.export.c.float_lowering import float_program
from whit.export.html.graph_json import graph_json
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.export.ir.graph import Graph
from whit.export.ir.interpreter import run_logits
from whit.export.ir.ops.registry import OPERATORS
from whit.export.onnx import onnx_bytes, onnx_logits
from whit.export.quantization.quantize import quantize

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


@cache
def images() -> Tensor:
    return read.trained().split.images[:1000]


def captured(model: nn.Module) -> Graph:
    return fuse(capture_graph(model, (1, 28, 28), CLASSES, "mine"))


def is_near(ours: Tensor, theirs: Tensor) -> bool:
    size = theirs.abs().amax().clamp(min=1)
    return bool((ours - theirs).abs().max() <= 2e-5 * size)


@pytest.mark.parametrize("name", CASES)
def test_a_file_computes_what_the_network_computes(name: str) -> None:
    model = network(name)
    with torch.inference_mode():
        expected = model(images().float())
    assert expected.std(0).min() > 0  # else this shows nothing
    graph = captured(model)
    content = onnx_bytes(graph)
    assert is_near(onnx_logits(content, images()), expected)
    assert is_near(run_logits(graph, images()[:9]), expected[:9])
    for count in (1, 3):  # the batch dimension is free
        assert is_near(onnx_logits(content, images()[:count]), expected[:count])
    made = onnx.load_from_string(content)
    sizes = made.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in sizes] == ["N", 1, 28, 28]
    (opset,) = made.opset_import
    assert (opset.domain, opset.version) == ("", 20)


def test_these_networks_cover_every_operator() -> None:
    names = (
        *("group norm", "layer norm of rows", "rms norm", "transposed", "convolution of rows"),
        *("bicubic, align_corners=False, {'size': 5}", "elementwise", "reductions", "rearranged"),
        *("products", "patches", "multi-head, padded keys", "GRU, last step", "encoder"),
    )
    kinds = {op.kind for name in names for op in captured(network(name)).operations}
    only_onnx = {kind for kind, operator in OPERATORS.items() if operator.targets == {"onnx"}}
    assert only_onnx - kinds == set()


def test_the_same_weights_give_the_same_bytes() -> None:
    contents = [onnx_bytes(captured(network("patches"))) for _ in range(2)]
    assert contents[0] == contents[1]


def test_frozen_parameters_do_not_matter() -> None:
    """Without gradients, torch computes an encoder by another operator."""
    model = network("encoder").requires_grad_(False)
    with torch.no_grad():
        graph = captured(model)
        expected = model(some_images().float())
    assert is_near(onnx_logits(onnx_bytes(graph), some_images()), expected)


def test_several_shifts_are_averaged() -> None:
    from whit.models.tta import ShiftTTA

    model = ShiftTTA(network("GRU, last step"), 4).eval()
    with torch.inference_mode():
        expected = model(some_images().float())
    assert is_near(onnx_logits(onnx_bytes(captured(model)), some_images()), expected)


# Names of networks, and the layer and the operator that a message names.
NAMED = {
    "group norm": r"the operator group_norm is not supported \(layer norm \(GroupNorm\)",
    "layer norm of all dims": r"layer_norm is not supported \(layer norm \(LayerNorm\)",
    "instance norm": r"instance_norm is not supported \(layer norm \(InstanceNorm2d\)",
    "bicubic, align_corners=True, {'size': 5}": r"line \d+ of functional.py|tensor_zoo.py",
    "nearest, factor": "the operator upsample_nearest2d.vec is not supported",
    "transposed": r"conv_transpose2d.input is not supported \(layer up \(ConvTranspose2d\)",
    "pixel shuffle": "the operator pixel_shuffle is not supported",
    "pixel unshuffle": "the operator pixel_unshuffle is not supported",
    "adaptive max pooling to 5": "adaptive pooling from 13x13 to 5x5, whose windows differ",
    "attention": "the operator scaled_dot_product_attention is not supported",
    "multi-head": r"attention \(MultiheadAttention\)",
    "GRU, last step": r"the operator gru.input is not supported \(layer rnn \(GRU\)",
    "LSTM, last step": r"the operator lstm.input is not supported \(layer rnn \(LSTM\)",
    "U-Net": r"the operator group_norm is not supported \(layer first.1 \(GroupNorm\).* and 1 more",
}


@pytest.mark.parametrize("name", NAMED)
def test_other_targets_refuse_them_by_name(name: str) -> None:
    graph = captured(network(name))
    for where, export in (("to c", float_program), ("to html", graph_json)):
        with pytest.raises(ModelError, match=NAMED[name]) as caught:
            export(graph)
        assert f"mine: cannot be exported {where}: " in str(caught.value)
        assert "--format onnx supports it" in str(caught.value)
    with pytest.raises(ModelError, match=NAMED[name]) as caught:
        quantize(graph, some_images())
    assert "omit --int8" in str(caught.value)


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "lstm with proj_size is not supported": lambda: Network(
        lambda m, x: m.rnn(x.squeeze(1))[0][:, -1],
        rnn=nn.LSTM(28, 7, proj_size=3, batch_first=True),
    ),
    "gru over the images of a batch is not supported: is batch_first right": lambda: Network(
        lambda m, x: m.rnn(x.squeeze(1))[0][:, -1], rnn=nn.GRU(28, 7)
    ),
    "of a packed sequence is not supported|cannot trace": lambda: Network(
        lambda m, x: m.rnn(pack_padded_sequence(x[:, 0], torch.full((len(x),), 9), True))[1][0],
        rnn=nn.GRU(28, 7, batch_first=True),
    ),
    "attention with dropout in evaluation mode": lambda: Network(
        lambda m, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1)
    ),
    "a mask that depends on the image": lambda: Network(
        lambda m, x: F.scaled_dot_product_attention(x, x, x, x > 0)
    ),
    "attention over the images of a batch": lambda: Network(
        lambda m, x: (lambda y: F.scaled_dot_product_attention(y, y, y).movedim(1, 0))(
            x.squeeze(1).transpose(0, 1)
        )
    ),
    "layer_norm over the images of a batch": lambda: Network(
        lambda m, x: F.layer_norm(x.squeeze(1).permute(1, 0, 2), (len(x), 28)).permute(1, 0, 2)
    ),
    "the operator upsample_trilinear3d.vec is not supported": lambda: Network(
        lambda m, x: F.interpolate(x[:, None], scale_factor=2, mode="trilinear")
    ),
    "the operator sort is not supported": lambda: Network(lambda m, x: x.squeeze(1).sort(1)[0]),
    "the operator argmax is not supported": lambda: Network(
        lambda m, x: x.squeeze(1).argmax(1).float()
    ),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("why", REFUSED)
def test_what_onnx_lacks_is_refused_by_name(why: str) -> None:
    with pytest.raises(ModelError, match=why):
        captured(REFUSED[why]())


def test_attention_among_learned_queries_is_a_constant() -> None:
    """Attention is tagged as random, although it draws nothing without dropout."""
    layer = nn.TransformerDecoderLayer(28, 4, 32, batch_first=True)
    queries = nn.Parameter(torch.randn(1, 5, 28))
    model = Network(
        lambda m, x: m.decoder(m.queries.expand(len(x), -1, -1), x.squeeze(1)),
        decoder=layer,
        queries=queries,
    )
    with torch.inference_mode():
        expected = model(some_images().float())
    assert is_near(onnx_logits(onnx_bytes(captured(model)), some_images()), expected)


REASONS: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "indices of a maximum": (
        lambda m, x: x.max(1)[1].float(),
        "output 1 of the operator max.dim is not supported",
    ),
    "rrelu, which draws in training only": (
        lambda m, x: F.rrelu(x, 0.1, 0.4, training=False),
        "the operator rrelu is not supported",
    ),
    "rrelu that draws": (
        lambda m, x: F.rrelu(x, 0.1, 0.4, training=True),
        "draws random numbers in evaluation mode",
    ),
    "a branch by values": (
        lambda m, x: x if x.sum() > 0 else -x,
        "takes another path for other images, as an `if` or `.item()` of a tensor does",
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_the_reason_of_a_refusal_is_right(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    function, reason = REASONS[name]
    with pytest.raises(ModelError, match=re.escape(reason)):
        captured(Network(function))
    assert capfd.readouterr() == ("", "")  # torch.export prints nothing


def test_a_buffer_of_indices_is_read() -> None:
    """As in windows of a transformer with relative positions."""

    class Relative(nn.Module):
        index: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(55, 1))
            rows = torch.arange(28)
            self.register_buffer("index", rows[:, None] - rows[None] + 27)
            self.head = nn.Linear(28, 10)

        def forward(self, x: Tensor) -> Any:
            rows = x.squeeze(1) / 255
            bias = self.table[self.index.view(-1)].view(28, 28)
            return self.head(((rows @ rows.mT + bias).softmax(-1) @ rows).mean(1))

    model = Relative().eval()
    with torch.inference_mode():
        expected = model(some_images().float())
    assert is_near(onnx_logits(onnx_bytes(captured(model)), some_images()), expected)
