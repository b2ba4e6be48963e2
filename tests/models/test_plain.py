"""A plain network's crop, columns and deskewing, computed by hand, and what the audit says."""

import math

import pytest
import torch
from torch.nn import functional as F

from whit.analysis import audit_model
from whit.data.datasets import load_dataset
from whit.models.layers import Deskew
from whit.models.plain import PlainConfig, plain


@pytest.mark.parametrize("channels", [1, 3])
def test_a_cropped_network_is_the_same_network_on_cropped_images(channels):
    torch.manual_seed(0)
    whole = plain(PlainConfig(widths=(4, 6), pool_after=(1,)), channels, 10).eval()
    cropped = plain(PlainConfig(widths=(4, 6), pool_after=(1,), crop=3), channels, 10).eval()
    cropped.load_state_dict(whole.state_dict())
    images = torch.randn(5, channels, 28, 26)
    by_hand = F.pad(images, (-3, -3, -3, -3))
    assert by_hand.shape == (5, channels, 22, 20)
    torch.testing.assert_close(cropped(images), whole(by_hand))


def test_what_lies_outside_is_never_read():
    torch.manual_seed(0)
    model = plain(PlainConfig(widths=(4, 6), pool_after=(1,), crop=2), 1, 10).eval()
    images = torch.randn(2, 1, 28, 28)
    framed = images.clone()
    framed[:, :, :2] = framed[:, :, -2:] = framed[..., :2] = framed[..., -2:] = 100.0
    assert torch.equal(model(images), model(framed))
    framed[:, :, 2, 2] = 100.0
    assert not torch.equal(model(images), model(framed))


def test_the_maps_behind_a_crop_stay_channels_last():
    model = plain(PlainConfig(widths=(8, 8), crop=2), 1, 10).to(memory_format=torch.channels_last)
    images = torch.zeros(4, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    maps = model[:2](images)
    assert maps.shape == (4, 8, 24, 24)
    assert maps.is_contiguous(memory_format=torch.channels_last)


def test_the_audit_counts_the_smaller_maps():
    whole, cropped = (
        audit_model(
            plain(PlainConfig(widths=(8, 16), pool_after=(1,), crop=crop), 1, 10), (1, 28, 28)
        )
        for crop in (0, 2)
    )
    assert cropped.params == whole.params
    assert whole.macs == 28 * 28 * 25 * 8 + 14 * 14 * 8 * 9 * 16 + 160
    assert cropped.macs == 24 * 24 * 25 * 8 + 12 * 12 * 8 * 9 * 16 + 160


def small_plain(**sizes):
    torch.manual_seed(0)
    return plain(PlainConfig(widths=(4, 6), pool_after=(1,), crop=2, **sizes), 1, 10)


COLUMNS = ("raw", "deskewed")


def test_two_columns_are_the_mean_of_two_networks():
    model, images = small_plain(columns=COLUMNS).eval(), torch.rand(3, 1, 28, 24)
    alone = [small_plain(), small_plain(deskew=True)]
    for network, column in zip(alone, (model.raw, model.deskewed), strict=True):
        network.load_state_dict(column.state_dict())
    assert not torch.equal(model.raw.conv1.weight, model.deskewed.conv1.weight)
    expected = torch.stack([network.eval()(images) for network in alone]).mean(0)
    torch.testing.assert_close(model(images), expected)


def test_columns_in_training_give_the_logits_of_each():
    model, images = small_plain(columns=COLUMNS, dropout=0.0).train(), torch.rand(4, 1, 28, 28)
    logits = model(images)
    assert logits.shape == (4, 10, 2)
    torch.testing.assert_close(logits[..., 0], model.raw(images))
    torch.testing.assert_close(logits[..., 1], model.deskewed(images))


def test_the_audit_counts_both_columns():
    models = small_plain(), small_plain(deskew=True), small_plain(columns=COLUMNS)
    raw, deskewed, both = (audit_model(model, (1, 28, 28)) for model in models)
    assert both.params.total == deskewed.params.total + raw.params.total
    assert both.macs == deskewed.macs + raw.macs
    assert both.kinds >= raw.kinds
    assert both.receptive_field == max(raw.receptive_field, deskewed.receptive_field)


@pytest.mark.parametrize("deskew", ["both", 1, "true"])
def test_other_values_of_deskew_are_refused(deskew):
    with pytest.raises(ValueError, match="deskew"):
        PlainConfig(widths=(4,), deskew=deskew)


@pytest.mark.parametrize(
    "config",
    [
        {"columns": ("raw",)},
        {"columns": ("raw", "raw")},
        {"columns": ("raw", "rotated")},
        {"columns": COLUMNS, "deskew": True},
    ],
)
def test_other_columns_are_refused(config):
    with pytest.raises(ValueError, match=r"columns|deskewed"):
        PlainConfig(widths=(4,), **config)


@pytest.mark.parametrize(
    ("activation", "function"),
    [("relu", F.relu), ("silu", F.silu), ("hardswish", F.hardswish), ("gelu", F.gelu)],
)
def test_every_block_ends_in_its_activation(activation, function):
    torch.manual_seed(0)
    model = plain(PlainConfig(widths=(4, 6), pool_after=(), activation=activation), 1, 10).eval()
    images = torch.randn(2, 1, 12, 12)
    maps = function(model.norm2(model.conv2(function(model.norm1(model.conv1(images))))))
    torch.testing.assert_close(model(images), model.linear1(maps.mean((2, 3))))
    assert hasattr(model, f"{activation}2")


def deskew_slowly(image):
    """One channel, pixel by pixel: the twin of `Deskew`."""
    height, width = image.shape
    mass = image - image.min()
    total = sum(float(m) for row in mass for m in row)
    centre_y = sum(float(mass[y, x]) * y for y in range(height) for x in range(width)) / total
    centre_x = sum(float(mass[y, x]) * x for y in range(height) for x in range(width)) / total
    mixed = spread = 0.0
    for y in range(height):
        for x in range(width):
            mixed += float(mass[y, x]) * (y - centre_y) * (x - centre_x)
            spread += float(mass[y, x]) * (y - centre_y) ** 2
    made = torch.empty_like(image)
    for y in range(height):
        for x in range(width):
            source = x + mixed / spread * (y - centre_y)
            left = math.floor(source)
            share = source - left
            before = image[y, min(max(left, 0), width - 1)]
            after = image[y, min(max(left + 1, 0), width - 1)]
            made[y, x] = before * (1 - share) + after * share
    return made


def test_deskew_is_its_definition():
    torch.manual_seed(0)
    images = torch.rand(3, 1, 9, 12).double()
    images[1] = torch.eye(12)[:9]  # a slanted stroke
    found = Deskew()(images)
    for image, made in zip(images, found, strict=True):
        torch.testing.assert_close(made[0], deskew_slowly(image[0]))
    assert found[1].sum(1)[0].max() > 8  # the stroke is one column


def test_deskewing_twice_changes_little_at_any_grey_levels():
    images = load_dataset("mnist").test.images[:200].double()
    deskewed = Deskew()(images)
    again = Deskew()(deskewed)
    # Only interpolation leaves something to deskew.
    assert (again - deskewed).abs().mean() < 0.05 * (deskewed - images).abs().mean()
    torch.testing.assert_close(Deskew()(images * 0.3 - 7), deskewed * 0.3 - 7)


def test_a_blank_image_stays_blank():
    for level in (0.0, 3.0):
        blank = torch.full((2, 3, 8, 8), level)
        assert torch.equal(Deskew()(blank), blank)


def test_deskewing_comes_first_and_costs_no_parameter():
    skewed, deskewed = (
        plain(PlainConfig(widths=(4, 6), pool_after=(1,), crop=1, deskew=deskew), 1, 10).eval()
        for deskew in (False, True)
    )
    deskewed.load_state_dict(skewed.state_dict())
    images = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(deskewed(images), skewed(Deskew()(images)))
    audit = audit_model(deskewed, (1, 28, 28))
    assert audit.params == audit_model(skewed, (1, 28, 28)).params
    assert audit.receptive_field == 28  # the shift of a row depends on every pixel
