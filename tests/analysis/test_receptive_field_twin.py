"""Receptive fields against what the output depends on, by gradient, and MACs against torch's count.

Run: pytest tests/analysis/test_receptive_field_twin.py
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from whit.analysis import audit_model

SIZE = 24  # pixels; after the 3x3 convolution that each network begins with, a map of 22x22


class Network(nn.Module):
    """A 3x3 convolution to four channels, then `forward(parts, map)`."""

    def __init__(self, forward, **parts: nn.Module | nn.Parameter):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        for name, part in parts.items():
            setattr(self, name, part)
        self._written = (forward,)

    def forward(self, x: Tensor) -> Tensor:
        return self._written[0](self, self.conv(x))


def then(module: nn.Module) -> Network:
    return Network(lambda m, x: m.a(x), a=module)


def c(k: int | tuple[int, int], **options) -> nn.Conv2d:
    return nn.Conv2d(4, 4, k, **options)


ACTIVATIONS = (
    *("ELU", "Hardshrink", "Hardsigmoid", "Hardtanh", "Hardswish", "LeakyReLU", "LogSigmoid"),
    *("PReLU", "ReLU", "ReLU6", "RReLU", "SELU", "CELU", "GELU", "Sigmoid", "SiLU", "Mish"),
    *("Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink"),
)
FUNCTIONS = ("atan", "sinh", "expm1", "erf", "sin", "square", "asinh", "exp2")

# name: network, a kind that it has
CASES: dict[str, tuple[nn.Module, str]] = {
    **{name: (then(getattr(nn, name)()), "activation") for name in ACTIVATIONS},
    **{
        name: (Network(lambda m, x, name=name: getattr(torch, name)(x)), "activation")
        for name in FUNCTIONS
    },
    "ReLU": (then(nn.ReLU()), "relu"),
    "Threshold": (then(nn.Threshold(0.1, 0.0)), "activation"),
    "GLU": (then(nn.GLU(1)), "activation"),
    "Softmin": (then(nn.Softmin(1)), "softmax"),
    "Softmax2d": (then(nn.Softmax2d()), "softmax"),
    "LogSoftmax": (then(nn.LogSoftmax(1)), "softmax"),
    "hardswish in place": (then(nn.Hardswish(inplace=True)), "activation"),
    "reflect": (then(c(3, padding=1, padding_mode="reflect")), "conv"),
    "replicate": (then(c(5, padding=2, padding_mode="replicate", stride=2)), "conv"),
    "same": (then(c(4, padding="same")), "conv"),
    "ReflectionPad2d": (
        Network(lambda m, x: m.c(m.a(x)), a=nn.ReflectionPad2d((1, 2, 0, 3)), c=c(3)),
        "pad",
    ),
    "MaxPool2d": (then(nn.MaxPool2d(3, 2, 1)), "maxpool"),
    "AvgPool2d": (then(nn.AvgPool2d(3, 2, 1)), "avgpool"),
    "AvgPool2d of the map": (then(nn.AvgPool2d(22)), "gap"),
    "ceil mode": (then(nn.AvgPool2d(3, 2, ceil_mode=True)), "avgpool"),
    "LPPool2d": (then(nn.LPPool2d(2, 3, 2)), "avgpool"),
    "FractionalMaxPool2d": (then(nn.FractionalMaxPool2d(2, output_size=11)), "maxpool"),
    "AdaptiveAvgPool2d": (then(nn.AdaptiveAvgPool2d((5, 3))), "avgpool"),
    "AdaptiveMaxPool2d": (then(nn.AdaptiveMaxPool2d(7)), "maxpool"),
    "AdaptiveAvgPool2d to 1": (then(nn.AdaptiveAvgPool2d(1)), "gap"),
    "AdaptiveAvgPool2d to more": (then(nn.AdaptiveAvgPool2d(33)), "avgpool"),
    "AdaptiveAvgPool2d of columns": (then(nn.AdaptiveAvgPool2d((None, 1))), "avgpool"),
    "fold of unfold": (
        Network(lambda m, x: F.fold(F.unfold(x, 3, padding=1), 22, 3, padding=1)),
        "shuffle",
    ),
    "patches": (
        Network(
            lambda m, x: F.fold(m.a(F.unfold(x, 2, stride=2).mT).mT, 22, 2, stride=2),
            a=nn.Linear(16, 16),
        ),
        "linear",
    ),
    "overlapping patches": (
        Network(
            lambda m, x: F.fold(m.a(F.unfold(x, 4, stride=2).mT).mT, 22, 4, stride=2),
            a=nn.Linear(64, 64),
        ),
        "linear",
    ),
    "PixelShuffle": (then(nn.PixelShuffle(2)), "shuffle"),
    "ChannelShuffle": (then(nn.ChannelShuffle(2)), "shuffle"),
    "repeat": (Network(lambda m, x: x.repeat(1, 2, 1, 1)), "shuffle"),
    "flip": (Network(lambda m, x: m.a(x.flip(2, 3)), a=c((3, 1))), "shuffle"),
    **{
        f"rot90 {turns}": (
            Network(lambda m, x, turns=turns: m.a(torch.rot90(x, turns, (2, 3))), a=c((3, 1))),
            "shuffle",
        )
        for turns in (1, 2, 3)
    },
    **{
        f"{mode} by {factor}": (
            Network(
                lambda m, x, mode=mode, factor=factor: F.interpolate(
                    x, scale_factor=factor, mode=mode
                )
            ),
            "upsample",
        )
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic")
        for factor in (2, 0.5)
    },
    "antialiased": (
        Network(lambda m, x: F.interpolate(x, 11, mode="bilinear", antialias=True)),
        "upsample",
    ),
    "transposed": (then(nn.ConvTranspose2d(4, 4, 3, 2, 1)), "conv"),
    "transposed, dilated": (then(nn.ConvTranspose2d(4, 4, 3, dilation=2)), "conv"),
    "depthwise": (then(c(3, groups=4)), "conv"),
    "dilated": (then(c(3, dilation=3)), "conv"),
    "rows and columns": (then(c((1, 5), stride=(2, 1))), "conv"),
    "einsum": (
        Network(
            lambda m, x: torch.einsum("nchw,ck->nkhw", x, m.a), a=nn.Parameter(torch.randn(4, 5))
        ),
        "conv",
    ),
    "einsum over columns": (
        Network(
            lambda m, x: torch.einsum("nchw,wk->nchk", x, m.a), a=nn.Parameter(torch.randn(22, 5))
        ),
        "conv",
    ),
    "residual": (
        Network(lambda m, x: m.a(x) + m.b(x) + x, a=c(5, padding=2), b=c(3, padding=1)),
        "add",
    ),
    "branches": (
        Network(
            lambda m, x: torch.cat([m.a(x), F.max_pool2d(x, 3, 1, 1), m.b(x)], 1),
            a=c(5, padding=2),
            b=c(1),
        ),
        "cat",
    ),
    "running mean of two maps": (
        Network(lambda m, x: torch.lerp(x, m.a(x), 0.9), a=c(3, padding=1)),
        "mul",
    ),
    "squeeze and excitation": (
        Network(lambda m, x: x * m.a(x.mean((2, 3), keepdim=True)).sigmoid(), a=c(1)),
        "gap",
    ),
    "mean in two steps": (Network(lambda m, x: x.mean(3).mean(2)), "gap"),
    "flat mean": (Network(lambda m, x: x.flatten(2).mean(-1)), "gap"),
    "normalized by hand": (
        Network(
            lambda m, x: (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)
        ),
        "reduce",
    ),
    "LayerNorm over channels": (
        Network(lambda m, x: m.a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), a=nn.LayerNorm(4)),
        "layernorm",
    ),
    "RMSNorm over channels": (
        Network(lambda m, x: m.a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), a=nn.RMSNorm(4)),
        "layernorm",
    ),
    "LocalResponseNorm": (then(nn.LocalResponseNorm(3)), "avgpool"),
    "weight norm": (then(nn.utils.parametrizations.weight_norm(c(3))), "conv"),
    "cumulated": (Network(lambda m, x: x.cumsum(3)), "reduce"),
    "softpool": (
        Network(lambda m, x: F.avg_pool2d(x.exp() * x, 2) / F.avg_pool2d(x.exp(), 2)),
        "avgpool",
    ),
    "space to depth": (
        Network(
            lambda m, x: torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)
        ),
        "cat",
    ),
    "conv3d": (
        Network(lambda m, x: m.a(x[:, None]).flatten(1, 2), a=nn.Conv3d(1, 2, (2, 3, 3))),
        "conv",
    ),
}  # fmt: skip


def measure_extent(model: nn.Module) -> tuple[int, int]:
    """Return height and width of the pixels that one position of the output depends on, at most.

    Squares keep the gradient of a sum over channels from vanishing, as it does after a norm.
    """
    model = copy.deepcopy(model).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0.2, 1.0, generator=generator)
            parameter *= torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1
    height = width = 0
    for _ in range(2):  # a maximum or a dead unit hides a pixel of one image
        image = torch.randn(1, 1, SIZE, SIZE, dtype=torch.double, generator=generator)
        output = model(image.requires_grad_())
        positions = (output**2).reshape(1, output.shape[1], -1).sum(1)[0]
        step = max(1, len(positions) // 60) | 1  # odd, so that all columns have their turn
        for number in {*range(0, len(positions), step), len(positions) - 1}:
            (gradient,) = torch.autograd.grad(positions[number], image, retain_graph=True)
            seen = gradient[0, 0].abs() > 1e-12
            rows, columns = (seen.any(axis).nonzero().flatten() for axis in (1, 0))
            if len(rows):
                height = max(height, int(rows[-1] - rows[0]) + 1)
                width = max(width, int(columns[-1] - columns[0]) + 1)
    return height, width


@pytest.mark.parametrize("case", CASES)
def test_field_is_what_the_output_depends_on(case: str) -> None:
    model, kind = CASES[case]
    torch.manual_seed(0)
    found = audit_model(model, (1, SIZE, SIZE))
    field = found.receptive_field
    assert field is not None, found.table()
    sizes = field if isinstance(field, tuple) else (field, field)
    # not clipped to the image by the audit, and clipped to it by the image
    assert tuple(min(SIZE, size) for size in sizes) == measure_extent(model), found.table()
    assert kind in found.kinds, found.kinds
    assert found.kinds_known
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 1, SIZE, SIZE))
    assert found.macs == counter.get_total_flops() // 2


NORMS = {
    "GroupNorm": (nn.GroupNorm(2, 4), "groupnorm", "the whole map"),
    "InstanceNorm2d": (nn.InstanceNorm2d(4, affine=True), "instancenorm", "the whole map"),
    "LayerNorm": (nn.LayerNorm([4, 22, 22]), "layernorm", "the whole map"),
    "LayerNorm over rows": (nn.LayerNorm(22), "layernorm", "its whole row"),
    "RMSNorm": (nn.RMSNorm([4, 22, 22]), "layernorm", "the whole map"),
    "RMSNorm over rows": (nn.RMSNorm(22), "layernorm", "its whole row"),
}  # fmt: skip


@pytest.mark.parametrize("case", NORMS)
def test_norms_keep_the_windows_and_say_what_else_counts(case: str) -> None:
    module, kind, whole = NORMS[case]
    model = Network(lambda m, x: m.b(m.a(x)), a=module, b=c(3))
    found = audit_model(model, (1, SIZE, SIZE))
    assert found.receptive_field == 5
    assert kind in found.kinds
    assert (
        f"from a on each value also depends on {whole} ({kind}); receptive fields are those of "
        "the windows"
    ) in found.notes
    assert max(measure_extent(model)) == SIZE  # as the note says


def test_a_deep_network_with_group_norm() -> None:
    layers: list[nn.Module] = []
    before = 1
    for at in range(9):
        layers += [nn.Conv2d(before, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if at in (2, 5) else []
        before = 8
    found = audit_model(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1)), (1, 28, 28))
    assert [row.receptive_field for row in found.layers if row.kind != "relu"][-2:] == [46, 70]
    assert len(found.notes) == 1


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(
    "pad", ["circular", "module", "roll"], ids=["padding mode", "CircularPad2d", "rolled"]
)
def test_the_seam_of_a_wrapped_map_does_not_widen_windows(pad: str, kernel: int) -> None:
    width = kernel // 2
    forwards = {
        "circular": Network(
            lambda m, x: m.a(x), a=c(kernel, padding=width, padding_mode="circular")
        ),
        "module": Network(lambda m, x: m.b(m.a(x)), a=nn.CircularPad2d(width), b=c(kernel)),
        "roll": Network(lambda m, x: m.a(x.roll((3, 5), (2, 3))), a=c(kernel)),
    }
    found = audit_model(forwards[pad], (1, SIZE, SIZE))
    assert found.receptive_field == kernel + 2
    assert ("shuffle" if pad == "roll" else "pad") in found.kinds
