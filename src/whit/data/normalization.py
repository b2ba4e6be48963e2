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

# Pixels counted at once: 4096 images of 28x28 fit into the processor's cache, and the count of
# one grey level cannot overflow.
_CHUNK = 1 << 22


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
    for channel in range(split.images.shape[1]):
        counts = _count_grey_levels(split.images[:, channel])
        total = sum(counts)
        first = Fraction(sum(level * count for level, count in enumerate(counts)), total)
        second = Fraction(sum(level**2 * count for level, count in enumerate(counts)), total)
        means.append(float(first / 255))
        stds.append(max(sqrt((second - first**2) / 255**2), MIN_STD))
    return tuple(means), tuple(stds)


def _count_grey_levels(images: Tensor) -> list[int]:
    """Count each of the 256 grey levels in `images`, uint8 (N, H, W)."""
    counts = torch.zeros(256, dtype=torch.int64, device=images.device)
    step = max(1, _CHUNK // images[0].numel())
    for start in range(0, len(images), step):  # in chunks, because bincount widens its input
        counts += torch.bincount(images[start : start + step].flatten(), minlength=256)
    return [int(count) for count in counts]
