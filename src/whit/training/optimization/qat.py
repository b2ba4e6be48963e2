"""Low-bit weights by quantization-aware training.

The method of BinaryConnect (arXiv 1511.00363) and of quantization-aware training (arXiv
1712.05877): forward and backward use fake-quantized weights, the step updates those in float.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from whit.recipes.recipe_tables import QATSpec


def qmax(bits: int) -> int:
    """Return the largest integer weight of `bits` bits; the range is -qmax to qmax."""
    return (1 << (bits - 1)) - 1


def fake_quantize(weight: Tensor, bits: int) -> Tensor:
    """Return `weight` (O, ...) with each output channel as integer multiples of one scale.

    They take 2**bits - 1 values, symmetric about zero, and the largest magnitude is preserved:
    quantizing them again changes no bit.
    """
    max_abs = weight.flatten(1).abs().amax(1).view(-1, *[1] * (weight.ndim - 1))
    scale = max_abs / qmax(bits)
    return torch.where(max_abs > 0, (weight / scale).round() * scale, weight)


class FakeQuantizer:
    """Fake-quantizes the weights of convolutions and linear layers from progress `start` on.

    Between `apply` and `restore` the model has quantized weights; without a spec it does nothing.
    Weights that layers share are quantized once. Biases and norms stay in float precision.
    """

    def __init__(self, model: nn.Module, spec: QATSpec | None):
        self.spec = spec
        weights = {id(w): w for w in model.parameters() if w.ndim >= 2} if spec else {}
        self.weights: list[Tensor] = list(weights.values())
        self._float_weights: list[Tensor] = []  # while quantized ones replace them

    @torch.no_grad()
    def apply(self, progress: float) -> None:
        if self.spec is None or progress < self.spec.start:
            return
        self._float_weights = [weight.detach().clone() for weight in self.weights]
        self.finalize()

    @torch.no_grad()
    def restore(self) -> None:
        if self._float_weights:
            torch._foreach_copy_(self.weights, self._float_weights)
        self._float_weights = []

    @contextmanager
    def quantized_weights(self, progress: float) -> Iterator[None]:
        """Quantize the weights inside the context, as training at `progress` in [0, 1] does."""
        self.apply(progress)
        try:
            yield
        finally:
            self.restore()

    @torch.no_grad()
    def finalize(self) -> None:
        """Quantize the weights for good."""
        if self.spec:
            for weight in self.weights:
                weight.copy_(fake_quantize(weight, self.spec.bits))
