"""Plain small networks: blocks in a row, each conv, [2x2 max-pool], BatchNorm, ReLU.

Pooling stands before BatchNorm and ReLU, where it makes both cheaper. The head is dropout,
global average pooling and one layer to the classes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from whit.models.layers import Dropout, GlobalAvgPool, in_order

Width = Annotated[int, Field(strict=True, ge=1, le=4096)]
Kernel = Annotated[int, Field(strict=True, ge=1, le=63)]
Stride = Annotated[int, Field(strict=True, ge=1, le=16)]
Padding = Annotated[int, Field(strict=True, ge=0, le=31)]
Block = Annotated[int, Field(strict=True, ge=1)]


class PlainSizes(BaseModel):
    """Sizes of a plain network; lists run over the blocks.

    `kernels` defaults to 5 for the first block and 3 for the others, `strides` to 1. `pools`
    names the blocks (from 1) that hold a 2x2 max-pool; by default the first and the third.
    `paddings` defaults to half the kernel, which keeps the size of the map.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=64)]
    kernels: tuple[Kernel, ...] | None = None
    strides: tuple[Stride, ...] | None = None
    pools: tuple[Block, ...] | None = None
    paddings: tuple[Padding, ...] | None = None
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.05
    head: Literal["linear", "conv"] = "linear"

    @model_validator(mode="after")
    def _one_for_each_block(self) -> PlainSizes:
        blocks = len(self.widths)
        for name in ("kernels", "strides", "paddings"):
            given = getattr(self, name)
            if given is not None and len(given) != blocks:
                raise ValueError(f"{name} has {len(given)} numbers for {blocks} widths")
        if self.pools and max(self.pools) > blocks:
            raise ValueError(f"pools names block {max(self.pools)} of {blocks}")
        return self


def plain(sizes: PlainSizes, channels: int, classes: int) -> nn.Sequential:
    """Return the network: (N, channels, H, W) to logits (N, classes)."""
    blocks = len(sizes.widths)
    kernels = sizes.kernels or (5, *[3] * (blocks - 1))
    strides = sizes.strides or (1,) * blocks
    paddings = sizes.paddings or tuple(kernel // 2 for kernel in kernels)
    pools = sizes.pools if sizes.pools is not None else (1, 3)
    layers: list[nn.Module] = []
    inputs = channels
    rows = zip(sizes.widths, kernels, strides, paddings, strict=True)
    for block, (width, kernel, stride, padding) in enumerate(rows, start=1):
        # No bias: BatchNorm takes out the mean that a bias would add.
        layers.append(nn.Conv2d(inputs, width, kernel, stride, padding, bias=False))
        if block in pools:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        inputs = width
    if sizes.head == "linear":
        layers += [GlobalAvgPool(), Dropout(sizes.dropout), nn.Linear(inputs, classes)]
    else:
        layers += [Dropout(sizes.dropout), nn.Conv2d(inputs, classes, 1), GlobalAvgPool()]
    return in_order(*layers)
