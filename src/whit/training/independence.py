"""Whether a trained network judges each image alone: probed on images that it may have seen."""

from __future__ import annotations

import torch
from torch import nn

from whit.analysis import find_batch_dependence, preserve_model
from whit.data.normalization import Normalize
from whit.data.splits import Dataset

_EVALUATION_BATCH = 500  # as `evaluate` takes them


def find_trained_dependence(
    model: nn.Module, dataset: Dataset, normalize: Normalize, device: torch.device | str = "cpu"
) -> str | None:
    """Return why the output for an image depends on more than that image; None if it does not.

    Uses validation images, or else training images, never those of the test split. A dependence
    may be too small to see before training, or behind a gate that training opens. The model is
    left unchanged.
    """
    split = dataset.val or dataset.train
    images = normalize(split.images[: 2 * _EVALUATION_BATCH].to(device).float())
    with preserve_model(model):
        return find_batch_dependence(model, images, _EVALUATION_BATCH)
