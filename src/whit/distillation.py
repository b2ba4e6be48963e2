"""Learning from a trained network: its classes for each image, softened, beside the labels."""

# N images, C channels, H W pixels, K classes

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.data.datasets import load_dataset
from whit.data.loader import Normalise, data_normalise
from whit.model_ref import reject_code_in_run
from whit.models.build import load_model
from whit.recipe import DistillSpec, Recipe
from whit.teacher import Teacher


class Distillation:
    """The loss of a student (Hinton, Vinyals and Dean, arXiv 1503.02531).

    With temperature T and weight w it is (1 - w) times the labels' cross-entropy plus w T² times
    the divergence of the student's softmax(logits / T) from the teacher's, the mean over images.
    T² keeps the second part's gradient of one size whatever T is. The teacher is in evaluation
    mode and sees the same warped images.
    """

    def __init__(self, model: nn.Module, spec: DistillSpec, own: Normalise, theirs: Normalise):
        self.model = model
        self.weight = spec.weight
        self.temperature = spec.temperature
        # From images normalised as the student's to those that the teacher was trained on.
        factor = theirs.scale / own.scale
        shift = theirs.offset - own.offset * factor
        same = bool((factor == 1).all() and (shift == 0).all())
        self.renormalise = None if same else (factor, shift)

    def loss(self, labels_loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Return the loss of a batch: logits (N, K) of the student, images (N, C, H, W)."""
        if self.renormalise:
            factor, shift = self.renormalise
            images = images * factor + shift
        with torch.no_grad():
            hints = self.model(images).float() / self.temperature  # (N, K)
        divergence = F.kl_div(
            F.log_softmax(logits / self.temperature, dim=1),
            F.log_softmax(hints, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return labels_loss.lerp(self.temperature**2 * divergence, self.weight)


def distillation(
    teacher: Teacher, recipe: Recipe, own: Normalise, device: torch.device
) -> Distillation:
    """Build the teacher of a recipe, with its weights; `own` normalises the student's images.

    Raises ModelError and its kin when they do not fit its network.
    """
    run = teacher.run
    reject_code_in_run(run.recipe.model.name, run.path)
    model = load_model(run.recipe, run.path / "weights.safetensors", seed=run.seed or 0)
    model.eval().requires_grad_(False)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    data, theirs = run.recipe.data, own
    if data != recipe.data:
        theirs = data_normalise(data, load_dataset(data.name, val=data.val), device)
    assert recipe.distill
    return Distillation(model, recipe.distill, own, theirs)
