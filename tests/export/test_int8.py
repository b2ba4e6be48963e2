"""int8: C equal to NumPy bit by bit, little accuracy lost, possible overflow refused by name."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from statistics import mean

import numpy as np
import pytest
import torch
from torch import nn

from export import read
from export.zoo import CLASSES, some_images
from whit.errors import ModelError
from whit.export.c.compile import c_logits
from whit.export.c.source import c_files
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.export.ir.graph import Graph, Operation
from whit.export.ir.interpreter import run_logits
from whit.export.ir.ops.activation import ACTIVATION
from whit.export.ir.ops.scale import SCALE
from whit.export.ir.ops.spatial import FLATTEN
from whit.export.program import LOGIT_SCALE, Program
from whit.export.quantization.calibration import (
    QuantParams,
    calibration_images,
    choose_qparams,
    quantize_weights,
)
from whit.export.quantization.fixed_point import MAX_ERROR, quantize_multiplier
from whit.export.quantization.quantize import quantize
from whit.export.quantization.reference import int8_logits, run_step
from whit.training.optimization.qat import qmax

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
# Tiles: 4 pixels, 32 or 256 taps, 24 or 32 output channels; 16 channels in depthwise layers.
LAYERS = {
    "many channels": lambda: nn.Conv2d(33, 41, 3, padding=1),
    "stride": lambda: nn.Conv2d(5, 7, 3, stride=2, padding=(1, 0)),
    "dilation": lambda: nn.Conv2d(6, 25, 3, padding=2, dilation=2),
    "one row": lambda: nn.Conv2d(3, 8, (1, 5), padding=(0, 4)),
    "1x1": lambda: nn.Conv2d(67, 9, 1),
    "groups": lambda: nn.Conv2d(15, 21, 3, padding=1, groups=3),
    "larger than the map": lambda: nn.Conv2d(4, 3, (9, 11), padding=(4, 5)),
    "depthwise": lambda: nn.Conv2d(19, 19, 3, stride=(2, 1), padding=1, groups=19),
    "depthwise, dilation": lambda: nn.Conv2d(16, 16, (2, 3), padding=1, dilation=(1, 2), groups=16),
}
# Tiles of small processors, and the vector units of this machine.
BUILDS = (("-O2", "-DSMALL_TILES"), ("-O3", "-march=native"))
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


def equal_bits(program: Program, images: torch.Tensor, flags: Sequence[str] = ("-O2",)) -> bool:
    compiled = c_logits(program, c_files(program, "A network."), images, flags) * LOGIT_SCALE
    return bool((compiled.numpy() == int8_logits(program, images)).all())


@needs_cc
@pytest.mark.parametrize("name", read.NAMES)
def test_c_is_equal_to_numpy_bit_by_bit(name: str) -> None:
    images = some_images(12)
    assert equal_bits(quantize(read.graph(name), images).program, images)


class _Branch(nn.Module):
    """A layer whose input has another consumer, so that it may not be overwritten."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, layer.in_channels, 1)
        self.layer = layer
        output = layer(torch.zeros(1, layer.in_channels, 9, 7))
        self.near = nn.Conv2d(layer.in_channels, 3, (9, 7))
        self.far = nn.Conv2d(layer.out_channels, 3, output.shape[2:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return (self.far(self.layer(x)) + self.near(x)).flatten(1)


@needs_cc
@pytest.mark.parametrize("flags", BUILDS, ids=["small", "wide"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_any_shape_bit_by_bit(name: str, flags: tuple[str, ...]) -> None:
    """Sizes above and below those of a tile in each dimension, and not multiples of it."""
    torch.manual_seed(2)
    model = _Branch(LAYERS[name]()).eval()
    images = torch.randint(0, 256, (6, 2, 9, 7), dtype=torch.uint8)
    graph = fuse(capture_graph(model, (2, 9, 7), ("a", "b", "c"), "layer"))
    program = quantize(graph, images).program
    assert program.steps[1].kind == ("depthwise" if "depthwise" in name else "conv")
    assert program.steps[1].settings["zero_point"] > 0
    assert equal_bits(program, images, flags)


@pytest.mark.parametrize("name", read.NAMES)
def test_int8_approximates_the_model(name: str) -> None:
    """Within a few of 256 quantization steps of the logits, before a softmax."""
    images, graph = some_images(40), read.graph(name)
    logits = int8_logits(quantize(graph, images).program, images) / LOGIT_SCALE
    if graph.operations[-1].kind.endswith("softmax"):
        last = graph.operations[-1].inputs[0]
        graph = Graph(
            graph.name, graph.image_shape, graph.classes, graph.operations[:-1], graph.constants
        )
        assert graph.output == last
    expected = run_logits(graph, images).numpy()
    spread = np.abs(expected - expected.mean()).max()
    assert np.sqrt(np.square(logits - expected).mean()) <= 0.04 * spread


def test_quantization_is_reproducible() -> None:
    threads = torch.get_num_threads()
    files = []
    for count in (1, 2):
        torch.set_num_threads(count)
        program = quantize(read.graph("Branches"), some_images(40)).program
        files.append(c_files(program, "A network."))
    torch.set_num_threads(threads)
    assert files[0] == files[1]


def test_a_convolution_equals_its_definition() -> None:
    """The NumPy reference multiplies in float64; here in Python integers, one by one."""
    program = quantize(read.graph("Asymmetric"), some_images()).program
    first = next(step for step in program.steps if step.kind == "conv")
    seen = some_images(1)[:, :, :-1, 2:]  # the network crops images to 27x26
    image = seen[0, 0].numpy().astype(int).tolist()
    weight = program.constants[first.constants["weight"]].astype(int).tolist()
    factor = program.constants[first.constants["factor"]].tolist()
    offset = program.constants[first.constants["offset"]].tolist()
    x = seen.permute(0, 2, 3, 1).numpy().astype(np.int64)
    constants = {
        role: program.constants[name].astype(np.int64) for role, name in first.constants.items()
    }
    output = run_step(first, [x], constants)[0]
    for y, at, o in ((0, 0, 0), (5, 13, 2), (12, 25, 4)):
        total = sum(
            image[2 * y + ky][at + kx - 2] * weight[o][ky][kx][0]
            for ky in range(3)
            for kx in range(5)
            if 0 <= at + kx - 2 < 26
        )
        expected = min(255, max(0, total * factor[o] + offset[o]) >> first.settings["shift"])
        assert output[y, at, o] == expected


def test_qparams_represent_zero_and_respect_saturation() -> None:
    samples = np.linspace(-3.0, 5.0, 1001)
    full = choose_qparams(samples)
    assert full.values()[full.zero_point] == 0
    assert (full.lowest, full.highest) == pytest.approx((-3, 5), abs=0.05)
    clipped = choose_qparams(samples, lowest=0)
    assert clipped.zero_point == 0
    assert choose_qparams(np.zeros(5)) == QuantParams(1.0, 0)


@pytest.mark.parametrize("count", [1, 999, 1000, 1999, 36_000])
def test_calibration_images_are_evenly_spaced(count: int) -> None:
    taken = calibration_images(torch.arange(count))
    assert len(taken) == min(count, 1000)
    # The gap after the last image is like those between images.
    gaps = torch.cat([taken, torch.tensor([count])]).diff()
    assert taken[0] == 0
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("reach", [0.002, 0.02, 3.0, 9.0, 200.0, 300.0])
def test_hardswish_needs_no_table_for_small_steps(reach: float) -> None:
    """All 256 inputs, compared with the float graph."""
    shape = (1, 16, 16)
    read = {"scale": "s", "offset": "o"}
    operations = (
        Operation("scale1", SCALE, ("image",), shape, {}, read),
        Operation("h", ACTIVATION, ("scale1",), shape, {"function": "hardswish"}),
        Operation("flat", FLATTEN, ("h",), (256,)),
    )
    constants = {"s": torch.tensor([reach / 255]), "o": torch.tensor([-reach / 3])}
    graph = Graph("alone", shape, tuple(map(str, range(256))), operations, constants)
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    found = quantize(graph, every)
    kinds = [step.kind for step in found.program.steps]
    assert ("lookup" in kinds) == (reach in (0.002, 300.0))
    assert ("hardswish" in kinds) == (reach not in (0.002, 300.0))
    logits = torch.from_numpy(int8_logits(found.program, every)) / LOGIT_SCALE
    error = (logits - run_logits(graph, every)).abs().max()
    assert error <= 1.6 * found.qparams["h"].scale + 1 / LOGIT_SCALE


def test_weights_are_rounded_to_half_a_step() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3))
    weights[2] = 0
    values, scales = quantize_weights(weights)
    assert np.abs(values * scales[:, None, None, None] - weights).max() <= scales.max() * 0.5001
    assert not values[2].any()
    assert scales[2] == scales[[0, 1, 3]].min()
    assert (quantize_weights(0 * weights)[1] == 1).all()


def test_a_channel_of_zeros_does_not_widen_factors() -> None:
    torch.manual_seed(4)
    body, head = nn.Linear(784, 8), nn.Linear(8, 10)
    model = nn.Sequential(nn.Flatten(), body, nn.ReLU(), head)
    with torch.no_grad():
        body.weight /= 255
        body.weight[2] = head.weight[2] = 0
    graph = fuse(capture_graph(model, (1, 28, 28), CLASSES, "mine"))
    steps = quantize(graph, some_images()).program.steps
    types = [step.settings["types"] for step in steps if "types" in step.settings]
    assert types == [("int16", "int16")] * 2


def test_possible_overflow_is_refused_by_name() -> None:
    one, limit = np.ones(1), np.array([2**31])
    with pytest.raises(ModelError, match="conv7: cannot be exported in int8: a sum of its"):
        quantize_multiplier("conv7", one, one, (-limit, limit))
    byte = (np.zeros(1, np.int64), np.full(1, 255))
    with pytest.raises(ModelError, match=r"linear1: .*: a logit could overflow int32"):
        quantize_multiplier("linear1", 1e6 * one, one, (byte[0], 40 * byte[1]), rounded=False)
    with pytest.raises(ModelError, match=r"scale2: .*: an output could overflow int64"):
        quantize_multiplier("scale2", 1e12 * one, one, byte)


def test_narrow_logits_fit_in_int32() -> None:
    """Near the limit, rounding errors of narrow types must not cause an overflow."""
    refused, factor, high = 0, 26_842.997, np.array([80_000])
    for largest in range(2**31 - 2_000, 2**31, 40):
        offset = np.array([largest - factor * 80_000])
        bounds = (np.zeros(1, np.int64), high)
        try:
            found = quantize_multiplier(
                "linear1", np.array([factor]), offset, bounds, rounded=False, bits=8
            )
        except ModelError:
            refused += 1
            continue
        assert found.factors.dtype == np.int16
        logit = int(high[0]) * int(found.factors[0]) + int(found.offsets[0]) * found.offset_scale
        assert largest < logit >> found.shift < 2**31
    assert 0 < refused < 50


def test_narrow_factors_are_accurate() -> None:
    """Outputs are within a quarter of a step for all sums; else types are wide."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        highest = generator.integers(40_000, 400_000, 20)
        bounds = (-highest, highest)
        factors = 255 / highest * generator.uniform(0.3, 2, 20)
        offsets, moved = generator.uniform(-300, 300, 20), generator.integers(-5000, 5000, 20)
        found = quantize_multiplier("conv1", factors, offsets, bounds, moved, bits=8)
        assert (found.factors.dtype, found.offsets.dtype) == (np.int16, np.int16)
        for sums in (*bounds, np.zeros(20, int), highest // 3):
            expected = factors * (sums - moved) + offsets + 0.5
            scaled = (
                sums * found.factors.astype(int) + found.offsets.astype(int) * found.offset_scale
            )
            assert np.abs(scaled / 2.0**found.shift - expected).max() < 2 * MAX_ERROR
    # Channels with small and large sums have no common accurate shift.
    uneven = (np.zeros(2, int), np.array([100, 10_000_000]))
    kept = quantize_multiplier("conv1", np.array([2.0, 2e-5]), np.zeros(2), uneven, bits=8)
    assert kept.factors.dtype == np.int32


def test_an_offset_scale_beyond_32_bits_is_avoided() -> None:
    """Large offsets with small factors need wide types, since kernels take int32 scales."""
    bounds, kinds = (np.full(4, -20_000), np.full(4, 20_000)), set()
    for power in range(20, 40):
        found = quantize_multiplier(
            "conv1", np.full(4, 2.0**-power), np.full(4, 200.0), bounds, bits=8
        )
        assert found.offset_scale < 2**31
        kinds.add(found.factors.dtype)
    assert kinds == {np.dtype(np.int16), np.dtype(np.int32)}


def test_narrow_factors_of_logits_are_accurate() -> None:
    generator = np.random.default_rng(1)
    for _ in range(50):
        highest = generator.integers(40_000, 80_000, 10)
        factors = 20 * 65536 / highest * generator.uniform(0.5, 1, 10)
        offsets = generator.uniform(-3, 3, 10) * 65536
        bounds = (-highest, highest)
        found = quantize_multiplier("linear1", factors, offsets, bounds, 100, rounded=False, bits=8)
        assert (found.factors.dtype, found.offsets.dtype) == (np.int16, np.int16)
        for sums in (*bounds, np.zeros(10, int)):
            scaled = (
                sums * found.factors.astype(int) + found.offsets.astype(int) * found.offset_scale
            )
            off = np.abs(scaled / 2.0**found.shift - factors * (sums - 100) - offsets)
            assert off.max() < 65536 / 128


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_low_bit_weights_have_8_bit_factors_unless_these_vary_widely(bits: int) -> None:
    generator = np.random.default_rng(bits)
    highest = np.full(20, 20_000)
    factors = 255 / highest * generator.uniform(0.5, 1, 20)
    bounds = (-highest, highest)
    found = quantize_multiplier(
        "conv1", factors, generator.uniform(-300, 300, 20), bounds, bits=bits
    )
    assert found.factors.dtype == np.uint8
    off = np.abs(found.factors.astype(float) / 2.0**found.shift / factors - 1).max()
    assert off <= max(1 / 128, 0.5 / qmax(bits) / 4)
    assert found.offsets.dtype == np.int16
    # Equal offsets become 1, and small ones are few steps: int8 suffices.
    for offsets in (np.full(20, 117.0), generator.uniform(-10, 10, 20)):
        small = quantize_multiplier("conv1", factors, offsets, bounds, bits=2)
        assert (small.factors.dtype, small.offsets.dtype) == (np.uint8, np.int8)
        real = small.offsets.astype(float) * small.offset_scale / 2.0**small.shift
        assert np.abs(real - offsets - 0.5).max() < 2 * MAX_ERROR
    assert quantize_multiplier("conv1", factors, offsets, bounds, bits=8).factors.dtype == np.int16
    # A negative factor, or one much smaller than another, does not fit 8 bits.
    for odd in (-factors[0], factors[0] / 300):
        factors[0] = odd
        assert (
            quantize_multiplier("conv1", factors, offsets, bounds, bits=4).factors.dtype == np.int16
        )


@pytest.mark.parametrize("largest", [0.9, 1.1, 1.9, 3.7, 25.0])
def test_8_bit_factors_above_1_have_few_fractional_bits(largest: float) -> None:
    # Of a layer that takes bytes to bytes, such as a scale behind a sum.
    factors, offsets = largest * np.linspace(0.55, 1, 20), np.linspace(-90, 90, 20)
    bounds = np.zeros(20, int), np.full(20, 255)
    found = quantize_multiplier("scale1", factors, offsets, bounds, bits=4)
    assert found.factors.dtype == np.uint8
    for sums in (0, 1, 100, 255):
        scaled = sums * found.factors.astype(int) + found.offsets.astype(int) * found.offset_scale
        off = np.abs(scaled / 2.0**found.shift - 0.5 - factors * sums - offsets)
        assert (off <= 2 * MAX_ERROR + factors * sums / 56).all()


def test_low_bit_weights_have_narrow_factors_of_logits_where_others_have_wide_ones() -> None:
    # The extremes of these sums stand for logits up to 500: 16 bits are exact to 1/65 of one.
    highest = np.full(10, 2_000_000)
    factors = 65536 * 500 / highest * np.linspace(0.501, 1, 10)
    arguments = ("linear1", factors, np.zeros(10), (-highest, highest))
    narrow, wide = (
        quantize_multiplier(*arguments, rounded=False, bits=bits).factors.dtype for bits in (4, 8)
    )
    assert (narrow, wide) == (np.int16, np.int32)


class _Wide(nn.Module):
    """A layer with more inputs than int32 can accumulate."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(300 * 300, 10)
        nn.init.constant_(self.head.weight, 1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


class _Early(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(784, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1)).softmax(1) * 2


def test_networks_that_int8_does_not_support() -> None:
    images = torch.randint(0, 256, (2, 1, 300, 300), dtype=torch.uint8)
    wide = fuse(capture_graph(_Wide(), (1, 300, 300), CLASSES, "wide"))
    with pytest.raises(ModelError, match="linear1: cannot be exported in int8"):
        quantize(wide, images)
    early = fuse(capture_graph(_Early(), (1, 28, 28), CLASSES, "early"))
    with pytest.raises(
        ModelError, match="softmax1: softmax is supported as the last operation only"
    ):
        quantize(early, some_images())


@needs_cc
@pytest.mark.slow
def test_every_test_image_bit_by_bit_with_little_loss() -> None:
    """The mean loss of accuracy over ten seeds is at most 0.05 percentage points."""
    lost = []
    for seed in range(10):
        split, program = read.trained(seed).split, read.trained_int8(seed).program
        logits = int8_logits(program, split.images)
        compiled = c_logits(program, c_files(program, "A network."), split.images) * LOGIT_SCALE
        assert (compiled.numpy() == logits).all(1).sum() == 10_000
        expected = run_logits(read.trained_graph(seed), split.images).argmax(1)
        labels = split.labels
        correct = int((torch.from_numpy(logits).argmax(1) == labels).sum())
        lost.append(int((expected == labels).sum()) - correct)
    assert mean(lost) <= 5, lost
