"""Normalization of pixels, (N, C, H, W), by the mean and standard deviation of each channel."""

from __future__ import annotations

from fractions import Fraction
from math import sqrt

import torch
from torch import Tensor

from whit.data.splits import Dataset, Split
from whit.recipes.recipe_tables import DataSpec

# A tenth of a grey level. Only a channel that is constant, or nearly so over all images,
# has a smaller deviation; dividing by it would amplify noise.
MIN_STD = 0.1 / 255


class Normalize:
    """(pixel / 255 - mean) / std per channel, as one multiplication and one addition.

    mean, std: one number per channel, in units of pixel / 255
    """

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device | str = "cpu"
    ):
        shape = (1, len(mean), 1, 1)
        scale = [1 / (255 * s) for s in std]
        offset = [-m / s for m, s in zip(mean, std, strict=True)]
        self.scale = torch.tensor(scale, device=device).view(shape)
        self.offset = torch.tensor(offset, device=device).view(shape)

    def __call__(self, images: Tensor) -> Tensor:
        """Convert pixels 0..255, float (N, C, H, W), to model input, in place."""
        return images.mul_(self.scale).add_(self.offset)


def build_normalize(spec: DataSpec, dataset: Dataset, device: torch.device | str) -> Normalize:
    """Return the normalization of a recipe, by default with the training split's statistics."""
    if spec.mean is not None and spec.std is not None:
        return Normalize(spec.mean, spec.std, device)
    return Normalize(*compute_channel_stats(dataset.train), device)


def compute_channel_stats(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std) of each channel, in units of pixel / 255.

    Exact: grey levels are counted as integers and the two moments are fractions until the last
    step, so the result depends neither on the order of the images nor on the machine. std is the
    population's (divided by the number of pixels), and at least MIN_STD.
    """
    means, stds = [], []
    for counts in split.grey_levels:
        total = sum(counts)
        first = Fraction(sum(level * count for level, count in enumerate(counts)), total)
        second = Fraction(sum(level**2 * count for level, count in enumerate(counts)), total)
        means.append(float(first / 255))
        stds.append(max(sqrt((second - first**2) / 255**2), MIN_STD))
    return tuple(means), tuple(stds)
