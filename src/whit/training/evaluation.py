"""Evaluating a model on a split, image by image, and whether it judges each image alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.analysis import find_batch_dependence, preserve_model
from whit.data.normalization import Normalize
from whit.data.splits import Dataset, Split
from whit.runs.result import Evaluation
from whit.training.hardware.threads import use_free_cores

_BATCH = 500


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    split: Split,
    normalize: Normalize,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = _BATCH,
    on_progress: Callable[[str, int, int], None] = lambda split, done, total: None,
) -> Evaluation:
    """Return correct, total and mean loss over every image of `split`, in fp32.

    The last batch may be smaller; the evaluated images are counted and must be all of the split.
    The mode of the model is restored. `on_progress` is called with the name of the split and how
    many of how many images are evaluated: first with 0, then after each batch.
    """
    started = time.perf_counter()
    was_training = model.training
    misclassified: list[int] = []
    total, loss = 0, 0.0
    on_progress(split.name, 0, len(split))
    for first, logits, labels in _batches(model.eval(), split, normalize, device, batch_size):
        is_wrong = logits.argmax(1) != labels
        misclassified += (is_wrong.nonzero().flatten() + first).tolist()
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        total += len(labels)
        on_progress(split.name, total, len(split))
    model.train(was_training)
    assert total == len(split), f"evaluated {total} of {len(split)} images"
    seconds = time.perf_counter() - started
    mean_loss = loss / total if math.isfinite(loss) else None
    correct = total - len(misclassified)
    return Evaluation(split.name, correct, total, mean_loss, seconds, tuple(misclassified))


@torch.inference_mode()
def predict(model: nn.Module, split: Split, normalize: Normalize) -> Tensor:
    """Return the logits, float32 (N, K), of every image of `split` in its order.

    In the same batches as `evaluate`, so that both give the same classes. The mode of the
    model is restored.
    """
    was_training = model.training
    parts = []
    with use_free_cores() as update_threads:
        for _, logits, _ in _batches(model.eval(), split, normalize, "cpu", _BATCH):
            parts.append(logits)
            update_threads()
    model.train(was_training)
    logits = torch.cat(parts)
    assert len(logits) == len(split), f"predicted {len(logits)} of {len(split)} images"
    return logits


def find_trained_dependence(
    model: nn.Module, dataset: Dataset, normalize: Normalize, device: torch.device | str = "cpu"
) -> str | None:
    """Return why the output for an image depends on more than that image; None if it does not.

    Uses validation images, or else training images, never those of the test split. A dependence
    may be too small to see before training, or behind a gate that training opens. The model is
    left unchanged.
    """
    val = dataset.val
    split = val if val and len(val) >= _BATCH else dataset.train
    images = normalize(split.images[:_BATCH].to(device).float())
    with preserve_model(model):
        return find_batch_dependence(model, images, _BATCH)


def _batches(
    model: nn.Module,
    split: Split,
    normalize: Normalize,
    device: torch.device | str,
    batch_size: int,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (index of the first image, logits (N, K), labels (N,)) of each batch."""
    for first in range(0, len(split), batch_size):
        images = split.images[first : first + batch_size].to(device).float()
        labels = split.labels[first : first + batch_size].to(device)
        images = normalize(images).contiguous(memory_format=torch.channels_last)
        yield first, model(images), labels
