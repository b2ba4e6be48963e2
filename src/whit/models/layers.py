"""The layers of the built-in models: N images, C channels, H W pixels, K classes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Dropout draws 16 random bits for each activation, so p is exact to within 1 / 131072.
_LEVELS = 1 << 16
MIN_MASS = 1e-6  # avoids division by zero for an image that is only background


class _ApplyMask(torch.autograd.Function):
    """x times a random mask of 0 and 1 / (1 - p); the gradient takes the same mask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped_levels: int) -> Tensor:
        count = x.numel()
        bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        levels = bits.view(torch.int16)[:count]  # uniform over -32768 .. 32767
        mask = (levels >= dropped_levels - _LEVELS // 2).to(x.dtype)
        mask.mul_(_LEVELS / (_LEVELS - dropped_levels))
        # The memory layout of x, so that the product runs over both in one pass.
        mask = mask.as_strided(x.size(), x.stride())
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return grads[0] * mask, None


class Dropout(nn.Dropout):
    """`nn.Dropout`, four times as fast on a CPU.

    torch draws one number of its generator for each activation; here one 64-bit draw of the same
    generator decides four. On other devices it is torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        dropped_levels = round(self.p * _LEVELS)
        dense = input.is_contiguous() or input.is_contiguous(memory_format=torch.channels_last)
        if not self.training or not dropped_levels:
            return input
        if input.device.type != "cpu" or not dense or dropped_levels == _LEVELS:
            return F.dropout(input, self.p, self.training)
        return _ApplyMask.apply(input, dropped_levels)  # type: ignore[no-any-return, no-untyped-call]


class GlobalAvgPool(nn.Module):
    """The mean over height and width: (N, C, H, W) to (N, C)."""

    def forward(self, images: Tensor) -> Tensor:
        # As (N, HW, C), so that the gradient is channels-last; from `mean((2, 3))` it is
        # channels-first, which makes the backward pass of the layer before ten times slower.
        return images.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


class CenterCrop(nn.Module):
    """Images without their outer p = `pixels`: (N, C, H, W) to (N, C, H - 2p, W - 2p)."""

    def __init__(self, pixels: int):
        super().__init__()
        self.pixels = pixels

    def forward(self, images: Tensor) -> Tensor:
        inner = slice(self.pixels, -self.pixels)
        # Dense again: with one channel a slice has no definite layout, and later layers would run
        # channels-first.
        return images[:, :, inner, inner].contiguous(memory_format=torch.channels_last)

    def extra_repr(self) -> str:
        return str(self.pixels)


class Deskew(nn.Module):
    """Moment-based deskewing: (N, C, H, W) to the same shape.

    Each row is shifted horizontally in proportion to its height above the center of mass, such
    that the mixed second moment of x and y becomes zero (LeCun et al. 1998, section III-C,
    deskewed their images). The mass of a pixel is its value above the image's smallest, summed
    over channels. Values are interpolated linearly; beyond a row its last pixel is repeated.
    """

    def forward(self, images: Tensor) -> Tensor:
        # Moments in bf16 would shear images differently in training and in evaluation.
        with torch.autocast(images.device.type, enabled=False):
            return self._deskew(images)

    def _deskew(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        x = torch.arange(width, dtype=images.dtype, device=images.device)
        y = torch.arange(height, dtype=images.dtype, device=images.device)
        mass = (images - images.amin((2, 3), keepdim=True)).sum(1)
        rows, columns = mass.sum(2), mass.sum(1)  # (N, H), (N, W)
        total = rows.sum(1, keepdim=True).clamp(min=MIN_MASS)
        from_y = y - rows @ y[:, None] / total  # (N, H), from the center of mass
        from_x = x - columns @ x[:, None] / total
        mixed = ((mass @ from_x[..., None])[..., 0] * from_y).sum(1, keepdim=True)
        spread = (rows * from_y.square()).sum(1, keepdim=True).clamp(min=MIN_MASS)
        source = x + (mixed / spread * from_y)[..., None]  # (N, H, W)
        grid_x = source * (2 / width) + (1 / width - 1)
        grid_y = (y * (2 / height) + (1 / height - 1))[:, None].expand_as(grid_x)
        grid = torch.stack([grid_x, grid_y], 3)
        deskewed = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return deskewed.contiguous(memory_format=torch.channels_last)


class MultiColumn(nn.Module):
    """A multi-column network: the mean of the logits of its columns.

    In training (N, K, H), the logits of H columns, so that each has a loss of its own; otherwise
    (N, K). As in Ciresan, Meier and Schmidhuber (2012, arXiv 1202.2745), but with all columns
    trained jointly.
    """

    def __init__(self, **columns: nn.Module):
        super().__init__()
        for name, column in columns.items():
            self.add_module(name, column)

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([column(images) for column in self.children()], dim=2)
        return logits if self.training else logits.mean(2)


class BiasOnlyBatchNorm(nn.BatchNorm2d):
    """Batch normalization with a bias and without a scale."""

    def __init__(self, num_features: int):
        super().__init__(num_features, affine=False)
        self.bias = nn.Parameter(torch.zeros(num_features))


class Residual(nn.Module):
    """A residual block: the input is added to the output of its layers (arXiv 1512.03385)."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = named_sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return images + self.layers(images)  # type: ignore[no-any-return]


_SHORT_NAMES = {  # of the others, the name of the class in lower case
    CenterCrop: "crop",
    nn.Conv2d: "conv",
    nn.BatchNorm2d: "norm",
    nn.BatchNorm1d: "norm",
    BiasOnlyBatchNorm: "norm",
    nn.MaxPool2d: "pool",
    nn.AvgPool2d: "avgpool",
    nn.Dropout2d: "drop",
    Dropout: "drop",
    GlobalAvgPool: "gap",
}


def named_sequential(*layers: nn.Module) -> nn.Sequential:
    """Return the layers as a Sequential with readable names: conv1, relu1, norm1, conv2, ..."""
    counts: Counter[str] = Counter()
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in layers:
        short = _SHORT_NAMES.get(type(layer), type(layer).__name__.lower())
        counts[short] += 1
        modules[f"{short}{counts[short]}"] = layer
    return nn.Sequential(modules)
