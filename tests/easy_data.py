"""A data set of 10 classes that a tiny network learns in a second: stripes by direction."""

from __future__ import annotations

import numpy as np
import torch

from whit.data.splits import Split


def easy_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) uint8 of stripes whose direction is the label, and the labels."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 10).astype(np.uint8)
    y, x = np.mgrid[:28, :28]
    angles = (np.pi * labels / 10)[:, None, None]
    phases = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    waves = np.sin(1.2 * (np.cos(angles) * x + np.sin(angles) * y) + phases)
    noise = rng.normal(0, 10, (count, 28, 28))
    return np.clip(127 + 100 * waves + noise, 0, 255).astype(np.uint8), labels


def easy_split(name: str, count: int, seed: int = 0) -> Split:
    images, labels = easy_images(count, seed)
    return Split(
        name,  # type: ignore[arg-type]
        torch.from_numpy(images)[:, None].contiguous(),
        torch.from_numpy(labels).long(),
    )
