"""Plain small networks: blocks in a row, each conv, [2x2 pool], BatchNorm, activation.

Pooling stands before BatchNorm and activation, where it makes both cheaper. The head is dropout,
global average pooling and one layer to the classes. What saves parameters is by block, too: a
convolution may be depthwise or separable, and blocks may share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from whit.models.layers import (
    Columns,
    Crop,
    Deskew,
    Dropout,
    GlobalAvgPool,
    Residual,
    ShiftNorm,
    Views,
    in_order,
)

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


class PlainSizes(BaseModel):
    """Sizes of a plain network; lists run over the blocks.

    `kernels` defaults to 5 for the first block and 3 for the others, `strides` to 1. `pools`
    names the blocks (from 1) that hold a 2x2 pool; by default the first and the third.
    `paddings` defaults to half the kernel, which keeps the size of the map.

    `kinds` says what a block's convolution is: `conv`, `depthwise` (one filter a channel), or
    `separable` (depthwise, then 1x1: Xception, arXiv 1610.02357). Blocks with the same number
    above 0 in `shares` use the same weights, each with a BatchNorm of its own. `residual` adds
    its input to a block that keeps the shape. `norm = "shift"` leaves BatchNorm's scale away,
    which the next layer can take up behind a ReLU. `activation` stands behind each BatchNorm; the
    smooth ones (SiLU: arXiv 1710.05941) suit networks that are too small for their task.

    `crop` takes so many pixels off each side of the images first: where they hold nothing, as
    MNIST's outer two do, the maps are smaller for it and every layer quicker. `deskew` shears each
    image first so that it stands upright (`layers.Deskew`), which saves a very small network much
    to learn; with `"both"` two networks of these widths stand side by side (`layers.Columns`), of
    which one sees images as they are and one upright. With `views` of 5 or 9 a trained network
    judges by the mean of its logits over the image and its shifts by a pixel (`layers.Views`),
    which costs so many times the multiply-adds; training is what it was.
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
    def _one_for_each_block(self) -> PlainSizes:
        blocks = len(self.widths)
        for name in ("kernels", "strides", "paddings", "kinds", "shares"):
            given = getattr(self, name)
            if given is not None and len(given) != blocks:
                raise ValueError(f"{name} has {len(given)} numbers for {blocks} widths")
        if self.pools and max(self.pools) > blocks:
            raise ValueError(f"pools names block {max(self.pools)} of {blocks}")
        if self.views not in (1, 5, 9):
            raise ValueError(f"views = {self.views}: 1 is the image alone, 5 or 9 are with shifts")
        return self


@dataclass(frozen=True)
class BlockSizes:
    """One block: what its convolution is, and whether a pool follows."""

    kind: Kind
    inputs: int
    width: int
    kernel: int
    stride: int
    padding: int
    pool: bool
    share: int

    @property
    def keeps_shape(self) -> bool:
        same_map = self.stride == 1 and 2 * self.padding == self.kernel - 1 and not self.pool
        return same_map and self.inputs == self.width

    @property
    def weights(self) -> tuple[Kind, int, int, int]:
        """What blocks that share must have in common; stride and padding are not weights."""
        return self.kind, self.inputs, self.width, self.kernel


def blocks_of(sizes: PlainSizes, channels: int) -> list[BlockSizes]:
    """Return the blocks with defaults filled in. Raises ValueError for sizes that do not fit."""
    count = len(sizes.widths)
    kernels = sizes.kernels or (5, *[3] * (count - 1))
    pools = sizes.pools if sizes.pools is not None else (1, 3)
    rows = zip(
        sizes.kinds or ("conv",) * count,
        (channels, *sizes.widths),
        sizes.widths,
        kernels,
        sizes.strides or (1,) * count,
        sizes.paddings or tuple(kernel // 2 for kernel in kernels),
        (block in pools for block in range(1, count + 1)),
        sizes.shares or (0,) * count,
        strict=False,  # one input more than there are blocks
    )
    blocks = [BlockSizes(*row) for row in rows]
    shared: dict[int, tuple[int, BlockSizes]] = {}
    for number, block in enumerate(blocks, start=1):
        if block.kind == "depthwise" and block.inputs != block.width:
            raise ValueError(
                f"block {number} is depthwise, which keeps its {block.inputs} channels, "
                f"but has width {block.width}"
            )
        first, other = shared.setdefault(block.share, (number, block))
        if block.share and other.weights != block.weights:
            raise ValueError(
                f"blocks {first} and {number} share weights, but differ in kind, input channels, "
                f"width or kernel: {other.weights} and {block.weights}"
            )
    return blocks


def plain(sizes: PlainSizes, channels: int, classes: int) -> nn.Module:
    """Return the network: (N, channels, H, W) to logits (N, classes)."""
    if sizes.deskew == "both":
        network: nn.Module = Columns(
            as_is=_column(sizes, channels, classes, upright=False),
            upright=_column(sizes, channels, classes, upright=True),
        )
    else:
        network = _column(sizes, channels, classes, upright=sizes.deskew)
    return Views(network, sizes.views) if sizes.views > 1 else network


def _column(sizes: PlainSizes, channels: int, classes: int, *, upright: bool) -> nn.Sequential:
    layers: list[nn.Module] = [Deskew()] if upright else []
    layers += [Crop(sizes.crop)] if sizes.crop else []
    shared: dict[tuple[int, int], nn.Conv2d] = {}
    for block in blocks_of(sizes, channels):
        inner: list[nn.Module] = []
        for place, conv in enumerate(_convolutions(block)):
            # Blocks that share may differ in stride and padding, so they share the tensor alone.
            owner = shared.setdefault((block.share, place), conv) if block.share else conv
            conv.weight = owner.weight
            inner.append(conv)
        if block.pool:
            inner.append(nn.MaxPool2d(2) if sizes.pooling == "max" else nn.AvgPool2d(2))
        norm = nn.BatchNorm2d if sizes.norm == "full" else ShiftNorm
        inner += [norm(block.width), _ACTIVATIONS[sizes.activation]()]
        layers += [Residual(*inner)] if sizes.residual and block.keeps_shape else inner
    last = sizes.widths[-1]
    if sizes.head == "linear":
        layers += [GlobalAvgPool(), Dropout(sizes.dropout), nn.Linear(last, classes)]
    else:
        layers += [Dropout(sizes.dropout), nn.Conv2d(last, classes, 1), GlobalAvgPool()]
    return in_order(*layers)


def _convolutions(block: BlockSizes) -> Iterator[nn.Conv2d]:
    """The convolutions of a block. No bias: BatchNorm takes out the mean that it would add."""
    inputs, first = block.inputs, block.width if block.kind == "conv" else block.inputs
    groups = 1 if block.kind == "conv" else inputs
    yield nn.Conv2d(
        inputs, first, block.kernel, block.stride, block.padding, groups=groups, bias=False
    )
    if block.kind == "separable":
        yield nn.Conv2d(inputs, block.width, 1, bias=False)
