"""Max pooling within a convolution: the same bits as one after the other, and where it applies."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.export.c.compile import c_logits
from whit.export.c.source import c_files, memory_bytes
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.export.program import LOGIT_SCALE, Program
from whit.export.quantization import quantize as quantization
from whit.export.quantization.pool_fusion import fuse_max_pools
from whit.export.quantization.reference import int8_logits

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
BUILDS = (("-O2", "-DSMALL_TILES"), ("-O3", "-march=native"))


class _Pooled(nn.Module):
    """A convolution, a 2x2 pooling of its output, and a head."""

    def __init__(self, conv: nn.Conv2d, pool: nn.Module | None = None):
        super().__init__()
        self.conv, self.pool = conv, pool or nn.MaxPool2d(2)
        size = self.pool(conv(torch.zeros(1, conv.in_channels, 9, 7))).shape[2:]
        self.head = nn.Conv2d(conv.out_channels, 4, size)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.relu(self.pool(self.conv(images)))).flatten(1)  # type: ignore[no-any-return]


class _UsedTwice(_Pooled):
    """The map in front of the pooling has another consumer."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        pooled = self.head(self.pool(features)).flatten(1)
        return pooled + features.mean((2, 3))[:, :4]


CONVS = {
    "odd map": lambda: nn.Conv2d(1, 5, 3, padding=1),
    "many channels": lambda: nn.Conv2d(13, 41, 3, padding=1),
    "stride": lambda: nn.Conv2d(5, 7, 3, stride=2, padding=(1, 2)),
    "groups": lambda: nn.Conv2d(6, 9, 3, groups=3),
    "1x1": lambda: nn.Conv2d(67, 9, 1),
}


def unfused(model: nn.Module, channels: int, monkeypatch: pytest.MonkeyPatch) -> Program:
    images = torch.randint(0, 256, (6, channels, 9, 7), dtype=torch.uint8)
    graph = fuse(capture_graph(model.eval(), (channels, 9, 7), tuple("abcd"), "pooled"))
    with monkeypatch.context() as patch:
        patch.setattr(quantization, "fuse_max_pools", lambda program: program)
        return quantization.quantize(graph, images).program


@needs_cc
@pytest.mark.parametrize("flags", BUILDS, ids=["small", "wide"])
@pytest.mark.parametrize("name", CONVS)
def test_the_bits_are_those_of_one_after_the_other(
    name: str, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For positive factors of channels and negative ones."""
    torch.manual_seed(1)
    conv = CONVS[name]()
    program = unfused(_Pooled(conv), conv.in_channels, monkeypatch)
    step = program.steps[0]
    factor = program.constants[step.constants["factor"]].astype(np.int16)
    factor[::2] *= -1
    constants = {**program.constants, step.constants["factor"]: factor}
    settings = {**step.settings, "types": ("int16", step.settings["types"][1])}
    steps = (replace(step, settings=settings), *program.steps[1:])
    program = replace(program, steps=steps, constants=constants)
    fused = fuse_max_pools(program)
    assert [step.kind for step in program.steps[:2]] == ["conv", "maxpool"]
    assert fused.steps[0].kind == "conv_maxpool"
    assert len(fused.steps) == len(program.steps) - 1
    images = torch.randint(0, 256, (20, conv.in_channels, 9, 7), dtype=torch.uint8)
    expected = int8_logits(program, images)
    assert len(np.unique(expected)) > 10
    assert (int8_logits(fused, images) == expected).all()
    compiled = c_logits(fused, c_files(fused, "A network."), images, flags) * LOGIT_SCALE
    assert (compiled.numpy() == expected).all()
    assert memory_bytes(fused) < memory_bytes(program)


@pytest.mark.parametrize(
    "model",
    [
        _Pooled(nn.Conv2d(2, 5, 3), nn.MaxPool2d(3)),
        _Pooled(nn.Conv2d(2, 5, 3), nn.MaxPool2d(2, 1)),
        _Pooled(nn.Conv2d(2, 5, 3), nn.MaxPool2d(2, padding=1)),
        _Pooled(nn.Conv2d(2, 5, 3), nn.AvgPool2d(2)),
        _Pooled(nn.Conv2d(4, 4, 3, groups=4)),
        _UsedTwice(nn.Conv2d(2, 4, 3)),
    ],
    ids=["3x3", "stride", "padding", "average", "depthwise", "used twice"],
)
def test_other_poolings_stay_steps_of_their_own(
    model: _Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = unfused(model, model.conv.in_channels, monkeypatch)
    assert fuse_max_pools(program).steps == program.steps
