"""A plain network's crop: the same numbers as by hand, the audit's table, and the layout."""

import pytest
import torch
from torch.nn import functional as F

from whit.auditing import audit_model
from whit.models.plain import PlainSizes, plain


@pytest.mark.parametrize("channels", [1, 3])
def test_a_cropped_network_is_the_same_network_on_cropped_images(channels):
    torch.manual_seed(0)
    whole = plain(PlainSizes(widths=(4, 6), pools=(1,)), channels, 10).eval()
    cropped = plain(PlainSizes(widths=(4, 6), pools=(1,), crop=3), channels, 10).eval()
    cropped.load_state_dict(whole.state_dict())
    images = torch.randn(5, channels, 28, 26)
    by_hand = F.pad(images, (-3, -3, -3, -3))
    assert by_hand.shape == (5, channels, 22, 20)
    torch.testing.assert_close(cropped(images), whole(by_hand))


def test_what_lies_outside_is_never_read():
    torch.manual_seed(0)
    model = plain(PlainSizes(widths=(4, 6), pools=(1,), crop=2), 1, 10).eval()
    images = torch.randn(2, 1, 28, 28)
    framed = images.clone()
    framed[:, :, :2] = framed[:, :, -2:] = framed[..., :2] = framed[..., -2:] = 100.0
    assert torch.equal(model(images), model(framed))
    framed[:, :, 2, 2] = 100.0
    assert not torch.equal(model(images), model(framed))


def test_the_maps_behind_a_crop_stay_channels_last():
    model = plain(PlainSizes(widths=(8, 8), crop=2), 1, 10).to(memory_format=torch.channels_last)
    images = torch.zeros(4, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    maps = model[:2](images)
    assert maps.shape == (4, 8, 24, 24)
    assert maps.is_contiguous(memory_format=torch.channels_last)


def test_the_audit_counts_the_smaller_maps():
    whole, cropped = (
        audit_model(plain(PlainSizes(widths=(8, 16), pools=(1,), crop=crop), 1, 10), (1, 28, 28))
        for crop in (0, 2)
    )
    assert cropped.params == whole.params
    assert whole.macs == 28 * 28 * 25 * 8 + 14 * 14 * 8 * 9 * 16 + 160
    assert cropped.macs == 24 * 24 * 25 * 8 + 12 * 12 * 8 * 9 * 16 + 160
