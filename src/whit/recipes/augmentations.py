"""Random augmentations of training images; each is one entry of AUGMENTATIONS.

The recipe's schema, the loader and the reports iterate over the entries. torch is imported at the
first use, so a recipe is read without it.

N images, C channels, H W pixels.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from whit.recipes.field_types import Real, key_field

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Augmentation(BaseModel):
    """An augmentation; its fields are keys of `[augment]`, off by default."""

    model_config = ConfigDict(frozen=True)

    rng_stream: ClassVar[str]
    """The name of the stream that its random numbers come from."""

    @abstractmethod
    def draw(self, count: int, generator: Generator) -> Tensor:
        """Draw the random parameters of `count` images, with `count` as the first dimension."""

    @abstractmethod
    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Return the augmented images: float (N, C, H, W), from 0 to 255, before and after."""

    def describe(self) -> str:
        """Return the keys that differ from their defaults, for reports."""
        fields = type(self).model_fields
        return ", ".join(f"{key} {v:g}" for key, v in self if v != fields[key].default)


class Affine(Augmentation):
    """Random rotation, translation, scale and shear as one affine map for each image.

    All are drawn uniformly from a range that is symmetric about no change.
    """

    rng_stream = "warp"

    degrees: Annotated[Real, Field(ge=0, le=180)] = key_field(
        0.0, "maximum rotation in either direction", "degrees"
    )
    translate: Annotated[Real, Field(ge=0, le=100)] = key_field(
        0.0, "maximum translation in either direction along each axis", "pixels"
    )
    scale: Annotated[Real, Field(ge=0, lt=1)] = key_field(
        0.0, "maximum change of size, larger or smaller", "fraction"
    )
    shear: Annotated[Real, Field(ge=0, lt=90)] = key_field(
        0.0, "maximum shear in either direction", "degrees"
    )

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Return affine maps, float32 (N, 2, 3), in pixels about the center of the image.

        Each maps a position of the augmented image to a position of the original.
        """
        import torch

        uniform = torch.rand(5, count, generator=generator).mul_(2).sub_(1)  # in [-1, 1)
        angle = uniform[0] * math.radians(self.degrees)
        shear = torch.tan(uniform[1] * math.radians(self.shear))
        zoom = 1 + uniform[2] * self.scale
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        # Shear first, then rotate and zoom: [[cos, -sin], [sin, cos]] @ [[1, shear], [0, 1]].
        first_row = cos, cos * shear - sin, uniform[3] * self.translate
        second_row = sin, sin * shear + cos, uniform[4] * self.translate
        return torch.stack([*first_row, *second_row], dim=1).view(count, 2, 3)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Resample images by affine maps: bilinear between pixels, 0 outside the image."""
        import torch
        from torch.nn import functional as F

        height, width = images.shape[2:]
        # grid_sample measures in half-widths and half-heights. One product of all rows with all
        # positions: affine_grid's batched product is ten times slower here.
        theta = parameters * torch.tensor(
            [[1, height / width, 2 / width], [width / height, 1, 2 / height]]
        )
        x = (2 * torch.arange(width) + 1) / width - 1
        y = (2 * torch.arange(height) + 1) / height - 1
        positions = torch.stack(
            [x.repeat(height), y.repeat_interleave(width), torch.ones(len(x) * len(y))]
        )
        grid = theta.view(-1, 3) @ positions  # (2N, 3) @ (3, HW)
        grid = grid.view(-1, 2, height, width).permute(0, 2, 3, 1).to(images.device)
        return F.grid_sample(images, grid, "bilinear", "zeros", align_corners=False)


AUGMENTATIONS: tuple[type[Augmentation], ...] = (Affine,)  # in the order applied
