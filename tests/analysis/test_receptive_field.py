"""Receptive fields and jumps by hand. Run: pytest tests/analysis/test_receptive_field.py"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zoo import Written, gap

from whit.analysis import Audit, audit_model


def audit(forward, shape=(1, 24, 24), **parts) -> Audit:
    return audit_model(Written(forward, **parts), shape)


def c(k: int, **options) -> nn.Conv2d:
    return nn.Conv2d(4, 4, k, **options)


# forward after `conv` (3x3: field 3, jump 1; a 22x22 map), module, field, jump
CASES = {
    "dilated": (lambda m, x: m.a(x), c(3, dilation=3), 9, 1),
    "strided": (lambda m, x: m.a(x), c(4, stride=3), 6, 3),
    "grouped": (lambda m, x: m.a(x), c(5, groups=4), 7, 1),
    "not square": (lambda m, x: m.a(x), c((3, 1), stride=(1, 2)), (5, 3), (1, 2)),
    "1x1": (lambda m, x: m.a(x), c(1), 3, 1),
    "max pooling": (lambda m, x: m.a(x), nn.MaxPool2d(3, 2), 5, 2),
    "dilated max pooling": (lambda m, x: m.a(x), nn.MaxPool2d(3, 1, dilation=2), 7, 1),
    "average pooling": (lambda m, x: m.a(x), nn.AvgPool2d(2), 4, 2),
    "adaptive pooling": (lambda m, x: m.a(x), nn.AdaptiveAvgPool2d(11), 4, 2),
    "global pooling": (lambda m, x: m.a(x), nn.AdaptiveAvgPool2d(1), 24, 22),
    "residual": (lambda m, x: x + m.a(x), c(3, padding=1), 5, 1),
    "concatenation": (lambda m, x: torch.cat([x, m.a(x)], 1), c(5, padding=2), 7, 1),
    "cropped residual": (lambda m, x: x[:, :, 1:-1, 1:-1] + m.a(x), c(3), 5, 1),
    "shifted": (lambda m, x: x[:, :, 1:] + x[:, :, :-1], None, (4, 3), 1),
    "step of a slice": (lambda m, x: x[:, :, ::2, ::2], None, 3, 2),
    "step, then convolution": (lambda m, x: m.a(x[:, :, ::2, ::3]), c(3), (7, 9), (2, 3)),
    "padding": (lambda m, x: m.a(F.pad(x, (2, 1, 0, 3), mode="reflect")), c(3), 5, 1),
    "padding with zeros": (lambda m, x: m.a(F.pad(x, (1, 1, 1, 1))) + x, c(3), 5, 1),
    "transposed map": (lambda m, x: m.a(x.transpose(2, 3)), c((3, 1)), (3, 5), 1),
    "permuted there and back": (
        lambda m, x: m.a(x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)), c(3), 5, 1,
    ),
    "sorted channels": (lambda m, x: m.a(x.sort(1).values), c(3), 5, 1),
    "largest channels": (lambda m, x: m.a(x.topk(2, dim=1).values), nn.Conv2d(2, 4, 3), 5, 1),
    "largest positions": (lambda m, x: x.flatten(2).topk(5).values, None, 24, 1),
    "scaled by the range of the map": (
        lambda m, x: x / (x.flatten(1).aminmax(dim=1)[1][:, None, None, None] + 9), None, 24, 1,
    ),
    "Fourier": (lambda m, x: torch.fft.irfft2(torch.fft.rfft2(x) * 2, s=(22, 22)), None, 24, 1),
    "looked up by the largest channel": (
        lambda m, x: m.a.weight[x.argmax(1)].permute(0, 3, 1, 2), nn.Embedding(4, 4), 3, 1,
    ),
    "rolled": (lambda m, x: m.a(torch.roll(x, 2, 3)), c(3), 5, 1),
    "flipped": (lambda m, x: m.a(x.flip(2)), c(3), 5, 1),
    "nearest upsampling": (lambda m, x: F.interpolate(x, scale_factor=2), None, 3, 0.5),
    "bilinear upsampling": (
        lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"), None, 4, 0.5,
    ),
    "convolution of an upsampled map": (
        lambda m, x: m.a(F.interpolate(x, scale_factor=2)), c(3), 4, 0.5,
    ),
    "transposed convolution": (
        lambda m, x: m.a(x), nn.ConvTranspose2d(4, 4, 4, stride=2), 4, 0.5,
    ),
    "pixel unshuffle": (lambda m, x: F.pixel_unshuffle(x, 2), None, 3, 2),
    "convolution after unshuffle": (lambda m, x: m.a(F.pixel_unshuffle(x, 2)[:, :4]), c(3), 8, 2),
    "all unshuffled channels": (
        lambda m, x: m.a(F.pixel_unshuffle(x, 2)), nn.Conv2d(16, 4, 1), 4, 2,
    ),
    "unshuffled by views": (
        lambda m, x: m.a(
            x.view(-1, 4, 11, 2, 11, 2).permute(0, 1, 3, 5, 2, 4).reshape(-1, 16, 11, 11)
        ), nn.Conv2d(16, 4, 1), 4, 2,
    ),
    "pixel shuffle": (lambda m, x: F.pixel_shuffle(x, 2), None, 3, 0.5),
    "unfolded": (lambda m, x: m.a(F.unfold(x, 3)[:, :, None]), nn.Conv2d(36, 4, 1), 5, 1),
    "windows": (lambda m, x: x.unfold(2, 5, 5).unfold(3, 5, 5).amax((-1, -2)), None, 7, 5),
    "flattened": (lambda m, x: m.a(x.flatten(1)), nn.Linear(4 * 22 * 22, 3), 24, 1),
    "squeeze and excitation": (
        lambda m, x: x * m.a(x.mean((2, 3), keepdim=True)).sigmoid(), c(1), 24, 1,
    ),
    "group norm": (lambda m, x: m.a(x), nn.GroupNorm(2, 4), 3, 1),
    "after group norm": (lambda m, x: F.conv2d(m.a(x), torch.ones(1, 4, 3, 3)),
                         nn.GroupNorm(2, 4), 5, 1),
    "layer norm over rows": (lambda m, x: m.a(x), nn.LayerNorm(22), 3, 1),
    "layer norm over channels": (
        lambda m, x: m.a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.LayerNorm(4), 3, 1,
    ),
    "instance norm": (lambda m, x: m.a(x), nn.InstanceNorm2d(4), 3, 1),
    "softmax over columns": (lambda m, x: x.softmax(3), None, (3, 24), 1),
    "batch norm": (lambda m, x: m.a(x), nn.BatchNorm2d(4), 3, 1),
    "channel shuffle": (
        lambda m, x: m.a(x.view(-1, 2, 2, 22, 22).transpose(1, 2).reshape(-1, 4, 22, 22)),
        c(3), 5, 1,
    ),
    "split and put together": (
        lambda m, x: torch.cat([m.a(x[:, :2]), x[:, 2:]], 1),
        nn.Conv2d(2, 2, 3, padding=1), 5, 1,
    ),
    "two means": (lambda m, x: x.mean(2, keepdim=True).mean(3, keepdim=True), None, 24, None),
    "padding by hand": (
        lambda m, x: m.a(torch.cat([torch.zeros(x.shape[0], 4, 1, 22), x], 2)), c(3), 5, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_field_and_jump(case: str) -> None:
    forward, module, field, jump = CASES[case]
    found = audit(lambda m, x: forward(m, m.conv(x)) * 1, a=module or nn.Identity())
    assert found.receptive_field == field, found.table()
    if jump is not None:
        used = [layer for layer in found.layers if layer.kind != "unused"]
        assert used[-1].jump == jump, found.table()


def test_attention_over_positions_sees_everything() -> None:
    def forward(m: Written, x: torch.Tensor) -> torch.Tensor:
        tokens = m.conv(x).flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)[:, :1]

    found = audit(forward, (1, 8, 8))
    assert found.receptive_field == 8
    assert found.macs == 9 * 4 * 36 + 2 * 36 * 36 * 4
    assert "attention" in found.kinds


def test_multi_head_attention() -> None:
    def forward(m: Written, x: torch.Tensor) -> torch.Tensor:
        tokens = m.conv(x).flatten(2).transpose(1, 2)
        return m.fc(m.mixed(tokens, tokens, tokens)[0][:, 0])

    mixed = nn.MultiheadAttention(4, 2, batch_first=True)
    found = audit(forward, (1, 8, 8), mixed=mixed)
    assert found.params.total == 90 + 80
    assert found.params.unused == 0
    assert found.receptive_field == 8


UNKNOWN = {
    "a sampled grid": lambda m, x: F.grid_sample(
        m.conv(x), torch.zeros(x.shape[0], 4, 4, 2), align_corners=False
    ),
    "map plus its transpose": lambda m, x: m.conv(x) + m.conv(x).transpose(2, 3),
    "rows put together": lambda m, x: torch.cat([m.conv(x), m.conv(x)], 2),
    "picked positions": lambda m, x: m.conv(x)[:, :, torch.tensor([3, 1])],
    "Fourier transform": lambda m, x: torch.fft.fft2(m.conv(x)).real,
    "diagonal": lambda m, x: m.conv(x).diagonal(0, 2, 3),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_is_said_and_never_guessed(case: str) -> None:
    found = audit(UNKNOWN[case])
    assert found.receptive_field is None
    assert any("receptive field unknown" in note for note in found.notes)
    assert found.layers[0].receptive_field == 3


def test_global_pooling_of_a_5x5_map_is_not_clipped() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1))
    assert audit_model(model, (1, 5, 5)).receptive_field == 7


def test_gap_helper_is_what_it_says() -> None:
    assert audit(lambda m, x: gap(m.conv(x))).receptive_field == 24
