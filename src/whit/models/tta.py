"""Test-time augmentation over pixel shifts: a property of evaluation, not a layer of the network.

N images, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MAX_BATCH = 1000  # shifted images in a forward pass: more take memory and no less time
# Shifts to the right and down, in pixels: none, to the four sides, to the four corners.
_SHIFTS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


class ShiftTTA(nn.Module):
    """The mean of a network's logits for an image and for its shifts by one pixel.

    `num_shifts` is 4 for the four sides, 8 with the diagonals. Borders are padded by replication.
    For evaluation only. AlexNet averages over ten crops in the same way (Krizhevsky et al. 2012).
    """

    def __init__(self, network: nn.Module, num_shifts: int):
        super().__init__()
        self.network = network
        self.shifts = _SHIFTS[: num_shifts + 1]
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        height, width = images.shape[2:]
        shifted = [
            padded[:, :, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
            for right, down in self.shifts
        ]
        batch = torch.cat(shifted).contiguous(memory_format=torch.channels_last)
        logits = torch.cat([self.network(part) for part in torch.split(batch, _MAX_BATCH)])
        return logits.view(len(shifted), len(images), -1).mean(0)

    def extra_repr(self) -> str:
        return f"num_shifts={len(self.shifts) - 1}"


def with_tta(network: nn.Module, num_shifts: int) -> nn.Module:
    """Return the network as it is evaluated: with test-time augmentation, or itself for 0."""
    return ShiftTTA(network, num_shifts) if num_shifts else network
