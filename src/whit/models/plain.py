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

from pydantic import Field, model_validator
from torch import nn

from whit.models import layers
from whit.recipes.field_types import Section, key_field

Width = Annotated[int, Field(strict=True, ge=1, le=4096)]
Kernel = Annotated[int, Field(strict=True, ge=1, le=63)]
Stride = Annotated[int, Field(strict=True, ge=1, le=16)]
Padding = Annotated[int, Field(strict=True, ge=0, le=31)]
BlockNumber = Annotated[int, Field(strict=True, ge=1)]
WeightGroup = Annotated[int, Field(strict=True, ge=0)]
ConvType = Literal["conv", "depthwise", "separable"]
Column = Literal["raw", "deskewed"]
Activation = Literal["relu", "silu", "hardswish", "gelu"]
_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "silu": partial(nn.SiLU, inplace=True),
    "hardswish": partial(nn.Hardswish, inplace=True),
    "gelu": nn.GELU,
}


class PlainConfig(Section):
    """A plain network; lists have one entry for each block."""

    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=64)] = key_field(
        ..., "output channels of each block", "channels"
    )
    # Where the border is background, as MNIST's outer two pixels are, every layer becomes faster.
    crop: Padding = key_field(0, "rows and columns removed on each side of the images", "pixels")
    # A very small network then need not learn to be invariant to slant.
    deskew: Annotated[bool, Field(strict=True)] = key_field(
        False, "moment-based deskewing of each image (`layers.Deskew`)"
    )
    columns: tuple[Column, ...] | None = key_field(
        None,
        "a multi-column network (`layers.MultiColumn`): one column on raw and one on deskewed "
        "images, whose logits are averaged",
    )
    kernels: tuple[Kernel, ...] | None = key_field(
        None,
        "kernel size of each convolution; default: 5 in the first block, 3 in the others",
        "pixels",
    )
    strides: tuple[Stride, ...] | None = key_field(None, "stride of each convolution; default: 1")
    paddings: tuple[Padding, ...] | None = key_field(
        None,
        "padding of each convolution; default: half the kernel size, which preserves the map size",
        "pixels",
    )
    conv_types: tuple[ConvType, ...] | None = key_field(
        None,
        "type of each convolution: `conv`, `depthwise` (one filter per channel) or `separable` "
        "(depthwise, then 1x1: arXiv 1610.02357); default: `conv`",
    )
    weight_groups: tuple[WeightGroup, ...] | None = key_field(
        None, "blocks with the same number above 0 share weights, each with its own BatchNorm"
    )
    pool_after: tuple[BlockNumber, ...] | None = key_field(
        None, "numbers of the blocks, from 1, that have a 2x2 pool; default: [1, 3]", "blocks"
    )
    pool_type: Literal["max", "avg"] = key_field("max", "type of these pools")
    residual: Annotated[bool, Field(strict=True)] = key_field(
        False, "adds a block's input to its output where their shapes are equal"
    )
    # After a ReLU, the next layer can represent the scale.
    batchnorm_affine: Literal["full", "bias"] = key_field(
        "full", "learned parameters of BatchNorm: scale and bias, or bias only"
    )
    # The smooth ones suit networks that are too small for their task.
    activation: Activation = key_field(
        "relu", "activation function after each BatchNorm (SiLU: arXiv 1710.05941)"
    )
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1)] = key_field(
        0.05, "dropout before the last layer", "probability"
    )
    head: Literal["linear", "conv"] = key_field(
        "linear",
        "`linear`: global average pooling, then a linear layer; `conv`: a 1x1 convolution, then "
        "global average pooling",
    )

    @model_validator(mode="after")
    def _check_lengths(self) -> PlainConfig:
        blocks = len(self.widths)
        for name in ("kernels", "strides", "paddings", "conv_types", "weight_groups"):
            values = getattr(self, name)
            if values is not None and len(values) != blocks:
                raise ValueError(f"{name} has {len(values)} entries, but there are {blocks} widths")
        if self.pool_after and max(self.pool_after) > blocks:
            raise ValueError(
                f"pool_after has block {max(self.pool_after)}, but there are {blocks} blocks"
            )
        if self.columns is not None:
            if len(set(self.columns)) != len(self.columns) or len(self.columns) < 2:
                raise ValueError(
                    'columns must have two different entries, e.g. ["raw", "deskewed"]'
                )
            if self.deskew:
                raise ValueError(
                    "deskew and columns cannot be combined: one column is deskewed already"
                )
        return self


@dataclass(frozen=True)
class BlockConfig:
    """One block: its convolution, and whether a pool follows."""

    conv_type: ConvType
    in_channels: int
    width: int
    kernel: int
    stride: int
    padding: int
    pool: bool
    weight_group: int

    @property
    def keeps_shape(self) -> bool:
        same_map = self.stride == 1 and 2 * self.padding == self.kernel - 1 and not self.pool
        return same_map and self.in_channels == self.width

    @property
    def weight_shape(self) -> tuple[ConvType, int, int, int]:
        """What blocks that share weights must have in common."""
        return self.conv_type, self.in_channels, self.width, self.kernel


def expand_blocks(config: PlainConfig, channels: int) -> list[BlockConfig]:
    """Return the blocks with defaults filled in. Raises ValueError if they do not fit."""
    count = len(config.widths)
    kernels = config.kernels or (5, *[3] * (count - 1))
    pools = (1, 3) if config.pool_after is None else config.pool_after
    rows = zip(
        config.conv_types or ("conv",) * count,
        (channels, *config.widths),
        config.widths,
        kernels,
        config.strides or (1,) * count,
        config.paddings or tuple(kernel // 2 for kernel in kernels),
        (block in pools for block in range(1, count + 1)),
        config.weight_groups or (0,) * count,
        strict=False,  # the channels have one more entry than there are blocks
    )
    blocks = [BlockConfig(*row) for row in rows]
    shared: dict[int, tuple[int, BlockConfig]] = {}
    for number, block in enumerate(blocks, start=1):
        if block.conv_type == "depthwise" and block.in_channels != block.width:
            raise ValueError(
                f"block {number} is depthwise, so its width must be that of its input, "
                f"{block.in_channels}, but it is {block.width}"
            )
        first, other = shared.setdefault(block.weight_group, (number, block))
        if block.weight_group and other.weight_shape != block.weight_shape:
            raise ValueError(
                f"blocks {first} and {number} share weights, but differ in type, input channels, "
                f"width or kernel: {other.weight_shape} and {block.weight_shape}"
            )
    return blocks


def plain(config: PlainConfig, channels: int, classes: int) -> nn.Module:
    """Return the network: (N, channels, H, W) to logits (N, classes)."""
    column = partial(_build_column, config, channels, classes)
    if config.columns:
        return layers.MultiColumn(**{name: column(name == "deskewed") for name in config.columns})
    return column(config.deskew)


def _build_column(config: PlainConfig, channels: int, classes: int, deskew: bool) -> nn.Sequential:
    modules: list[nn.Module] = [layers.Deskew()] if deskew else []
    modules += [layers.CenterCrop(config.crop)] if config.crop else []
    shared: dict[tuple[int, int], nn.Conv2d] = {}
    for block in expand_blocks(config, channels):
        inner: list[nn.Module] = []
        for index, conv in enumerate(_build_convolutions(block)):
            # Blocks that share may differ in stride and padding, so they share only the tensor.
            first = (
                shared.setdefault((block.weight_group, index), conv) if block.weight_group else conv
            )
            conv.weight = first.weight
            inner.append(conv)
        if block.pool:
            inner.append(nn.MaxPool2d(2) if config.pool_type == "max" else nn.AvgPool2d(2))
        norm = nn.BatchNorm2d if config.batchnorm_affine == "full" else layers.BiasOnlyBatchNorm
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
    first, groups = (block.width, 1) if block.conv_type == "conv" else (channels, channels)
    yield nn.Conv2d(
        channels, first, block.kernel, block.stride, block.padding, groups=groups, bias=False
    )
    if block.conv_type == "separable":
        yield nn.Conv2d(channels, block.width, 1, bias=False)
