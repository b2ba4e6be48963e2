"""The ONNX export: a valid, reproducible file that onnxruntime runs like the model."""

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
    """Whether logits agree to 1e-4, relative where they are larger than 1."""
    return bool(((ours - theirs).abs() <= 1e-4 * theirs.abs().clamp(min=1)).all())


@pytest.mark.parametrize("name", read.NAMES)
def test_a_file_computes_what_the_model_computes(name: str) -> None:
    images, model = some_images(12), read.network(name)
    with torch.inference_mode():
        expected = model(images.float())
    content = onnx_bytes(read.graph(name))
    assert onnx_bytes(read.graph(name)) == content
    assert near(onnx_logits(content, images), expected)
    assert near(onnx_logits(content, images[:1]), expected[:1])  # any batch size


def test_a_file_documents_its_input_and_output() -> None:
    model = onnx.load_from_string(onnx_bytes(read.trained_graph()))
    metadata = {each.key: each.value for each in model.metadata_props}
    assert metadata["name"] == "fewest-epochs"
    assert json.loads(metadata["classes"]) == list("0123456789")
    assert metadata["input"] == "pixels 0..255, float32, NCHW, not normalized"
    assert metadata["precision"] == "float32"
    (image,), (logits,) = model.graph.input, model.graph.output
    shape = image.type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in shape] == ["N", 1, 28, 28]
    assert (image.name, logits.name) == ("image", "logits")
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


def test_the_int8_file_classifies_accurately() -> None:
    split = read.trained().split
    logits = onnx_logits(onnx_bytes(read.trained_graph(), read.trained_int8()), split.images[:300])
    assert (logits.argmax(1) == split.labels[:300]).sum() >= 297


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_same_class_on_every_test_image(seed: int) -> None:
    run = read.trained(seed)
    expected = predict(run.model, run.split, run.normalize)
    logits = onnx_logits(onnx_bytes(read.trained_graph(seed)), run.split.images)
    assert (logits.argmax(1) == expected.argmax(1)).sum() == len(run.split) == 10_000
    assert near(logits, expected)
