"""Weights of few bits: training with the weights rounded, so that it learns to live with that.

The method of BinaryConnect (arXiv 1511.00363) and of quantisation-aware training (arXiv
1712.05877): forward and backward use rounded weights, the step changes those behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from whit.recipe import QuantiseSpec


def most_of(bits: int) -> int:
    """Return the largest whole number that a weight of `bits` bits can be, and least below 0."""
    return (1 << (bits - 1)) - 1


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Return `weight` (O, ...) with the numbers of each output as whole multiples of one step.

    They are 2**bits - 1 different ones, zero in their middle, and the largest is kept: rounded
    again, they stay what they are, to the last bit.
    """
    largest = weight.flatten(1).abs().amax(1).view(-1, *[1] * (weight.ndim - 1))
    step = largest / most_of(bits)
    return torch.where(largest > 0, (weight / step).round() * step, weight)


class Rounding:
    """The weights of convolutions and linear layers, rounded from progress `start` on.

    Between `put_on` and `take_off` the model has rounded weights; without a spec nothing happens.
    Weights that layers share are rounded once. Biases and norms are left as they are.
    """

    def __init__(self, model: nn.Module, spec: QuantiseSpec | None):
        self.spec = spec
        weights = {id(w): w for w in model.parameters() if w.ndim >= 2} if spec else {}
        self.weights: list[Tensor] = list(weights.values())
        self.behind: list[Tensor] = []

    @torch.no_grad()
    def put_on(self, progress: float) -> None:
        if self.spec is None or progress < self.spec.start:
            return
        self.behind = [weight.detach().clone() for weight in self.weights]
        self.settle()

    @torch.no_grad()
    def take_off(self) -> None:
        if self.behind:
            torch._foreach_copy_(self.weights, self.behind)
        self.behind = []

    @contextmanager
    def on(self, progress: float) -> Iterator[None]:
        """Look at the model as training at `progress` sees it."""
        self.put_on(progress)
        try:
            yield
        finally:
            self.take_off()

    @torch.no_grad()
    def settle(self) -> None:
        """Round the weights for good."""
        if self.spec:
            for weight in self.weights:
                weight.copy_(rounded(weight, self.spec.bits))
