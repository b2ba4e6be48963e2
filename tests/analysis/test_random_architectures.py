"""Random architectures: the audit against a plain count, torch's flop counter, and experiment.

Run: pytest tests/analysis/test_random_architectures.py
"""

from __future__ import annotations

from math import gcd

import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from whit.analysis import audit_model

SIZE = 40  # pixels; wide enough for windows that no border clips
CHANNELS = st.sampled_from([2, 4, 6])
few = settings(max_examples=40, derandomize=True, suppress_health_check=list(HealthCheck))


class Branches(nn.Module):
    def __init__(self, left: nn.Module, right: nn.Module, joined: str):
        super().__init__()
        self.left, self.right, self.joined = left, right, joined

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x)
        return torch.cat([left, right], 1) if self.joined == "cat" else left + right


class Slice(nn.Module):
    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.step, 1:]


class ChannelsLastRoundTrip(nn.Module):
    """Channels last and back, through memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


@st.composite
def same_size(draw: st.DrawFn, i: int, o: int) -> nn.Module:
    """A convolution that keeps the map."""
    k, d = draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 2))
    groups = draw(st.sampled_from([1, gcd(i, o)]))
    p = (k - 1) * d // 2
    return nn.Conv2d(i, o, k, 1, p, d, groups, bias=draw(st.booleans()))


@st.composite
def block(draw: st.DrawFn, i: int) -> tuple[nn.Module, int]:
    kind = draw(
        st.sampled_from(["conv", "conv", "depthwise", "pool", "add", "cat", "relu", "slice"])
    )
    o = draw(CHANNELS)
    if kind == "conv":
        kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        stride, dilation = draw(st.integers(1, 2)), draw(st.integers(1, 2))
        padding = draw(st.integers(0, min(kernel) // 2))
        groups = draw(st.sampled_from([1, gcd(i, o)]))
        bias = draw(st.booleans())
        return nn.Conv2d(i, o, kernel, stride, padding, dilation, groups, bias), o
    if kind == "depthwise":
        return nn.Sequential(
            nn.Conv2d(i, i, 3, groups=i), nn.Conv2d(i, o, 1), ChannelsLastRoundTrip()
        ), o
    if kind == "pool":
        k, s = draw(st.integers(2, 3)), draw(st.integers(1, 2))
        return draw(st.sampled_from([nn.MaxPool2d(k, s), nn.AvgPool2d(k, s)])), i
    if kind == "add":
        return Branches(draw(same_size(i, o)), draw(same_size(i, o)), "add"), o
    if kind == "cat":
        return Branches(draw(same_size(i, o)), nn.Identity(), "cat"), i + o
    if kind == "slice":
        return Slice(draw(st.integers(1, 2))), i
    return nn.ReLU(), i


@st.composite
def networks(draw: st.DrawFn) -> nn.Sequential:
    channels, layers = 1, []
    for _ in range(draw(st.integers(1, 5))):
        layer, channels = draw(block(channels))
        layers.append(layer)
    return nn.Sequential(*layers)


def runs(model: nn.Module) -> bool:
    try:
        with torch.no_grad():
            return model(torch.zeros(2, 1, SIZE, SIZE)).numel() > 0
    except RuntimeError:
        return False


@few
@given(networks(), st.booleans())
def test_parameters_and_macs(model: nn.Sequential, head: bool) -> None:
    assume(runs(model))
    if head:
        model = nn.Sequential(model, nn.Flatten(), nn.LazyLinear(5))
        model(torch.zeros(1, 1, SIZE, SIZE))
    audit = audit_model(model, (1, SIZE, SIZE))
    assert audit.params.total == sum(p.numel() for p in model.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 1, SIZE, SIZE))
    assert audit.macs == counter.get_total_flops() // 2
    assert audit.notes == ()


def find_dependences(model: nn.Module, axis: int) -> Tensor:
    """Return which lines of the image change which positions of the output, by experiment.

    With positive weights nothing cancels, so a bright line shows wherever it is seen.
    Result: (lines of the image, positions of the output along `axis`), bool.
    """
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0.5, 1.0, generator=torch.Generator().manual_seed(0))
        images = torch.full((SIZE + 1, 1, SIZE, SIZE), 0.1, dtype=torch.double)
        for line in range(SIZE):
            images[line].select(axis + 1, line).fill_(1000.0)
        output = model(images).sum(1)  # (lines + 1, H, W)
    changed = (output[:-1] - output[-1]).abs() > 1e-6
    return changed.any(2 - axis)


@few
@given(networks())
def test_receptive_field_by_experiment(model: nn.Sequential) -> None:
    assume(runs(model))
    audit = audit_model(model, (1, SIZE, SIZE))
    field, jump = audit.receptive_field, audit.layers[-1].jump
    assert field is not None, audit.table()
    fields = field if isinstance(field, tuple) else (field, field)
    jumps = jump if isinstance(jump, tuple) else (jump, jump)
    for axis in (0, 1):
        lines = find_dependences(model, axis)  # (lines, positions)
        extents = [int(c.nonzero().max() - c.nonzero().min()) + 1 for c in lines.T if c.any()]
        assert max(extents) <= fields[axis], audit.table()
        starts = [int(c.nonzero().min()) for c in lines.T if c.any()]
        if fields[axis] + 2 * jumps[axis] <= SIZE // 2 and len(extents) > 2:
            assert max(extents) == fields[axis], audit.table()
            middle = len(starts) // 2
            if starts[middle - 1] > 0:
                assert starts[middle] - starts[middle - 1] == jumps[axis], audit.table()
