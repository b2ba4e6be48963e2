"""Networks that only ONNX has, from a user's model file to a file: train, export, refuse."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch

from easy_data import easy_images
from export import tensor_zoo
from harness.processes import whit


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("Patches", "the operator layer_norm is not supported"),
        pytest.param("Rows", "rnn (GRU): the operator gru.input", marks=pytest.mark.slow),
        pytest.param("UNet", "norm (GroupNorm)", marks=pytest.mark.slow),
    ],
)
def test_a_model_file_by_the_command_line(
    name: str, refused: str, easy_npz: Path, tmp_path: Path
) -> None:
    source = Path(tensor_zoo.__file__).read_text()
    (tmp_path / "mine.py").write_text(source)
    (tmp_path / "mine.toml").write_text(
        f"""
schema = 2
name = "mine"
[model]
name = "mine.py:{name}"
[data]
name = "{easy_npz}"
[train]
epochs = 1
batch_size = 50
"""
    )
    code, output = whit(tmp_path, "train", "mine.toml", "--out", "run", "--quiet")
    assert code in (0, 1), output
    options = ("--json", "--out", "mine.onnx")
    code, output = whit(tmp_path, "export", "run", "--format", "onnx", *options)
    assert code == 0, output
    assert json.loads(output)["parity"]["same_class"] == 100
    pixels = torch.from_numpy(easy_images(3, 5)[0])[:, None].float().numpy()
    session = onnxruntime.InferenceSession(str(tmp_path / "mine.onnx"))
    assert session.run(None, {"image": pixels})[0].shape == (3, 10)
    code, output = whit(tmp_path, "export", "run", "--format", "c")
    assert code == 2, output
    text = " ".join(output.split())
    assert refused in text
    assert "--format onnx supports it" in text
    assert not (tmp_path / "run.c").exists()
