"""Whole numbers: C equal to NumPy bit by bit, little accuracy lost, overflow refused by name."""

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

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
# Tiles of 4 places, of 32 or 256 numbers read, and of 24 or 32 channels made; of 16 by channel.
LAYERS = {
    "many of both": lambda: nn.Conv2d(33, 41, 3, padding=1),
    "stride": lambda: nn.Conv2d(5, 7, 3, stride=2, padding=(1, 0)),
    "far apart": lambda: nn.Conv2d(6, 25, 3, padding=2, dilation=2),
    "a line": lambda: nn.Conv2d(3, 8, (1, 5), padding=(0, 4)),
    "1x1": lambda: nn.Conv2d(67, 9, 1),
    "groups": lambda: nn.Conv2d(15, 21, 3, padding=1, groups=3),
    "wider than the map": lambda: nn.Conv2d(4, 3, (9, 11), padding=(4, 5)),
    "depthwise": lambda: nn.Conv2d(19, 19, 3, stride=(2, 1), padding=1, groups=19),
    "depthwise, apart": lambda: nn.Conv2d(16, 16, (2, 3), padding=1, dilation=(1, 2), groups=16),
}
# As small processors build it, and for this machine.
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


class _Beside(nn.Module):
    """A layer whose input is read again behind it, so that it may not be written over."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, layer.in_channels, 1)
        self.layer = layer
        made = layer(torch.zeros(1, layer.in_channels, 9, 7))
        self.near = nn.Conv2d(layer.in_channels, 3, (9, 7))
        self.far = nn.Conv2d(layer.out_channels, 3, made.shape[2:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return (self.far(self.layer(x)) + self.near(x)).flatten(1)


@needs_cc
@pytest.mark.parametrize("flags", BUILDS, ids=["small", "wide"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_any_shape_bit_by_bit(name: str, flags: tuple[str, ...]) -> None:
    """More numbers than a tile takes and fewer, in each direction, and what does not divide."""
    torch.manual_seed(2)
    model = _Beside(LAYERS[name]()).eval()
    images = torch.randint(0, 256, (6, 2, 9, 7), dtype=torch.uint8)
    graph = fuse(capture_graph(model, (2, 9, 7), ("a", "b", "c"), "layer"))
    program = quantize(graph, images).program
    assert program.steps[1].kind == ("depthwise" if "depthwise" in name else "conv")
    assert program.steps[1].settings["zero"] > 0
    assert equal_bits(program, images, flags)


@pytest.mark.parametrize("name", read.NAMES)
def test_whole_numbers_are_near_the_network(name: str) -> None:
    """Within a few levels of 256, at the scale of the logits; before a softmax, if there is one."""
    images, graph = some_images(40), read.graph(name)
    scores = int8_logits(quantize(graph, images).program, images) / LOGIT_SCALE
    if graph.operations[-1].kind.endswith("softmax"):
        last = graph.operations[-1].inputs[0]
        graph = Graph(
            graph.name, graph.image_shape, graph.classes, graph.operations[:-1], graph.constants
        )
        assert graph.output == last
    wanted = run_logits(graph, images).numpy()
    spread = np.abs(wanted - wanted.mean()).max()
    assert np.sqrt(np.square(scores - wanted).mean()) <= 0.04 * spread


def test_the_same_weights_give_the_same_numbers() -> None:
    threads = torch.get_num_threads()
    files = []
    for count in (1, 2):
        torch.set_num_threads(count)
        program = quantize(read.graph("Branches"), some_images(40)).program
        files.append(c_files(program, "A network."))
    torch.set_num_threads(threads)
    assert files[0] == files[1]


def test_a_convolution_equals_its_definition() -> None:
    """The twin's products go through float64; here each is taken by itself, as an integer."""
    program = quantize(read.graph("Halves"), some_images()).program
    first = next(step for step in program.steps if step.kind == "conv")
    seen = some_images(1)[:, :, :-1, 2:]  # what the network cuts out of an image: 27x26
    image = seen[0, 0].numpy().astype(int).tolist()
    weight = program.constants[first.constants["weight"]].astype(int).tolist()
    factor = program.constants[first.constants["factor"]].tolist()
    offset = program.constants[first.constants["offset"]].tolist()
    x = seen.permute(0, 2, 3, 1).numpy().astype(np.int64)
    held = {
        role: program.constants[name].astype(np.int64) for role, name in first.constants.items()
    }
    made = run_step(first, [x], held)[0]
    for y, at, o in ((0, 0, 0), (5, 13, 2), (12, 25, 4)):
        total = sum(
            image[2 * y + ky][at + kx - 2] * weight[o][ky][kx][0]
            for ky in range(3)
            for kx in range(5)
            if 0 <= at + kx - 2 < 26
        )
        wanted = min(255, max(0, total * factor[o] + offset[o]) >> first.settings["shift"])
        assert made[y, at, o] == wanted


def test_levels_hold_zero_and_cut_what_is_cut_anyway() -> None:
    samples = np.linspace(-3.0, 5.0, 1001)
    whole = choose_qparams(samples)
    assert whole.values()[whole.zero_point] == 0
    assert (whole.lowest, whole.highest) == pytest.approx((-3, 5), abs=0.05)
    cut = choose_qparams(samples, lowest=0)
    assert cut.zero_point == 0
    assert choose_qparams(np.zeros(5)) == QuantParams(1.0, 0)


@pytest.mark.parametrize("count", [1, 999, 1000, 1999, 36_000])
def test_calibration_reaches_over_the_whole_training_split(count: int) -> None:
    taken = calibration_images(torch.arange(count))
    assert len(taken) == min(count, 1000)
    # Behind the last one as much is left as between two.
    gaps = torch.cat([taken, torch.tensor([count])]).diff()
    assert taken[0] == 0
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("reach", [0.002, 0.02, 3.0, 9.0, 200.0, 300.0])
def test_hardswish_needs_no_table_where_a_level_is_small(reach: float) -> None:
    """All 256 bytes, beside the table that another activation would have."""
    shape = (1, 16, 16)
    read = {"scale": "s", "offset": "o"}
    operations = (
        Operation("scale1", SCALE, ("image",), shape, {}, read),
        Operation("h", ACTIVATION, ("scale1",), shape, {"function": "hardswish"}),
        Operation("flat", FLATTEN, ("h",), (256,)),
    )
    held = {"s": torch.tensor([reach / 255]), "o": torch.tensor([-reach / 3])}
    graph = Graph("alone", shape, tuple(map(str, range(256))), operations, held)
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    found = quantize(graph, every)
    kinds = [step.kind for step in found.program.steps]
    assert ("table" in kinds) == (reach in (0.002, 300.0))
    assert ("hardswish" in kinds) == (reach not in (0.002, 300.0))
    scores = torch.from_numpy(int8_logits(found.program, every)) / LOGIT_SCALE
    error = (scores - run_logits(graph, every)).abs().max()
    assert error <= 1.6 * found.qparams["h"].scale + 1 / LOGIT_SCALE


def test_weights_are_whole_to_half_a_step() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3))
    weights[2] = 0
    numbers, scales = quantize_weights(weights)
    assert np.abs(numbers * scales[:, None, None, None] - weights).max() <= scales.max() * 0.5001
    assert not numbers[2].any()
    assert scales[2] == scales[[0, 1, 3]].min()
    assert (quantize_weights(0 * weights)[1] == 1).all()


def test_a_channel_of_zeros_leaves_the_factors_narrow() -> None:
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


def test_what_could_overflow_is_refused_by_name() -> None:
    one, most = np.ones(1), np.array([2**31])
    with pytest.raises(ModelError, match="conv7: cannot be exported in int8: a sum of its"):
        quantize_multiplier("conv7", one, one, (-most, most))
    byte = (np.zeros(1, np.int64), np.full(1, 255))
    with pytest.raises(ModelError, match=r"linear1: .*: a score could leave 32 bits"):
        quantize_multiplier("linear1", 1e6 * one, one, (byte[0], 40 * byte[1]), rounded=False)
    with pytest.raises(ModelError, match=r"scale2: .*: an output could leave 64 bits"):
        quantize_multiplier("scale2", 1e12 * one, one, byte)


def test_narrow_scores_stay_within_32_bits() -> None:
    """Near the limit, what narrow numbers are off by must not carry a score beyond it."""
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
        score = int(high[0]) * int(found.factors[0]) + int(found.offsets[0]) * found.step
        assert largest < score >> found.shift < 2**31
    assert 0 < refused < 50


def test_narrow_factors_are_near_the_wide_ones() -> None:
    """Every channel's output, anywhere in its sums, within a quarter of a level; else wide."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        highest = generator.integers(40_000, 400_000, 20)
        bounds = (-highest, highest)
        factors = 255 / highest * generator.uniform(0.3, 2, 20)
        offsets, moved = generator.uniform(-300, 300, 20), generator.integers(-5000, 5000, 20)
        found = quantize_multiplier("conv1", factors, offsets, bounds, moved, bits=8)
        assert (found.factors.dtype, found.offsets.dtype) == (np.int16, np.int16)
        for sums in (*bounds, np.zeros(20, int), highest // 3):
            wanted = factors * (sums - moved) + offsets + 0.5
            whole = sums * found.factors.astype(int) + found.offsets.astype(int) * found.step
            assert np.abs(whole / 2.0**found.shift - wanted).max() < 2 * MAX_ERROR
    # One channel whose sums are small beside one whose sums are large: no common shift is near.
    uneven = (np.zeros(2, int), np.array([100, 10_000_000]))
    kept = quantize_multiplier("conv1", np.array([2.0, 2e-5]), np.zeros(2), uneven, bits=8)
    assert kept.factors.dtype == np.int32


def test_a_step_beyond_32_bits_is_given_up() -> None:
    """Large offsets beside small factors: wide numbers hold them, as kernels take int32 steps."""
    bounds, kinds = (np.full(4, -20_000), np.full(4, 20_000)), set()
    for power in range(20, 40):
        found = quantize_multiplier(
            "conv1", np.full(4, 2.0**-power), np.full(4, 200.0), bounds, bits=8
        )
        assert found.step < 2**31
        kinds.add(found.factors.dtype)
    assert kinds == {np.dtype(np.int16), np.dtype(np.int32)}


def test_narrow_numbers_of_scores_are_near_the_wide_ones() -> None:
    generator = np.random.default_rng(1)
    for _ in range(50):
        highest = generator.integers(40_000, 80_000, 10)
        factors = 20 * 65536 / highest * generator.uniform(0.5, 1, 10)
        offsets = generator.uniform(-3, 3, 10) * 65536
        bounds = (-highest, highest)
        found = quantize_multiplier("linear1", factors, offsets, bounds, 100, rounded=False, bits=8)
        assert (found.factors.dtype, found.offsets.dtype) == (np.int16, np.int16)
        for sums in (*bounds, np.zeros(10, int)):
            whole = sums * found.factors.astype(int) + found.offsets.astype(int) * found.step
            off = np.abs(whole / 2.0**found.shift - factors * (sums - 100) - offsets)
            assert off.max() < 65536 / 128


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_factors_of_few_bits_take_a_byte_where_none_is_far_smaller(bits: int) -> None:
    generator = np.random.default_rng(bits)
    highest = np.full(20, 20_000)
    factors = 255 / highest * generator.uniform(0.5, 1, 20)
    bounds = (-highest, highest)
    found = quantize_multiplier(
        "conv1", factors, generator.uniform(-300, 300, 20), bounds, bits=bits
    )
    assert found.factors.dtype == np.uint8
    off = np.abs(found.factors.astype(float) / 2.0**found.shift / factors - 1).max()
    assert off <= 1 / 128
    assert found.offsets.dtype == np.int16
    # Equal ones are one each, and near zero they are few levels: a byte holds them.
    for offsets in (np.full(20, 117.0), generator.uniform(-10, 10, 20)):
        small = quantize_multiplier("conv1", factors, offsets, bounds, bits=2)
        assert (small.factors.dtype, small.offsets.dtype) == (np.uint8, np.int8)
        real = small.offsets.astype(float) * small.step / 2.0**small.shift
        assert np.abs(real - offsets - 0.5).max() < 2 * MAX_ERROR
    assert quantize_multiplier("conv1", factors, offsets, bounds, bits=8).factors.dtype == np.int16
    # A factor below zero, or one far smaller than another, is no byte.
    for odd in (-factors[0], factors[0] / 300):
        factors[0] = odd
        assert (
            quantize_multiplier("conv1", factors, offsets, bounds, bits=4).factors.dtype == np.int16
        )


class _Wide(nn.Module):
    """A layer of more inputs than int32 can add products of."""

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


def test_networks_that_whole_numbers_cannot_hold() -> None:
    images = torch.randint(0, 256, (2, 1, 300, 300), dtype=torch.uint8)
    wide = fuse(capture_graph(_Wide(), (1, 300, 300), CLASSES, "wide"))
    with pytest.raises(ModelError, match="linear1: cannot be exported in int8"):
        quantize(wide, images)
    early = fuse(capture_graph(_Early(), (1, 28, 28), CLASSES, "early"))
    with pytest.raises(ModelError, match="softmax1 is a softmax before the end"):
        quantize(early, some_images())


@needs_cc
@pytest.mark.slow
def test_every_test_image_bit_by_bit_and_little_lost() -> None:
    """Over ten seeds, at most 0.05 points of accuracy are lost in the mean."""
    lost = []
    for seed in range(10):
        split, program = read.trained(seed).split, read.trained_int8(seed).program
        scores = int8_logits(program, split.images)
        compiled = c_logits(program, c_files(program, "A network."), split.images) * LOGIT_SCALE
        assert (compiled.numpy() == scores).all(1).sum() == 10_000
        wanted = run_logits(read.trained_graph(seed), split.images).argmax(1)
        labels = split.labels
        right = int((torch.from_numpy(scores).argmax(1) == labels).sum())
        lost.append(int((wanted == labels).sum()) - right)
    assert mean(lost) <= 5, lost
