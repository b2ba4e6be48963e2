"""The ONNX form: one checked file, the same bytes every time, run by onnxruntime as the network."""

from __future__ import annotations

import json

import onnx
import pytest
import torch
from torch import Tensor

from export import read
from export.zoo import some_images
from whit.export.onnx import onnx_bytes, onnx_logits
from whit.export.quantization.quantize import quantize
from whit.training.evaluation import predict

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def near(ours: Tensor, theirs: Tensor) -> bool:
    """Whether logits agree to 1e-4, of their size where they are large."""
    return bool(((ours - theirs).abs() <= 1e-4 * theirs.abs().clamp(min=1)).all())


@pytest.mark.parametrize("name", read.NAMES)
def test_a_file_gives_what_the_network_gives(name: str) -> None:
    images, model = some_images(12), read.network(name)
    with torch.inference_mode():
        wanted = model(images.float())
    content = onnx_bytes(read.graph(name))
    assert onnx_bytes(read.graph(name)) == content
    assert near(onnx_logits(content, images), wanted)
    assert near(onnx_logits(content, images[:1]), wanted[:1])  # a batch of any size


def test_a_file_says_what_it_reads_and_gives() -> None:
    model = onnx.load_from_string(onnx_bytes(read.trained_graph()))
    said = {each.key: each.value for each in model.metadata_props}
    assert said["name"] == "fewest-epochs"
    assert json.loads(said["classes"]) == list("0123456789")
    assert said["input"] == "pixels 0..255, float32, N C H W, not normalised"
    (read_in,), (given,) = model.graph.input, model.graph.output
    shape = read_in.type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in shape] == ["N", 1, 28, 28]
    assert (read_in.name, given.name) == ("image", "logits")
    assert model.ir_version == 9


def test_shared_weights_are_stored_once() -> None:
    model = onnx.load_from_string(onnx_bytes(read.trained_graph()))
    names = [tensor.name for tensor in model.graph.initializer]
    assert names.count("conv3.weight") == 1
    readers = [node.name for node in model.graph.node if "conv3.weight" in node.input]
    assert readers == ["conv3", "conv4", "conv5"]


@pytest.mark.parametrize("name", read.NAMES)
def test_the_int8_file_is_checked_and_run(name: str) -> None:
    images = some_images(12)
    found = quantize(read.graph(name), images)
    content = onnx_bytes(read.graph(name), found)
    assert onnx_bytes(read.graph(name), found) == content
    assert onnx_logits(content, images).isfinite().all()


def test_the_int8_file_decides_as_whole_numbers_do() -> None:
    split = read.trained().split
    logits = onnx_logits(onnx_bytes(read.trained_graph(), read.trained_int8()), split.images[:300])
    assert (logits.argmax(1) == split.labels[:300]).sum() >= 297


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_same_class_on_every_test_image(seed: int) -> None:
    run = read.trained(seed)
    wanted = predict(run.model, run.split, run.normalize)
    logits = onnx_logits(onnx_bytes(read.trained_graph(seed)), run.split.images)
    assert (logits.argmax(1) == wanted.argmax(1)).sum() == len(run.split) == 10_000
    assert near(logits, wanted)
