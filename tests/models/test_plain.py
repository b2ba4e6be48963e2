"""A plain network's crop and its views: the numbers made by hand, and what the audit says."""

import copy
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
    whole = plain(PlainConfig(widths=(4, 6), pools=(1,)), channels, 10).eval()
    cropped = plain(PlainConfig(widths=(4, 6), pools=(1,), crop=3), channels, 10).eval()
    cropped.load_state_dict(whole.state_dict())
    images = torch.randn(5, channels, 28, 26)
    by_hand = F.pad(images, (-3, -3, -3, -3))
    assert by_hand.shape == (5, channels, 22, 20)
    torch.testing.assert_close(cropped(images), whole(by_hand))


def test_what_lies_outside_is_never_read():
    torch.manual_seed(0)
    model = plain(PlainConfig(widths=(4, 6), pools=(1,), crop=2), 1, 10).eval()
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
        audit_model(plain(PlainConfig(widths=(8, 16), pools=(1,), crop=crop), 1, 10), (1, 28, 28))
        for crop in (0, 2)
    )
    assert cropped.params == whole.params
    assert whole.macs == 28 * 28 * 25 * 8 + 14 * 14 * 8 * 9 * 16 + 160
    assert cropped.macs == 24 * 24 * 25 * 8 + 12 * 12 * 8 * 9 * 16 + 160


@pytest.mark.parametrize("views", [1, 9])
def test_both_is_the_mean_of_two_networks(views):
    model, images = looking(views, deskew="both").eval(), torch.rand(3, 1, 28, 24)
    columns = model.network if views > 1 else model
    alone = [looking(views), looking(views, deskew=True)]
    for network, own in zip(alone, (columns.as_is, columns.upright), strict=True):
        inner = network.network if views > 1 else network
        inner.load_state_dict(own.state_dict())
    assert not torch.equal(columns.as_is.conv1.weight, columns.upright.conv1.weight)
    wanted = torch.stack([network.eval()(images) for network in alone]).mean(0)
    torch.testing.assert_close(model(images), wanted)


def test_columns_in_training_give_the_logits_of_each():
    model, images = looking(9, deskew="both", dropout=0.0).train(), torch.rand(4, 1, 28, 28)
    columns = model.network
    logits = model(images)
    assert logits.shape == (4, 10, 2)
    torch.testing.assert_close(logits[..., 0], columns.as_is(images))
    torch.testing.assert_close(logits[..., 1], columns.upright(images))


def test_the_audit_counts_both_columns():
    models = looking(5), looking(5, deskew=True), looking(5, deskew="both")
    once, upright, both = (audit_model(model, (1, 28, 28)) for model in models)
    assert both.params.total == upright.params.total + once.params.total
    assert both.macs == upright.macs + once.macs
    assert both.kinds >= once.kinds
    assert both.receptive_field == max(once.receptive_field, upright.receptive_field)


@pytest.mark.parametrize("deskew", ["half", 1, "true"])
def test_other_ways_to_deskew_are_refused(deskew):
    with pytest.raises(ValueError, match="deskew"):
        PlainConfig(widths=(4,), deskew=deskew)


def looking(views, **sizes):
    torch.manual_seed(0)
    return plain(PlainConfig(widths=(4, 6), pools=(1,), crop=2, views=views, **sizes), 1, 10)


@pytest.mark.parametrize("views", [5, 9])
def test_views_are_the_mean_over_the_image_and_its_shifts(views):
    model = looking(views).eval()
    # Digits lie within a frame that is blank: rolled, they are what they are when they are moved.
    images = F.pad(torch.rand(3, 1, 20, 22), (3, 3, 4, 4))
    near = [(r, d) for r in (-1, 0, 1) for d in (-1, 0, 1) if views == 9 or 0 in (r, d)]
    assert len(near) == views
    looks = [model.network(images.roll((d, r), (2, 3))) for r, d in near]
    torch.testing.assert_close(model(images), torch.stack(looks).mean(0))
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


def test_what_a_shift_leaves_free_is_the_edge():
    model = looking(5).eval()
    model.network = model.network[1:]  # not cropped, so that the edge is read
    image = torch.rand(1, 1, 9, 8)
    right = torch.cat([image[..., :1], image[..., :-1]], 3)
    down = torch.cat([image[:, :, :1], image[:, :, :-1]], 2)
    left = torch.cat([image[..., 1:], image[..., -1:]], 3)
    up = torch.cat([image[:, :, 1:], image[:, :, -1:]], 2)
    looks = [model.network(each) for each in (image, right, left, down, up)]
    torch.testing.assert_close(model(image), torch.stack(looks).mean(0))


def test_a_network_in_training_looks_once():
    model, images = looking(9, dropout=0.0).train(), torch.rand(4, 1, 28, 28)
    once = copy.deepcopy(model.network)
    assert torch.equal(model(images), once(images))
    assert torch.equal(model.network.norm1.running_mean, once.norm1.running_mean)


def test_the_audit_counts_every_look():
    once, five = (audit_model(looking(views), (1, 28, 28)) for views in (1, 5))
    assert five.params == once.params
    assert five.macs == 5 * once.macs
    shapes = {layer.name: layer.output_shape for layer in five.layers}
    assert shapes["network.conv1"] == (5, 4, 24, 24)
    assert five.receptive_field == once.receptive_field + 2
    assert five.kinds >= once.kinds


@pytest.mark.parametrize("views", [0, 2, 25, True, "5"])
def test_other_numbers_of_views_are_refused(views):
    with pytest.raises(ValueError, match="views"):
        PlainConfig(widths=(4,), views=views)


@pytest.mark.parametrize(
    ("activation", "function"),
    [("relu", F.relu), ("silu", F.silu), ("hardswish", F.hardswish), ("gelu", F.gelu)],
)
def test_every_block_ends_in_its_activation(activation, function):
    torch.manual_seed(0)
    model = plain(PlainConfig(widths=(4, 6), pools=(), activation=activation), 1, 10).eval()
    images = torch.randn(2, 1, 12, 12)
    maps = function(model.norm2(model.conv2(function(model.norm1(model.conv1(images))))))
    torch.testing.assert_close(model(images), model.linear1(maps.mean((2, 3))))
    assert hasattr(model, f"{activation}2")


def straightened(image):
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
        torch.testing.assert_close(made[0], straightened(image[0]))
    assert found[1].sum(1)[0].max() > 8  # the stroke stands upright in one column


def test_digits_stand_upright_whatever_their_grey_levels():
    images = load_dataset("mnist").test.images[:200].double()
    upright = Deskew()(images)
    again = Deskew()(upright)
    # Only the mixing between two pixels leaves something to straighten.
    assert (again - upright).abs().mean() < 0.05 * (upright - images).abs().mean()
    torch.testing.assert_close(Deskew()(images * 0.3 - 7), upright * 0.3 - 7)


def test_nothing_drawn_stays_nothing():
    for level in (0.0, 3.0):
        blank = torch.full((2, 3, 8, 8), level)
        assert torch.equal(Deskew()(blank), blank)


def test_deskew_stands_in_front_and_costs_no_parameter():
    skewed, upright = (
        plain(PlainConfig(widths=(4, 6), pools=(1,), crop=1, deskew=deskew), 1, 10).eval()
        for deskew in (False, True)
    )
    upright.load_state_dict(skewed.state_dict())
    images = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(upright(images), skewed(Deskew()(images)))
    audit = audit_model(upright, (1, 28, 28))
    assert audit.params == audit_model(skewed, (1, 28, 28)).params
    assert audit.receptive_field == 28  # a row's place depends on every pixel
