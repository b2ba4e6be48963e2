"""The few layers that every shipped model is built of."""

# N images, C channels, H W pixels

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Dropout decides on 16 random bits for each activation, so p is kept to within 1 / 131072.
_LEVELS = 1 << 16
LEAST_MASS = 1e-6  # of an image without anything drawn, so that nothing is divided by zero


class _Masked(torch.autograd.Function):
    """x times a random mask of 0 and 1 / (1 - p); the gradient takes the same mask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped_levels: int) -> Tensor:
        count = x.numel()
        bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        levels = bits.view(torch.int16)[:count]  # uniform over -32768 .. 32767
        mask = (levels >= dropped_levels - _LEVELS // 2).to(x.dtype)
        mask.mul_(_LEVELS / (_LEVELS - dropped_levels))
        # Laid out in memory like x, so that the product runs over both in one sweep.
        mask = mask.as_strided(x.size(), x.stride())
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return grads[0] * mask, None


class Dropout(nn.Dropout):
    """`nn.Dropout`, four times as fast on a processor.

    torch draws one number of its generator for each activation; here one 64-bit draw of the same
    generator decides four. Elsewhere than on a processor it is torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        dropped_levels = round(self.p * _LEVELS)
        dense = input.is_contiguous() or input.is_contiguous(memory_format=torch.channels_last)
        if not self.training or not dropped_levels:
            return input
        if input.device.type != "cpu" or not dense or dropped_levels == _LEVELS:
            return F.dropout(input, self.p, self.training)
        masked: Tensor = _Masked.apply(input, dropped_levels)  # type: ignore[no-untyped-call]
        return masked


class GlobalAvgPool(nn.Module):
    """The mean over the whole map: (N, C, H, W) to (N, C)."""

    def forward(self, images: Tensor) -> Tensor:
        # As (N, HW, C), so that the gradient comes back channels-last; from `mean((2, 3))` it
        # comes back channels-first, which makes the layer before it ten times slower backward.
        return images.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


class Crop(nn.Module):
    """The map without its outer p = `pixels`: (N, C, H, W) to (N, C, H - 2p, W - 2p)."""

    def __init__(self, pixels: int):
        super().__init__()
        self.pixels = pixels

    def forward(self, images: Tensor) -> Tensor:
        kept = slice(self.pixels, -self.pixels)
        # Dense again: of one channel a slice says neither layout, and the layers behind it would
        # go on channels-first.
        return images[:, :, kept, kept].contiguous(memory_format=torch.channels_last)

    def extra_repr(self) -> str:
        return str(self.pixels)


class Deskew(nn.Module):
    """Images sheared so that what is drawn stands upright: (N, C, H, W) to the same.

    Each row moves to the side in proportion to its height above the centre of mass, by what makes
    the mixed second moment, of x and y, zero (LeCun et al. 1998, section III-C, deskewed their
    images). The mass of a pixel is what it has above the image's smallest, summed over channels;
    between two pixels their values are mixed, beyond a row its end goes on.
    """

    def forward(self, images: Tensor) -> Tensor:
        # Moments in bf16 would shear the images of training otherwise than those that are judged.
        with torch.autocast(images.device.type, enabled=False):
            return self._upright(images)

    def _upright(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        x = torch.arange(width, dtype=images.dtype, device=images.device)
        y = torch.arange(height, dtype=images.dtype, device=images.device)
        mass = (images - images.amin((2, 3), keepdim=True)).sum(1)
        rows, columns = mass.sum(2), mass.sum(1)  # (N, H), (N, W)
        total = rows.sum(1, keepdim=True).clamp(min=LEAST_MASS)
        from_y = y - rows @ y[:, None] / total  # (N, H), from the centre of mass
        from_x = x - columns @ x[:, None] / total
        mixed = ((mass @ from_x[..., None])[..., 0] * from_y).sum(1, keepdim=True)
        spread = (rows * from_y.square()).sum(1, keepdim=True).clamp(min=LEAST_MASS)
        source = x + (mixed / spread * from_y)[..., None]  # (N, H, W)
        across = source * (2 / width) + (1 / width - 1)
        upwards = (y * (2 / height) + (1 / height - 1))[:, None].expand_as(across)
        grid = torch.stack([across, upwards], 3)
        straight = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return straight.contiguous(memory_format=torch.channels_last)


_AT_ONCE = 1000  # views: more at a time take memory and no less time
# Shifts to the right and down, in pixels: none, to the four sides, to the corners.
_SHIFTS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


class Views(nn.Module):
    """A network that looks at an image several times, moved by a pixel: the mean of its logits.

    `views` is 5 for the image and its shifts to the four sides, 9 for those to the corners, too.
    What a shift leaves free is filled with the pixels of the edge. In training it looks once.
    AlexNet takes such a mean over ten crops (Krizhevsky et al. 2012).
    """

    def __init__(self, network: nn.Module, views: int):
        super().__init__()
        self.network = network
        self.shifts = _SHIFTS[:views]

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            return self.network(images)  # type: ignore[no-any-return]
        wide = F.pad(images, (1, 1, 1, 1), mode="replicate")
        height, width = images.shape[2:]
        moved = [
            wide[:, :, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
            for right, down in self.shifts
        ]
        looks = torch.cat(moved).contiguous(memory_format=torch.channels_last)
        parts = torch.split(looks, _AT_ONCE)
        logits = torch.cat([self.network(part) for part in parts])
        return logits.view(len(moved), len(images), -1).mean(0)

    def extra_repr(self) -> str:
        return f"views={len(self.shifts)}"


class Columns(nn.Module):
    """Networks side by side that see an image each in its own way: the mean of their logits.

    In training (N, K, H), the logits of H columns, so that each learns by its own loss; else
    (N, K). Multi-column networks of Ciresan, Meier and Schmidhuber (2012, arXiv 1202.2745), all
    trained in one go.
    """

    def __init__(self, **columns: nn.Module):
        super().__init__()
        for name, column in columns.items():
            self.add_module(name, column)

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([column(images) for column in self.children()], dim=2)
        return logits if self.training else logits.mean(2)


class ShiftNorm(nn.BatchNorm2d):
    """BatchNorm with a bias and no scale."""

    def __init__(self, width: int):
        super().__init__(width, affine=False)
        self.bias = nn.Parameter(torch.zeros(width))


class Residual(nn.Module):
    """Layers in a row whose input is added to what they give (arXiv 1512.03385)."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = in_order(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return images + self.layers(images)  # type: ignore[no-any-return]


_SHORT_NAMES = {
    Crop: "crop",
    Deskew: "deskew",
    nn.Conv2d: "conv",
    nn.ReLU: "relu",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
    nn.GELU: "gelu",
    nn.BatchNorm2d: "norm",
    nn.BatchNorm1d: "norm",
    ShiftNorm: "norm",
    Residual: "residual",
    nn.MaxPool2d: "pool",
    nn.AvgPool2d: "avgpool",
    nn.Dropout2d: "drop",
    Dropout: "drop",
    GlobalAvgPool: "gap",
    nn.Linear: "linear",
    nn.Flatten: "flatten",
}


def in_order(*layers: nn.Module) -> nn.Sequential:
    """Return the layers as a Sequential with names to read: conv1, relu1, norm1, conv2, ..."""
    counts: Counter[str] = Counter()
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in layers:
        short = _SHORT_NAMES[type(layer)]
        counts[short] += 1
        named[f"{short}{counts[short]}"] = layer
    return nn.Sequential(named)
