"""Dropout of any kind is found with any p > 0, and with p = 0 there is none.

Run: pytest tests/analysis/test_rare_dropout.py
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whit.analysis import audit_model


class Dropping(nn.Module):
    """A small network whose map goes through `forward(parts, map, p)`."""

    def __init__(self, forward, p: float, **parts: nn.Module):
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 3, 2)
        for name, part in parts.items():
            setattr(self, name, part)
        self._written = (forward, p)

    def forward(self, x: Tensor) -> Tensor:
        forward, p = self._written
        return forward(self, self.conv(x), p).mean((2, 3))


def overwrite(x: Tensor, p: float) -> Tensor:
    x = x.clone()
    x[torch.rand_like(x) < p] = 0
    return x


BY_HAND = {
    "bernoulli": lambda x, p: x * torch.empty_like(x).bernoulli_(1 - p) / (1 - p),
    "probabilities": lambda x, p: x * torch.bernoulli(torch.full_like(x, 1 - p)),
    "boolean": lambda x, p: x * torch.empty(x.shape, dtype=torch.bool).bernoulli_(1 - p),
    "above": lambda x, p: x * (torch.rand_like(x) > p),
    "not below": lambda x, p: x * (torch.rand_like(x) >= p).float() / (1 - p),
    "kept": lambda x, p: x * (torch.rand(x.shape) < 1 - p),
    "floor": lambda x, p: x * torch.floor(1 - p + torch.rand_like(x)),
    "where": lambda x, p: torch.where(torch.rand_like(x) < p, 0.0, x),
    "filled": lambda x, p: x.masked_fill(torch.rand_like(x) < p, 0),
    "written": overwrite,
    "channels": lambda x, p: x * (torch.rand(1, x.shape[1], 1, 1) > p),
    "distribution": lambda x, p: (
        x * torch.distributions.Bernoulli(torch.full_like(x, 1 - p)).sample()
    ),
    "blocks": lambda x, p: x * (F.max_pool2d((torch.rand_like(x) < p).float(), 3, 1, 1) == 0),
    "integers": lambda x, p: x * (torch.randint(0, int(1 / p), x.shape) > 0),
    "exponential": lambda x, p: x * (torch.empty_like(x).exponential_() > p),
}
PATHS = {
    "one draw for each image": lambda x, p: x + x * (torch.rand(x.shape[0], 1, 1, 1) > p),
    "drawn in place": lambda x, p: x + x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(1 - p),
    "one draw for the batch": lambda x, p: x + x * torch.bernoulli(torch.tensor(1 - p)),
}
MODULES = (nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def find_random(model: nn.Module) -> set[str]:
    found = audit_model(model, (1, 12, 12))
    assert found.kinds_known
    return found.kinds & {"dropout", "droppath", "noise"}


def in_training(name: str, cases: dict, p: float) -> Dropping:
    return Dropping(lambda m, x, p: cases[name](x, p) if m.training else x, p)


@pytest.mark.parametrize("p", [0.001, 1e-6])
@pytest.mark.parametrize("name", BY_HAND)
def test_masks_by_hand(name: str, p: float) -> None:
    assert find_random(in_training(name, BY_HAND, p)) == {"dropout"}


@pytest.mark.parametrize("p", [0.001, 1e-6])
@pytest.mark.parametrize("name", PATHS)
def test_dropped_paths(name: str, p: float) -> None:
    assert find_random(in_training(name, PATHS, p)) == {"droppath"}


@pytest.mark.parametrize("p", [0.001, 1e-6])
@pytest.mark.parametrize("module", MODULES)
def test_modules(module: type[nn.Module], p: float) -> None:
    assert find_random(Dropping(lambda m, x, p: m.drop(x), p, drop=module(p))) == {"dropout"}


@pytest.mark.parametrize("p", [0.001, 1e-6])
def test_other_shapes_and_functions(p: float) -> None:
    forwards = {
        "1d": lambda m, x, p: F.dropout1d(x.flatten(2), p, m.training).view_as(x),
        "3d": lambda m, x, p: F.dropout3d(x[:, :, None], p, m.training)[:, :, 0],
        "function": lambda m, x, p: F.dropout(x, p, m.training),
        "torch.dropout": lambda m, x, p: torch.dropout(x, p, m.training),
        "of a vector": lambda m, x, p: F.dropout(x.mean((2, 3)), p, m.training)[:, :, None, None],
    }
    for forward in forwards.values():
        assert find_random(Dropping(forward, p)) == {"dropout"}


def test_with_p_0_there_is_none() -> None:
    for module in MODULES:
        assert not find_random(Dropping(lambda m, x, p: m.drop(x), 0, drop=module(0.0)))
    for name in ("bernoulli", "probabilities", "not below", "where", "filled", "written"):
        assert not find_random(in_training(name, BY_HAND, 0.0))


def test_noise_is_no_dropout() -> None:
    noisy = {"gaussian": lambda x, p: x * (1 + p * torch.randn_like(x))}
    assert find_random(in_training("gaussian", noisy, 0.1)) == {"noise"}


@pytest.mark.parametrize("p", [0.5, 1e-6])
def test_a_mask_of_numpy_is_unknown(p: float) -> None:
    def forward(m: Dropping, x: Tensor, p: float) -> Tensor:
        mask = torch.from_numpy((np.random.rand(*x.shape) > p).astype(np.float32))
        return x * mask if m.training else x

    found = audit_model(Dropping(forward, p), (1, 12, 12))
    assert not found.kinds_known
    assert any("numbers from outside the pass" in note for note in found.notes)


def test_numbers_drawn_in_inference_are_noted() -> None:
    found = audit_model(Dropping(lambda m, x, p: F.dropout(x, 0.5, True), 0), (1, 12, 12))
    assert "random numbers are drawn in inference" in found.notes
