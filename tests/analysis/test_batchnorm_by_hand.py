"""Batch normalization that is written by hand is one, whatever its formula and its averages.

Run: pytest tests/analysis/test_batchnorm_by_hand.py
"""

from __future__ import annotations

import pytest
import torch
from cheats import IMAGE, Base
from torch import Tensor, nn

from whit.analysis import audit_model


class ByHand(nn.Module):
    """Means of the batch in training, running averages in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.ones(10)), nn.Parameter(torch.zeros(10))
        self.register_buffer("mean", torch.zeros(10))
        self.register_buffer("var", torch.ones(10))

    def find_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self.mean, self.var
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        with torch.no_grad():
            self.mean.lerp_(mean, 0.1)
            self.var.lerp_(var, 0.1)
        return mean, var

    def forward(self, x: Tensor) -> Tensor:
        mean, var = (each.view(1, -1, 1, 1) for each in self.find_statistics(x))
        normalized = (x - mean) / (var + 1e-5).sqrt()
        return self.gain.view(1, -1, 1, 1) * normalized + self.bias.view(1, -1, 1, 1)


class ScaleAndShift(ByHand):
    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.find_statistics(x)
        scale = self.gain * torch.rsqrt(var + 1e-5)
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


class PlainAverages(ByHand):
    """As in textbooks: averages in plain attributes, bound anew in each step."""

    def __init__(self) -> None:
        super().__init__()
        del self.mean, self.var
        self.mean, self.var = torch.zeros(10), torch.ones(10)

    def find_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self.mean, self.var
        mean = x.mean((0, 2, 3))
        var = ((x - mean.view(1, -1, 1, 1)) ** 2).mean((0, 2, 3))
        self.mean = 0.9 * self.mean + 0.1 * mean.detach()
        self.var = 0.9 * self.var + 0.1 * var.detach()
        return mean, var


class Flat(ByHand):
    def find_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self.mean, self.var
        var, mean = torch.var_mean(x.transpose(0, 1).flatten(1), 1)
        self.mean.copy_(mean)
        self.var.copy_(var)
        return mean, var


@pytest.mark.parametrize("norm", [ByHand, ScaleAndShift, PlainAverages, Flat])
def test_it_is_seen(norm: type[nn.Module]) -> None:
    model = Base()
    model.norm = norm()
    found = audit_model(model, IMAGE, 10)
    assert {"batchnorm", "gap"} <= found.kinds
    assert found.kinds_known
    assert found.batch_dependence is None
    if norm is not PlainAverages:
        assert found.unverified == ()
    assert found.params.total == 120  # the averages too: nobody says that they are only averages


def test_averages_that_are_not_saved_are_named() -> None:
    model = Base()
    model.norm = PlainAverages()
    (sentence,) = audit_model(model, IMAGE, 10).unverified
    assert sentence.startswith("training changes norm.mean, norm.var, outside parameters")
    assert sentence.endswith("Use register_buffer")


class Centered(ByHand):
    """No division: no normalization."""

    def forward(self, x: Tensor) -> Tensor:
        mean, _ = self.find_statistics(x)
        return x - mean[:, None, None]


class OfEachImage(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)


@pytest.mark.parametrize("norm", [Centered, OfEachImage])
def test_others_are_none(norm: type[nn.Module]) -> None:
    model = Base()
    model.norm = norm()
    assert "batchnorm" not in audit_model(model, IMAGE, 10).kinds
