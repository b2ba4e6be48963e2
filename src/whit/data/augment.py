"""Random warps of whole batches, as tensors."""

# N images, C channels, H W pixels

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from whit.recipe import AugmentSpec


def random_affines(count: int, spec: AugmentSpec, generator: torch.Generator) -> Tensor:
    """Draw one affine map per image: (N, 2, 3) float32, in pixels about the image's centre.

    Each maps a place of the warped image to the place in the original that it shows. Angle,
    shear, scale and shifts are uniform in the ranges of `spec`.
    """
    uniform = torch.rand(5, count, generator=generator).mul_(2).sub_(1)  # in [-1, 1)
    angle = uniform[0] * math.radians(spec.rotate)
    shear = torch.tan(uniform[1] * math.radians(spec.shear))
    zoom = 1 + uniform[2] * spec.scale
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    # Shear first, then rotate and zoom: [[cos, -sin], [sin, cos]] @ [[1, shear], [0, 1]].
    affines = torch.empty(count, 2, 3)
    affines[:, 0, 0] = cos
    affines[:, 0, 1] = cos * shear - sin
    affines[:, 0, 2] = uniform[3] * spec.shift
    affines[:, 1, 0] = sin
    affines[:, 1, 1] = sin * shear + cos
    affines[:, 1, 2] = uniform[4] * spec.shift
    return affines


def warp(images: Tensor, affines: Tensor) -> Tensor:
    """Warp a batch: (N, C, H, W) float and (N, 2, 3) in pixels to (N, C, H, W).

    Bilinear between pixels, 0 outside the image.
    """
    height, width = images.shape[2:]
    # Places are measured in half-widths and half-heights, as grid_sample wants them. One product
    # of all rows with all places: affine_grid's batched product is ten times slower here.
    theta = affines.clone()
    theta[:, 0, 1] *= height / width
    theta[:, 1, 0] *= width / height
    theta[:, 0, 2] *= 2 / width
    theta[:, 1, 2] *= 2 / height
    x = (2 * torch.arange(width) + 1) / width - 1
    y = (2 * torch.arange(height) + 1) / height - 1
    places = torch.stack(
        [x.repeat(height), y.repeat_interleave(width), torch.ones(len(x) * len(y))]
    )
    grid = theta.view(-1, 3) @ places  # (2N, 3) @ (3, HW)
    grid = grid.view(-1, 2, height, width).permute(0, 2, 3, 1).to(images.device)
    return F.grid_sample(images, grid, "bilinear", "zeros", align_corners=False)
