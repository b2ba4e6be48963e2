"""Test-time augmentation over pixel shifts, against shifts computed by hand.

pytest tests/models/test_tta.py
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from whit.models.plain import PlainConfig, plain
from whit.models.tta import ShiftTTA, with_tta
from whit.recipes.recipe_tables import EvalSpec


def small_network(crop: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return plain(PlainConfig(widths=(4, 6), pool_after=(1,), crop=crop), 1, 10).eval()


@pytest.mark.parametrize("num_shifts", [4, 8])
def test_the_mean_over_the_image_and_its_shifts(num_shifts: int) -> None:
    network = small_network()
    model = with_tta(network, num_shifts)
    # Within a blank border, rolling an image is shifting it.
    images = F.pad(torch.rand(3, 1, 20, 22), (3, 3, 4, 4))
    steps = (-1, 0, 1)
    shifts = [(r, d) for r in steps for d in steps if num_shifts == 8 or 0 in (r, d)]
    assert len(shifts) == num_shifts + 1
    logits = [network(images.roll((d, r), (2, 3))) for r, d in shifts]
    torch.testing.assert_close(model(images), torch.stack(logits).mean(0))
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


def test_borders_are_replicated() -> None:
    network = small_network(crop=0)
    image = torch.rand(1, 1, 9, 8)
    right = torch.cat([image[..., :1], image[..., :-1]], 3)
    down = torch.cat([image[:, :, :1], image[:, :, :-1]], 2)
    left = torch.cat([image[..., 1:], image[..., -1:]], 3)
    up = torch.cat([image[:, :, 1:], image[:, :, -1:]], 2)
    logits = [network(each) for each in (image, right, left, down, up)]
    torch.testing.assert_close(with_tta(network, 4)(image), torch.stack(logits).mean(0))


def test_no_shifts_are_the_network_itself() -> None:
    network = small_network()
    assert with_tta(network, 0) is network


def test_wrapping_keeps_the_mode_of_the_network() -> None:
    for is_training in (False, True):
        network = small_network().train(is_training)
        wrapped = ShiftTTA(network, 4)
        assert wrapped.training is network.training is is_training
        wrapped.eval()
        assert not network.training
        wrapped.train(is_training)
        assert network.training is is_training


@pytest.mark.parametrize("tta_shifts", [1, 2, 5, 9, True, "4"])
def test_other_numbers_of_shifts_are_refused(tta_shifts: object) -> None:
    with pytest.raises(ValueError, match="tta_shifts"):
        EvalSpec(tta_shifts=tta_shifts)
