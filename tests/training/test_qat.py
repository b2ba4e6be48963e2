"""Weights of few bits: what the rounding is, what training ends with, and what C makes of it."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import whit
from easy_data import easy_images
from export.zoo import CLASSES, as_if_trained, some_images
from whit.errors import Interrupted, RecipeError
from whit.export.c.compile import c_logits
from whit.export.c.source import c_files, memory_bytes, pack_weights
from whit.export.ir.build import build_graph
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.export.ir.interpreter import run_logits
from whit.export.program import LOGIT_SCALE
from whit.export.quantization.quantize import quantize
from whit.export.quantization.reference import int8_logits
from whit.models.build import build_initialized_model
from whit.recipes.recipe_tables import QATSpec
from whit.runs.reader import read_run
from whit.runs.result import EpochRecord, Evaluation
from whit.training.callback import RunCallback
from whit.training.evaluation import evaluate
from whit.training.optimization.qat import FakeQuantizer, fake_quantize
from whit.training.plan import make_plan
from whit.training.run import resume_run, train_run
from whit.verification.restore import load_run_model


@pytest.mark.parametrize("bits", range(2, 9))
def test_rounded_weights_are_few_and_near(bits: int) -> None:
    torch.manual_seed(bits)
    weight = torch.randn(5, 3, 3, 3)
    weight[2] = 0
    made = fake_quantize(weight, bits)
    most = 2 ** (bits - 1) - 1
    for row, was in zip(made, weight, strict=True):
        step = was.abs().max() / most
        assert (row - was).abs().max() <= 0.5001 * step
        if step:
            whole = row / step
            torch.testing.assert_close(whole, whole.round())
            assert whole.abs().max().round() == most


@pytest.mark.parametrize("bits", range(2, 9))
def test_rounded_again_they_stay_to_the_last_bit(bits: int) -> None:
    torch.manual_seed(bits)
    made = fake_quantize(torch.randn(20_000, 5), bits)
    assert torch.equal(fake_quantize(made, bits), made)


def test_the_gradient_is_of_the_rounded_weights_and_the_step_of_those_behind() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    behind = model.weight.detach().clone()
    quantizer = FakeQuantizer(model, QATSpec(bits=2, start=0.5))
    quantizer.apply(0.4)
    assert torch.equal(model.weight, behind)
    quantizer.restore()
    quantizer.apply(0.5)
    images = torch.randn(3, 4)
    torch.testing.assert_close(
        model(images), images @ fake_quantize(behind, 2).T + model.bias, rtol=1e-5, atol=1e-6
    )
    quantizer.restore()
    assert torch.equal(model.weight, behind)
    quantizer.finalize()
    assert torch.equal(model.weight, fake_quantize(behind, 2))


def test_weights_that_layers_share_are_rounded_once() -> None:
    one, other = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)
    other.weight = one.weight
    assert len(FakeQuantizer(nn.Sequential(one, other), QATSpec(bits=4)).weights) == 1
    assert FakeQuantizer(nn.Sequential(one, other), None).weights == []


def test_packed_weights_can_be_read_again() -> None:
    generator = np.random.default_rng(0)
    for bits in range(2, 8):
        most = 2 ** (bits - 1) - 1
        weights = generator.integers(-most, most + 1, 101).astype(np.int8)
        stored = pack_weights(weights, bits)
        assert stored.nbytes == -(-101 * bits // 8)
        number = int.from_bytes(stored.tobytes(), "little")
        read = [(number >> (bits * i)) % 2**bits - most for i in range(101)]
        assert read == weights.tolist()


def recipe_text(folder: Path, qat: str) -> str:
    return f"""
schema = 2
name = "few-bits"
[model]
name = "plain"
widths = [6, 8]
conv_types = ["conv", "separable"]
[data]
name = "{folder}"
[train]
epochs = 3
batch_size = 50
[optim]
lr = 0.05
{qat}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    data = tmp_path / "stripes.npz"
    (x_train, y_train), (x_test, y_test) = easy_images(400, 0), easy_images(100, 1)
    np.savez(data, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    file = tmp_path / "few.toml"
    file.write_text(recipe_text(data, "[qat]\nbits = 3\nstart = 0.3"))
    return file


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_run_ends_with_low_bit_weights_that_c_stores_packed(recipe: Path, tmp_path: Path) -> None:
    whit.train(recipe, out=tmp_path / "run", seed=0, quiet=True)
    trained = load_run_model(read_run(tmp_path / "run"))
    for parameter in trained.model.parameters():
        if parameter.ndim >= 2:
            for row in parameter.detach().flatten(1):
                assert len(row.unique()) <= 7
    graph, images = build_graph(trained), trained.dataset.test.images
    assert graph.bits == 3
    few = quantize(graph, trained.dataset.train.images)
    for name, whole in few.weights.items():
        assert np.abs(whole.values).max() <= 3, name
    program = few.program
    eight = quantize(replace(graph, bits=8), trained.dataset.train.images).program
    stored = {step.constants["weight"] for step in program.steps if "weight" in step.constants}
    assert {name for name in program.constants if program.is_packed(name)} == stored
    assert not any(map(eight.is_packed, eight.constants))
    beside = sum(array.nbytes for name, array in program.constants.items() if name not in stored)
    packed_bytes = sum(-(-program.constants[name].size * 3 // 8) for name in stored)
    assert program.constant_bytes == packed_bytes + beside < 0.6 * eight.constant_bytes
    assert {str(array.dtype) for array in program.constants.values()} >= {"uint8", "int8", "int16"}
    assert memory_bytes(program) > memory_bytes(eight)
    compiled = c_logits(program, c_files(program, "A network."), images) * LOGIT_SCALE
    assert (compiled.numpy() == int8_logits(program, images)).all()
    # Nothing is rounded again: it decides as the network does, but for its activations.
    network = trained.model(trained.normalize(images.float()))
    assert (compiled.argmax(1) == network.argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize("name", ["published-17098", "published-16848"])
def test_weights_stay_low_bit_where_scales_precede_them(name: str) -> None:
    """A scale by channel before a convolution must not be fused into low-bit weights."""
    model = as_if_trained(build_initialized_model(whit.load_recipe(name), (1, 28, 28), 10))
    FakeQuantizer(model, QATSpec(bits=3)).finalize()
    read = replace(capture_graph(model, (1, 28, 28), CLASSES, name), bits=3)
    graph = fuse(read)
    weights = [op.constants["weight"] for op in graph.operations if "weight" in op.constants]
    assert len(weights) > 3
    for weight in weights:
        tensor = graph.constants[weight]
        torch.testing.assert_close(fake_quantize(tensor, 3), tensor, rtol=1e-5, atol=1e-6)
    eight = fuse(replace(read, bits=8))
    torch.testing.assert_close(
        run_logits(graph, some_images()), run_logits(eight, some_images()), rtol=1e-3, atol=1e-3
    )
    assert len(eight.operations) < len(graph.operations)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_offsets_that_are_one_step_are_stored_once() -> None:
    """The depthwise layers of `tiniest`: nothing is added to their sums but the zero of bytes."""
    model = as_if_trained(build_initialized_model(whit.load_recipe("tiniest"), (1, 28, 28), 10))
    FakeQuantizer(model, QATSpec(bits=4)).finalize()
    read = capture_graph(model, (1, 28, 28), CLASSES, "tiniest")
    images = some_images(40)
    program = quantize(fuse(replace(read, bits=4)), images).program
    ones = program.constants["ones"]
    sharing = [step for step in program.steps if step.constants.get("offset") == "ones"]
    assert len(sharing) >= 3
    assert len({step.shape[0] for step in sharing}) > 1
    assert ones.tolist() == [1] * max(step.shape[0] for step in sharing)
    for name, array in program.constants.items():
        assert name == "ones" or len(set(array.ravel().tolist())) > 1, name
    compiled = c_logits(program, c_files(program, "A network."), images) * LOGIT_SCALE
    assert (compiled.numpy() == int8_logits(program, images)).all()


class StopAfter(RunCallback):
    """Stops as Ctrl-C does, after the second epoch, when weights are rounded already."""

    def on_epoch_end(self, record: EpochRecord) -> None:
        if record.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("changes", [[], ["model.dropout=0.3", "train.dropout_end=0.5"]])
def test_it_resumes_to_the_same_bytes(recipe: Path, tmp_path: Path, changes: list[str]) -> None:
    planned = make_plan(whit.load_recipe(recipe).with_overrides(changes))
    whole = train_run(planned, out=tmp_path / "whole", threads=1)
    with pytest.raises(Interrupted):
        train_run(planned, out=tmp_path / "halves", threads=1, callback=StopAfter())
    assert resume_run(tmp_path / "halves").weights_sha256 == whole.weights_sha256


def is_rounded(model: nn.Module) -> bool:
    weights = [w.detach() for w in model.parameters() if w.ndim >= 2]
    return all(torch.equal(weight, fake_quantize(weight, 3)) for weight in weights)


def test_what_is_judged_has_rounded_weights(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the epoch on that ends beyond `start`; a stop during an evaluation loses no weights."""
    changes = ["data.val_size=100", "eval.each_epoch=val", "qat.start=0.5"]
    planned = make_plan(whit.load_recipe(recipe).with_overrides(changes))
    seen: list[bool] = []

    def looked_on(model: nn.Module, *args: Any, **named: Any) -> Evaluation:
        seen.append(is_rounded(model))
        return evaluate(model, *args, **named)

    def stopped(model: nn.Module, *args: Any, **named: Any) -> Evaluation:
        found = looked_on(model, *args, **named)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return found

    monkeypatch.setattr("whit.training.run.evaluate", looked_on)
    whole = train_run(planned, out=tmp_path / "whole", threads=1)
    assert seen == [False, True, True, True]  # the last two: val and test
    seen.clear()
    monkeypatch.setattr("whit.training.run.evaluate", stopped)
    with pytest.raises(Interrupted):
        train_run(planned, out=tmp_path / "halves", threads=1)
    assert seen == [False, True]
    assert resume_run(tmp_path / "halves").weights_sha256 == whole.weights_sha256


def test_wrong_bits_are_refused(recipe: Path) -> None:
    for bits in (1, 9, 4.5):
        with pytest.raises(RecipeError, match=r"qat\.bits"):
            whit.load_recipe(recipe).with_overrides([f"qat.bits={bits}"])
