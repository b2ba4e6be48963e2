"""Plain small networks: a sequence of blocks, each conv, [2x2 pool], BatchNorm, activation.

Pooling comes before BatchNorm and activation, which makes both cheaper. The head is dropout,
global average pooling and one layer to the classes. To save parameters, the
convolution of a block may be depthwise or separable, and blocks may share weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from whit.models import layers

Width = Annotated[int, Field(strict=True, ge=1, le=4096)]
Kernel = Annotated[int, Field(strict=True, ge=1, le=63)]
Stride = Annotated[int, Field(strict=True, ge=1, le=16)]
Padding = Annotated[int, Field(strict=True, ge=0, le=31)]
Block = Annotated[int, Field(strict=True, ge=1)]
Share = Annotated[int, Field(strict=True, ge=0)]
Kind = Literal["conv", "depthwise", "separable"]
Activation = Literal["relu", "silu", "hardswish", "gelu"]
_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "silu": partial(nn.SiLU, inplace=True),
    "hardswish": partial(nn.Hardswish, inplace=True),
    "gelu": nn.GELU,
}


class PlainConfig(BaseModel):
    """The [model] keys of a plain network; lists have one entry for each block.

    `kernels` defaults to 5 for the first block and 3 for the others, `strides` to 1. `pools`
    lists the blocks (from 1) that have a 2x2 pool; by default the first and the third.
    `paddings` defaults to half the kernel, which keeps the size of the map.

    `kinds` is the type of each block's convolution: `conv`, `depthwise` (one filter a channel), or
    `separable` (depthwise, then 1x1: Xception, arXiv 1610.02357). Blocks with the same number
    above 0 in `shares` use the same weights, each with its own BatchNorm. `residual` adds the
    input of a block to its output where the shape is kept. `norm = "shift"` omits BatchNorm's
    scale, which the next layer can represent after a ReLU. `activation` follows each BatchNorm;
    the smooth ones (SiLU: arXiv 1710.05941) suit networks that are too small for their task.

    `crop` first removes so many pixels on each side of the images: where these are background, as
    MNIST's outer two are, the maps become smaller and every layer faster. `deskew` first deskews
    each image (`layers.Deskew`), which a very small network then need not learn; `"both"` makes a
    two-column network (`layers.MultiColumn`), one column for raw and one for deskewed images.
    `views` of 5 or 9 adds test-time augmentation (`layers.ShiftTTA`), which multiplies the
    multiply-adds of evaluation by that number; training is unchanged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=64)]
    crop: Padding = 0
    deskew: Annotated[bool, Field(strict=True)] | Literal["both"] = False
    kernels: tuple[Kernel, ...] | None = None
    strides: tuple[Stride, ...] | None = None
    pools: tuple[Block, ...] | None = None
    paddings: tuple[Padding, ...] | None = None
    kinds: tuple[Kind, ...] | None = None
    shares: tuple[Share, ...] | None = None
    pooling: Literal["max", "avg"] = "max"
    residual: Annotated[bool, Field(strict=True)] = False
    norm: Literal["full", "shift"] = "full"
    activation: Activation = "relu"
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.05
    head: Literal["linear", "conv"] = "linear"
    views: Annotated[int, Field(strict=True)] = 1

    @model_validator(mode="after")
    def _check_lengths(self) -> PlainConfig:
        blocks = len(self.widths)
        for name in ("kernels", "strides", "paddings", "kinds", "shares"):
            values = getattr(self, name)
            if values is not None and len(values) != blocks:
                raise ValueError(f"{name} has {len(values)} numbers for {blocks} widths")
        if self.pools and max(self.pools) > blocks:
            raise ValueError(f"pools names block {max(self.pools)} of {blocks}")
        if self.views not in (1, 5, 9):
            raise ValueError(f"views = {self.views}: 1 is the image alone, 5 or 9 are with shifts")
        return self


@dataclass(frozen=True)
class BlockConfig:
    """One block: its convolution, and whether a pool follows; `share` is its weight group."""

    kind: Kind
    in_channels: int
    width: int
    kernel: int
    stride: int
    padding: int
    pool: bool
    share: int

    @property
    def keeps_shape(self) -> bool:
        same_map = self.stride == 1 and 2 * self.padding == self.kernel - 1 and not self.pool
        return same_map and self.in_channels == self.width

    @property
    def weight_shape(self) -> tuple[Kind, int, int, int]:
        """What blocks that share weights must have in common."""
        return self.kind, self.in_channels, self.width, self.kernel


def expand_blocks(config: PlainConfig, channels: int) -> list[BlockConfig]:
    """Return the blocks with defaults filled in. Raises ValueError if they do not fit."""
    count = len(config.widths)
    kernels = config.kernels or (5, *[3] * (count - 1))
    pools = (1, 3) if config.pools is None else config.pools
    rows = zip(
        config.kinds or ("conv",) * count,
        (channels, *config.widths),
        config.widths,
        kernels,
        config.strides or (1,) * count,
        config.paddings or tuple(kernel // 2 for kernel in kernels),
        (block in pools for block in range(1, count + 1)),
        config.shares or (0,) * count,
        strict=False,  # one more number of channels than there are blocks
    )
    blocks = [BlockConfig(*row) for row in rows]
    shared: dict[int, tuple[int, BlockConfig]] = {}
    for number, block in enumerate(blocks, start=1):
        if block.kind == "depthwise" and block.in_channels != block.width:
            raise ValueError(
                f"block {number} is depthwise, which keeps its {block.in_channels} channels, "
                f"but has width {block.width}"
            )
        first, other = shared.setdefault(block.share, (number, block))
        if block.share and other.weight_shape != block.weight_shape:
            raise ValueError(
                f"blocks {first} and {number} share weights, but differ in kind, input channels, "
                f"width or kernel: {other.weight_shape} and {block.weight_shape}"
            )
    return blocks


def plain(config: PlainConfig, channels: int, classes: int) -> nn.Module:
    """Return the network: (N, channels, H, W) to logits (N, classes)."""
    column = partial(_build_column, config, channels, classes)
    if config.deskew == "both":
        network: nn.Module = layers.MultiColumn(as_is=column(False), upright=column(True))
    else:
        network = column(config.deskew)
    return layers.ShiftTTA(network, config.views) if config.views > 1 else network


def _build_column(config: PlainConfig, channels: int, classes: int, deskew: bool) -> nn.Sequential:
    modules: list[nn.Module] = [layers.Deskew()] if deskew else []
    modules += [layers.CenterCrop(config.crop)] if config.crop else []
    shared: dict[tuple[int, int], nn.Conv2d] = {}
    for block in expand_blocks(config, channels):
        inner: list[nn.Module] = []
        for index, conv in enumerate(_build_convolutions(block)):
            # Blocks that share may differ in stride and padding, so they share only the tensor.
            first = shared.setdefault((block.share, index), conv) if block.share else conv
            conv.weight = first.weight
            inner.append(conv)
        if block.pool:
            inner.append(nn.MaxPool2d(2) if config.pooling == "max" else nn.AvgPool2d(2))
        norm = nn.BatchNorm2d if config.norm == "full" else layers.BiasOnlyBatchNorm
        inner += [norm(block.width), _ACTIVATIONS[config.activation]()]
        modules += [layers.Residual(*inner)] if config.residual and block.keeps_shape else inner
    width, dropout, pool = config.widths[-1], layers.Dropout(config.dropout), layers.GlobalAvgPool()
    if config.head == "linear":
        modules += [pool, dropout, nn.Linear(width, classes)]
    else:
        modules += [dropout, nn.Conv2d(width, classes, 1), pool]
    return layers.named_sequential(*modules)


def _build_convolutions(block: BlockConfig) -> Iterator[nn.Conv2d]:
    """Yield the convolutions of a block, without bias: BatchNorm would subtract it again."""
    channels = block.in_channels
    first, groups = (block.width, 1) if block.kind == "conv" else (channels, channels)
    yield nn.Conv2d(
        channels, first, block.kernel, block.stride, block.padding, groups=groups, bias=False
    )
    if block.kind == "separable":
        yield nn.Conv2d(channels, block.width, 1, bias=False)
