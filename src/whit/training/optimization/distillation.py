"""Knowledge distillation: training on a teacher's softened class probabilities and the labels."""

# N images, C channels, H W pixels, K classes

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.data.datasets import load_dataset
from whit.data.normalization import Normalize, build_normalize
from whit.models.build import load_model
from whit.models.run_source import find_run_source
from whit.models.tta import with_tta
from whit.recipes.recipe import Recipe
from whit.recipes.recipe_tables import DistillSpec
from whit.runs import layout
from whit.runs.teacher import Teacher


class Distillation:
    """The loss of a student (Hinton, Vinyals and Dean, arXiv 1503.02531).

    With temperature T and weight w it is (1 - w) times the labels' cross-entropy plus w T² times
    the divergence of the student's softmax(logits / T) from the teacher's, the mean over images.
    T² makes the scale of the second part's gradient independent of T. The teacher is in evaluation
    mode and sees the same augmented images.
    """

    def __init__(
        self, teacher: nn.Module, spec: DistillSpec, student: Normalize, taught: Normalize
    ):
        """`student` normalizes the images of a batch, `taught` those the teacher was trained on."""
        self.teacher = teacher
        self.weight = spec.weight
        self.temperature = spec.temperature
        factor = taught.scale / student.scale
        shift = taught.offset - student.offset * factor
        same = bool((factor == 1).all() and (shift == 0).all())
        self.renormalize = None if same else (factor, shift)

    def loss(self, labels_loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Return the loss of a batch: logits (N, K) of the student, images (N, C, H, W)."""
        if self.renormalize:
            factor, shift = self.renormalize
            images = images * factor + shift
        with torch.no_grad():
            teacher_logits = self.teacher(images).float() / self.temperature  # (N, K)
        divergence = F.kl_div(
            F.log_softmax(logits / self.temperature, dim=1),
            F.log_softmax(teacher_logits, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return labels_loss.lerp(self.temperature**2 * divergence, self.weight)


def build_distillation(
    teacher: Teacher, recipe: Recipe, normalize: Normalize, device: torch.device
) -> Distillation:
    """Load the teacher of a recipe; `normalize` is that of the student's images.

    Raises InputError when the weights do not fit its network.
    """
    run = teacher.run
    trained = run.local_recipe
    source = find_run_source(run.path, trained.model, run.environment)
    network = load_model(trained, run.path / layout.WEIGHTS, seed=run.seed or 0, source=source)
    network.eval().requires_grad_(False)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    data, taught = trained.data, normalize
    if data != recipe.data:
        taught = build_normalize(data, load_dataset(data), device)
    assert recipe.distill
    model = with_tta(network, run.recipe.eval.tta_shifts)
    return Distillation(model, recipe.distill, normalize, taught)
