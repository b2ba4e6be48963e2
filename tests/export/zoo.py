"""Test networks that cover everything that can be exported, with plausible statistics."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from whit.models.build import build_initialized_model
from whit.models.layers import Deskew, MultiColumn
from whit.models.plain import ConvType, PlainConfig, plain
from whit.models.tta import ShiftTTA
from whit.recipes.recipe import builtin_recipes, load_recipe

CLASSES = tuple("0123456789")


class Branches(nn.Module):
    """Branches that merge, shared weights, odd strides, in-place operations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.side = nn.Conv2d(1, 8, 3, stride=2, padding=1, groups=1)
        self.again = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.after = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.squeeze = nn.Linear(8, 4)
        self.excite = nn.Linear(4, 8)
        self.tail = nn.Conv2d(16, 12, 4, padding="same")
        self.bn1d = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        a = F.max_pool2d(F.relu(self.norm(self.stem(x)), inplace=True), 3, 2, 1)
        b = self.side(x)
        b += 0.5
        b = F.leaky_relu(b, 0.2)
        for norm in self.after:
            a = a + F.silu(norm(self.again(a)))
        weight = torch.sigmoid(self.excite(F.relu(self.squeeze(a.mean((2, 3))))))
        a = a * weight[:, :, None, None]
        both = torch.cat([a, 1 - b], 1)
        left, right = both.chunk(2, dim=1)
        both = torch.cat([left - right, F.hardswish(right)], dim=1)
        out = F.avg_pool2d(self.tail(both), 3, 3, 1, count_include_pad=False)
        out = F.adaptive_avg_pool2d(out, 1).flatten(1)
        out = F.dropout(self.bn1d(out), 0.3, self.training)
        return F.log_softmax(self.head(out), dim=1)


class ChannelsLast(nn.Module):
    """A head that flattens in channels-last order, and parameters that scale channels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ZeroPad2d((1, 0, 2, 0)),
            nn.Conv2d(1, 6, 5, stride=3, bias=False),
            nn.PReLU(6),
            nn.AvgPool2d(2, padding=1),
            nn.BatchNorm2d(6),
            nn.GELU(),
            nn.GELU("tanh"),
        )
        self.gain = nn.Parameter(torch.linspace(0.5, 2, 6).view(1, 6, 1, 1))
        self.head = nn.Linear(6 * 25, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = (self.body(x) * self.gain - 0.25) / 2
        return self.head(x.permute(0, 2, 3, 1).reshape(len(x), -1))


class FullKernel(nn.Module):
    """A convolution whose kernel covers its input map, then 1x1 convolutions of a 1x1 map."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 9, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.wide = nn.Conv2d(4, 10, 10)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.last = nn.Conv2d(10, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(torch.tanh(self.norm(F.elu(self.first(x)))))
        return F.softmax(self.last(self.pool(x)).squeeze(3).squeeze(2), dim=-1)


class Asymmetric(nn.Module):
    """Asymmetric kernels, cropping and padding, global max pooling, unequal splits of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 5, (3, 5), stride=(2, 1), padding=(0, 2))
        self.b = nn.Conv2d(5, 6, (1, 3), dilation=(1, 2))
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.b(F.hardsigmoid(self.a(x[:, :, :-1, 2:]))))
        x = F.pad(x, (-1, 2, 1, -2))
        one, rest = x.split([2, 4], dim=1)
        x = torch.cat([rest, one.clamp(min=0)], 1)
        return self.head(torch.amax(x, dim=(2, 3)))


class GrayToRGB(nn.Module):
    """Gray images normalized by the statistics of three channels; a tensor as clamp bound."""

    mean: Tensor
    std: Tensor
    low: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([124.0, 116.0, 104.0]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([58.0, 57.0, 57.5]).view(1, 3, 1, 1))
        self.register_buffer("low", torch.zeros(1))
        self.conv = nn.Conv2d(3, 8, 5, padding=1)
        self.gain = nn.Parameter(torch.linspace(-1, 2, 5).view(5, 1, 1))
        self.far = nn.Conv2d(5, 10, 7, stride=3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.clamp(self.conv((x - self.mean) / self.std), min=self.low)
        return self.far(x[:, 5:6] * self.gain).mean((2, 3))


class ChannelAttention(nn.Module):
    """Channel attention from average and max pooling, with weights expanded over the map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 5, stride=3)
        self.both = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.apart = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.over = nn.Conv2d(8, 8, (2, 4), dilation=2, padding=(1, 3), stride=3)
        self.gain = nn.Parameter(torch.linspace(0.5, 2, 8).view(1, 8, 1, 1))
        self.head = nn.Conv2d(8, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        mean, maximum = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        x = x * torch.sigmoid(self.both(mean) + self.both(maximum)).expand_as(x)
        x = x + self.gain.expand(len(x), -1, *x.shape[2:])
        far = self.apart(F.max_pool2d(x, x.shape[2:])) + self.apart(mean)
        far = far - torch.tanh(self.over(mean))
        x = F.adaptive_avg_pool2d(far.clone().expand_as(x).contiguous() - x, 1)
        x = self.head(F.adaptive_max_pool2d(F.adaptive_avg_pool2d(x, 1), 1))
        return x[:, :, 0, 0]


class SpatialGate(nn.Module):
    """Pixels gated by one channel, maps gated by a scalar, expanded constants, shared weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 5, stride=2)
        self.mask = nn.Conv2d(6, 1, 3, padding=1)
        self.norm = nn.BatchNorm1d(1)
        self.gate = nn.Linear(6, 1)
        self.bias = nn.Parameter(torch.linspace(-1, 1, 6).view(1, 6, 1, 1))
        self.last = nn.Conv2d(9, 10, 3, padding=1, stride=3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x.expand(-1, 3, -1, -1) / 255))
        x = x * torch.sigmoid(self.mask(x)) + self.mask(x)
        gap = x.mean((2, 3), keepdim=True)
        gate = self.norm(self.gate(gap.flatten(1))).sigmoid().view(-1, 1, 1, 1)
        x = x * gate - self.bias.expand(-1, -1, *x.shape[2:])
        weight = 1 - torch.tanh(gap.expand_as(x) * 0.5) + (-gap).expand_as(x)
        x = torch.sub(x * weight, x**2, alpha=0.1)
        x = F.pad(x[:, :, 1::2, ::3], (0, 0, 0, 0, 1, 2))
        maximum = F.adaptive_max_pool2d(x, 1)
        return self.last(maximum).flatten(1) + self.last(x.sum((2, 3), keepdim=True) / 9).flatten(1)


class ConcatVectors(nn.Module):
    """Concatenation and addition of flattened maps and vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 4, 9, stride=6)
        self.b = nn.Conv2d(4, 6, 4)
        self.rows = nn.Linear(64, 64)
        self.head = nn.Linear(64 + 6 + 4 + 4, 10)
        self.last = nn.Linear(10 + 6, 10)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        one = self.b(a)
        flat = a.flatten(1)
        flat = flat + self.rows(flat)
        both = torch.cat([a.mean((2, 3), keepdim=True), F.max_pool2d(a, 4)], 1)
        out = self.head(torch.cat([flat, one.flatten(1), both.squeeze(3).squeeze(2)], 1))
        line = one[:, :1]
        both = torch.cat([a[:, :1].flatten(1), line.flatten(1), out], 1)
        out = out + both[:, -10:] - both[:, :10]
        mean = F.adaptive_avg_pool2d(F.pad(one, (0, 1, 0, 1)), 1).flatten(1)
        return self.last(torch.cat([out, one.flatten(1) - mean], 1))


class StandardizedConv2d(nn.Conv2d):
    """Weight standardization."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Computed(nn.Module):
    """Weights computed in the forward pass, coordinates, and clamping to both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Conv2d(3, 8, 5, stride=3))
        self.second = parametrizations.spectral_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.third = StandardizedConv2d(8, 6, 3)
        self.position = nn.Parameter(torch.linspace(-1, 1, 6 * 36).sin().view(6, 6, 6))
        self.mask = nn.Parameter(torch.linspace(-2, 2, 216).view(1, 216))
        self.body, self.head = nn.Linear(216, 6), nn.Linear(6 + 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        axis = torch.arange(28) / 14 - 1
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
        x = torch.cat([x / 255, grid[None].expand(len(x), -1, -1, -1)], 1)
        x = F.hardtanh(self.second(self.first(x) + torch.zeros_like(x[:, :1, :8, :8])), -0.3, 0.4)
        x = torch.clamp(self.third(x), max=2) - self.position
        scale = self.position[:1].abs() + 0.5
        x = 0.5 - (x * scale).permute(0, 2, 3, 1).flatten(1) * self.mask
        return self.head(torch.cat([self.body(x), self.mask[:, :4].expand(len(x), 4)], 1))


class DeskewedShifts(ShiftTTA):
    """Test-time augmentation over nine shifts of a network with deskewing."""

    def __init__(self) -> None:
        conv_types: tuple[ConvType, ...] = ("conv", "separable", "separable")
        sizes = PlainConfig(
            deskew=True,
            widths=(6, 7, 9),
            crop=1,
            conv_types=conv_types,
            paddings=(0, 1, 0),
            batchnorm_affine="bias",
            activation="silu",
        )
        super().__init__(plain(sizes, 1, 10), 8)


class ThreeColumns(ShiftTTA):
    """Test-time augmentation of a multi-column network, one column without a final linear layer."""

    def __init__(self) -> None:
        deskewed = nn.Sequential(Deskew(), GrayToRGB())
        super().__init__(MultiColumn(first=deskewed, second=Computed(), third=GrayToRGB()), 4)


OTHERS = (
    *(Branches, ChannelsLast, FullKernel, Asymmetric, GrayToRGB, ChannelAttention, SpatialGate),
    *(ConcatVectors, Computed, DeskewedShifts, ThreeColumns),
)


def as_if_trained(model: nn.Module) -> nn.Module:
    """Set BatchNorm weights and statistics so that every operation has an effect."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for tensor in (module.running_mean, module.bias):
                    if tensor is not None:
                        tensor.copy_(torch.randn(tensor.shape, generator=generator))
                assert module.running_var is not None
                module.running_var.uniform_(0.5, 2, generator=generator)
                if module.weight is not None:  # of both signs
                    module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
    return model.eval()


def networks() -> Iterator[tuple[str, nn.Module]]:
    """The networks of all built-in recipes, and others for what these do not use."""
    for name in builtin_recipes():
        yield name, as_if_trained(build_initialized_model(load_recipe(name), (1, 28, 28), 10))
    for kind in OTHERS:
        torch.manual_seed(3)
        yield kind.__name__, as_if_trained(kind())


def some_images(count: int = 8) -> Tensor:
    """Random pixels, uint8 (N, 1, 28, 28)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
