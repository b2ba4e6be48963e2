"""Deskewing in every export format as in torch: digits, and degenerate images."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor, nn

from whit.data.datasets import load_dataset
from whit.errors import ModelError
from whit.export.c.compile import c_logits
from whit.export.c.float_lowering import float_program
from whit.export.c.source import c_files
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.export.ir.graph import Graph
from whit.export.ir.interpreter import run_logits
from whit.export.onnx import onnx_bytes, onnx_logits
from whit.export.program import LOGIT_SCALE
from whit.export.quantization.quantize import quantize
from whit.export.quantization.reference import int8_logits
from whit.models.layers import Deskew

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
DEGENERATE = ("blank", "white", "a dot", "a row", "a column", "steep", "flat", "corners")


def degenerate(name: str) -> Tensor:
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    if name == "white":
        image += 255
    elif name == "a dot":
        image[0, 3, 20] = 200
    elif name == "a row":
        image[0, 9, 4:20] = 255
    elif name == "a column":
        image[0, 4:20, 9] = 1
    elif name == "corners":
        image[0, [0, 0, 27, 27], [0, 27, 0, 27]] = torch.tensor([255, 3, 9, 255], dtype=torch.uint8)
    elif name == "steep":
        image[0, range(28), [13 + y // 9 for y in range(28)]] = 255
    elif name == "flat":  # two rows: shifted by more than the width of the image
        image[0, 13, :14] = image[0, 14, 14:] = 255
    return image


def some_digits(channels: int) -> Tensor:
    digits = load_dataset("mnist").test.images[: 20 * channels].view(20, channels, 28, 28)
    hard = torch.stack([degenerate(name).expand(channels, 28, 28) for name in DEGENERATE])
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (4, channels, 28, 28), generator=generator, dtype=torch.uint8)
    return torch.cat([digits, hard, noise])


def network(channels: int) -> tuple[nn.Module, Graph]:
    """A network with one weight per pixel, so that every shift changes its output."""
    torch.manual_seed(0)
    model = nn.Sequential(Deskew(), nn.Conv2d(channels, 3, 28), nn.Flatten()).eval()
    return model, fuse(capture_graph(model, (channels, 28, 28), ("a", "b", "c"), "deskewed"))


@needs_cc
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_deskews_alike(channels: int) -> None:
    model, graph = network(channels)
    images = some_digits(channels)
    with torch.inference_mode():
        expected = model(images.double().float())
    assert graph.operations[0].kind == "deskew"
    near = {"rtol": 1e-4, "atol": 0.02}  # of logits of some hundreds
    assert expected.abs().max() > 50
    torch.testing.assert_close(run_logits(graph, images), expected, **near)
    torch.testing.assert_close(onnx_logits(onnx_bytes(graph), images), expected, **near)
    program = float_program(graph)
    compiled = c_logits(program, c_files(program, "A network."), images)
    torch.testing.assert_close(compiled.float(), expected, **near)


@needs_cc
@pytest.mark.parametrize("channels", [1, 3])
def test_int8_deskews_alike(channels: int) -> None:
    _, graph = network(channels)
    images = some_digits(channels)
    program = quantize(graph, images).program
    logits = int8_logits(program, images)
    compiled = c_logits(program, c_files(program, "A network."), images) * LOGIT_SCALE
    assert (compiled.numpy() == logits).all()
    expected = run_logits(graph, images)
    # Errors of 8-bit weights and of pixels rounded to integers.
    error = (torch.from_numpy(logits) / LOGIT_SCALE - expected).square().mean().sqrt()
    assert error < 0.01 * expected.abs().max()


def test_deskew_is_supported_as_the_first_layer_only() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Deskew(), nn.Conv2d(2, 3, 26), nn.Flatten())
    with pytest.raises(ModelError, match="is not supported"):
        capture_graph(model, (1, 28, 28), ("a", "b", "c"), "late")
