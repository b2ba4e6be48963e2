"""Importance sampling: the images that an epoch trains on, by the last loss of each."""

# N images of the training split, n of them in an epoch, K classes

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from whit.recipes.recipe_tables import SamplingSpec
from whit.system.rng import derive_seed

_LOSS_FLOOR = 0.003  # nats; added to each loss, so that no image is never drawn


class ImportanceSampler:
    """Draws the images of each epoch without replacement; a high last loss makes one likely.

    The draw is that of Efraimidis and Spirakis (Weighted random sampling with a reservoir, 2006):
    the n largest of log(u) / weight, with u uniform in (0, 1). The losses are those of training
    itself, on augmented images, so they cost no forward pass.
    """

    def __init__(self, spec: SamplingSpec, seed: int):
        self.spec = spec
        self.seed = seed
        self.losses = torch.empty(0)  # (N,) float32, nats; inf: not drawn yet
        self.order = torch.empty(0, dtype=torch.int64)  # (n,) indices, as the epoch trains on them

    def fits(self, num_train: int) -> bool:
        """Whether the losses are of a split of `num_train` images: data may have been replaced."""
        return len(self.losses) == num_train

    def draw(self, epoch: int, num_train: int) -> None:
        """Set `order` for an epoch; it depends on (seed, epoch) and the losses."""
        if not self.fits(num_train):
            self.losses = torch.full((num_train,), torch.inf)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "shuffle", epoch))
        losses, comes_first = self.losses, self.losses.isinf()
        if self.spec.unseen == "mean" and not comes_first.all():
            losses = torch.where(comes_first, losses[self.order].mean(), losses)
            comes_first = losses.isinf()
        weights = (losses + _LOSS_FLOOR) ** self.spec.power
        uniform = torch.rand(num_train, generator=generator)
        keys = torch.where(comes_first, uniform, uniform.log() / weights)  # > 0, and <= 0
        count = self.spec.num_images(num_train)
        drawn = keys.topk(count).indices  # the largest first: not yet in random order
        self.order = drawn[torch.randperm(count, generator=generator)]

    @torch.no_grad()
    def update(self, first: int, logits: Tensor, labels: Tensor) -> None:
        """Store the losses of a batch, which begins at `first` in `order`.

        logits: (B, K); labels: (B,) int64
        """
        drawn = self.order[first : first + len(labels)]
        self.losses[drawn] = F.cross_entropy(logits.float(), labels, reduction="none").cpu()

    def save(self) -> dict[str, Tensor]:
        """Return the state as tensors by name."""
        return {"losses": self.losses, "order": self.order}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `save` returned."""
        self.losses, self.order = tensors["losses"].clone(), tensors["order"].clone()
