"""Batches of training images, ready for the model: N images, C channels, H W pixels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from whit.data.normalization import Normalize
from whit.data.splits import Split
from whit.recipes.recipe_tables import AugmentSpec
from whit.system.rng import derive_seed


def count_batches(num_images: int, batch_size: int) -> int:
    """Return the batches of an epoch: the last one has the images that are left.

    A single image that is left joins the batch before it, which is then larger by one: BatchNorm
    has no statistics of one image.
    """
    num_batches = -(-num_images // batch_size)
    is_single = num_images % batch_size == 1
    return num_batches - 1 if is_single and 1 < batch_size < num_images else num_batches


class Loader:
    """Shuffled, augmented, normalized batches of one split, of the sizes of `count_batches`.

    Order and augmentation of an epoch depend on (seed, epoch) and the recipe only, unless the order
    is given. The split is on the device as uint8, so a batch is one gather.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        normalize: Normalize,
        augment: AugmentSpec | None = None,
        *,
        epochs: int = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        self.images = split.images.to(device)  # (N, C, H, W) uint8
        self.labels = split.labels.to(device)  # (N,) int64
        self.batch_size = batch_size
        self.normalize = normalize
        self.augmentations = augment.active() if augment else []
        self.augment_until = augment.end if augment else 0.0  # progress: a share of `epochs`
        self.epochs = epochs
        self.seed = seed

    def epoch(
        self, epoch: int, done: int = 0, order: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels): (N, C, H, W) float32 channels-last and (N,) int64.

        The first `done` batches are skipped; the others are the same as without skipping.
        `order` has the indices of the images; by default, all of them, shuffled.
        """
        if order is None:
            order = torch.randperm(len(self.labels), generator=self._generator("shuffle", epoch))
        num_batches = count_batches(len(order), self.batch_size)
        streams = [(a, self._generator(a.rng_stream, epoch)) for a in self.augmentations]
        order = order.to(self.labels.device)
        for index in range(num_batches):
            first = index * self.batch_size
            last = first + self.batch_size if index + 1 < num_batches else len(order)
            batch = order[first:last]
            progress = (epoch - 1 + first / len(order)) / self.epochs
            active = streams if progress < self.augment_until else []
            parameters = [(a, a.draw(len(batch), generator)) for a, generator in active]
            if index < done:
                continue
            images = self.images[batch].float()
            for augmentation, values in parameters:
                images = augmentation.apply(images, values)
            images = self.normalize(images).contiguous(memory_format=torch.channels_last)
            yield images, self.labels[batch]

    def _generator(self, purpose: str, epoch: int) -> torch.Generator:
        seed = derive_seed(self.seed, purpose, epoch)  # type: ignore[arg-type]
        return torch.Generator().manual_seed(seed)
