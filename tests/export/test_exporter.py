"""`whit export`: every format is verified, wrong input is refused, nothing is written partially."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export import read
from export.zoo import CLASSES, some_images
from harness.forging import reseal
from harness.processes import whit
from whit.errors import InputError, ModelError, RunFailed
from whit.export import exporter
from whit.export.exporter import ExportResult, export_run
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.export.ir.interpreter import run_logits
from whit.export.ir.ops import activation
from whit.export.ir.ops.activation import FUNCTIONS
from whit.export.targets import TARGETS, CTarget, ExportedModel
from whit.system import atomic_files


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of a finished run, to be modified."""
    return Path(shutil.copytree(read.recorded(0), tmp_path / "run"))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def exported(where: Path, run: Path, target: str, *options: str) -> dict[str, Any]:
    out = f"made.{target}"
    code, output = whit(
        where, "export", str(run), "--format", target, "--json", "--out", out, *options
    )
    assert code == 0, output
    assert list(where.glob(".*")) == []  # no temporary files
    value: dict[str, Any] = json.loads(output)
    return value


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_formats_by_the_command_line(easy_recipe: Path, tmp_path: Path) -> None:
    code, output = whit(tmp_path, "train", str(easy_recipe), "--out", "easy")
    assert code == 0, output
    run = tmp_path / "easy"
    onnx = exported(tmp_path, run, "onnx")
    assert onnx["parity"]["same_class"] == onnx["parity"]["num_images"] == 100
    assert onnx["bytes"] == (tmp_path / "made.onnx").stat().st_size
    assert onnx["runtime"] == "onnxruntime"
    int8 = exported(tmp_path, run, "c", "--int8")
    assert int8["parity"]["same_class"] >= 98
    assert int8["runtime"] == "compiled C code"
    assert int8["format"] == "c"
    assert set(int8["sizes"]) == {"constants", "ram", "code_estimate"}
    assert names_in(tmp_path / "made.c") == ["README.md", "easy_int8.c", "easy_int8.h", "main.c"]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "c"])
def test_a_recorded_run_on_every_test_image(target: str, tmp_path: Path) -> None:
    value = exported(tmp_path, read.recorded(0), target)
    assert value["parity"]["same_class"] == value["parity"]["num_images"] == 10_000
    (tmp_path / "int8").mkdir()
    value = exported(tmp_path / "int8", read.recorded(0), target, "--int8")
    assert value["correct"] == 9951


def test_existing_files_are_kept(run: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="already exists: remove it"):
        export_run(run, "c", tmp_path / "made")
    assert names_in(tmp_path / "made") == ["mine.txt"]
    with pytest.raises(InputError, match="does not exist: create it"):
        export_run(run, "onnx", tmp_path / "nowhere" / "made")
    with pytest.raises(InputError, match="File name too long: choose another path with --out"):
        export_run(run, "onnx", tmp_path / ("m" * 300))


def test_a_run_that_diverged(run: Path, tmp_path: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    reseal(run, result | {"state": "diverged"})
    with pytest.raises(InputError, match="the run diverged"):
        export_run(run, "c", tmp_path / "made")
    assert names_in(tmp_path) == ["run"]


def test_weights_of_another_network(run: Path, tmp_path: Path) -> None:
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace("widths = [16, 24", "widths = [8, 24"))
    assert recipe != (run / "recipe.toml").read_text()
    reseal(run)
    with pytest.raises(InputError, match="the model expects"):
        export_run(run, "onnx", tmp_path / "made")
    assert names_in(tmp_path) == ["run"]


def test_modified_weights(run: Path, tmp_path: Path) -> None:
    shutil.copy(read.recorded(1) / "weights.safetensors", run)
    with pytest.raises(InputError, match=r"altered after the run: weights\.safetensors"):
        export_run(run, "c", tmp_path / "made")


def test_other_data_than_the_run_used(run: Path, tmp_path: Path) -> None:
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | {"data_sha256": "0" * 64}))
    reseal(run)
    with pytest.raises(InputError, match="the data changed since the run"):
        export_run(run, "c", tmp_path / "made")
    assert names_in(tmp_path) == ["run"]


def test_an_export_that_differs_from_the_model(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(CTarget):
        def run(self, model: ExportedModel, images: Tensor) -> tuple[Tensor, str]:
            logits, runtime = TARGETS["html"].run(model, images)
            return logits * 1.01, runtime

    monkeypatch.setitem(TARGETS, "c", Other())
    with pytest.raises(
        RunFailed, match=r"the c export does not match the model, .* Nothing was written"
    ):
        export_run(run, "c", tmp_path / "made")
    assert names_in(tmp_path) == ["run"]


class Clipped(nn.Sequential):
    """A clamp whose upper bound no image reaches, as long as the weights are small."""

    def __init__(self) -> None:
        head = [nn.Conv2d(8, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        first, second = nn.Conv2d(1, 8, 3, 2), nn.Conv2d(8, 8, 1)
        super().__init__(first, nn.Sigmoid(), second, nn.Hardtanh(0, 1), *head)
        nn.init.uniform_(second.weight, 0, 0.05)


def test_an_operator_that_differs_where_no_image_reaches_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    graph = fuse(capture_graph(Clipped(), (1, 28, 28), CLASSES, "clipped"))
    given: Any = SimpleNamespace(
        run=SimpleNamespace(path="run", result={"params": 1, "test": {"correct": None}})
    )
    for target in ("onnx", "c") if shutil.which("cc") else ("onnx",):
        exporter._require_operators(given, TARGETS[target], graph)
    wrong = replace(
        FUNCTIONS["clamp"],
        onnx=lambda writer, op: writer.node("Relu", op.name, *op.inputs),
        expression="x > low ? x : low + 0 * high",
    )
    monkeypatch.setitem(FUNCTIONS, "clamp", wrong)
    monkeypatch.setitem(activation._KERNELS, "clamp", wrong.kernel())
    images = some_images()
    for target in ("onnx", "c") if shutil.which("cc") else ("onnx",):
        made = TARGETS[target].build(graph, given, int8=False)
        logits, _ = TARGETS[target].run(made, images)
        assert exporter._is_equal(logits, run_logits(graph, images))
        with pytest.raises(RunFailed, match=r"with random weights, logits differ by"):
            exporter._require_operators(given, TARGETS[target], graph)


@pytest.mark.parametrize("name", read.NAMES)
def test_every_network_with_random_weights(name: str) -> None:
    given: Any = SimpleNamespace(run=SimpleNamespace(path="run"))
    exporter._require_operators(given, TARGETS["onnx"], read.graph(name))
    graph, images = read.graph(name), exporter.random_images(read.graph(name))
    other = exporter.with_random_weights(graph, images)
    assert graph.num_constants == other.num_constants
    assert run_logits(other, images).std() > 0


def test_int8_of_a_graph_that_differs_from_the_model(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "predict", lambda *given: torch.eye(10))
    monkeypatch.setattr(exporter, "run_logits", lambda *given: torch.eye(10) * 1.1)
    with pytest.raises(
        RunFailed, match=r"the graph does not match the model, .* Nothing was written"
    ):
        export_run(run, "c", tmp_path / "made", int8=True)
    assert names_in(tmp_path) == ["run"]


def test_close_logits_with_another_class_are_not_equal() -> None:
    expected = torch.tensor([[100.0, 99.95, 0.0], [1.0, 2.0, 3.0]])
    assert exporter._is_equal(expected + 0.05, expected)
    assert not exporter._is_equal(expected[:, [1, 0, 2]][:1], expected[:1])
    tied = torch.tensor([[100.0, 99.9999, 0.0]])
    assert exporter._is_equal(tied[:, [1, 0, 2]], tied)
    assert not exporter._is_equal(expected / 0, expected)


@pytest.mark.parametrize("name", ["FullKernel", "Branches"])
def test_int8_applies_a_final_softmax_outside_the_program(name: str) -> None:
    split, test = SimpleNamespace(images=some_images()), {"correct": None}
    given: Any = SimpleNamespace(
        split=split,
        dataset=SimpleNamespace(train=split),
        run=SimpleNamespace(result={"params": 1, "test": test}),
    )
    graph = read.graph(name)
    made = TARGETS["c"].build(graph, given, int8=True)
    logits, _ = TARGETS["c"].run(made, split.images)
    probabilities = logits if graph.operations[-1].kind == "softmax" else logits.exp()
    assert torch.allclose(probabilities.sum(1).double(), torch.ones(len(split.images)).double())


def test_html_has_no_int8(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the html format supports float32 only"):
        export_run(run, "html", tmp_path / "made", int8=True)
    code, output = whit(tmp_path, "export", str(run), "--format", "html", "--int8")
    assert (code, output.count("the html format supports float32 only")) == (2, 1)


def test_a_missing_dependency_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whit.system.optional_deps.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'whit\[export\]'"):
        export_run(run, "onnx", tmp_path / "made")


def test_a_folder_is_written_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    with pytest.raises(RunFailed, match=r"Free .* then export again"):
        exporter._write(
            tmp_path / "made", ExportedModel(read.graph("FullKernel"), {"a.c": b"int a;\n"})
        )
    assert names_in(tmp_path) == []


def test_a_signal_leaves_no_partial_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic_files.os, "fsync", stopped)
    for files in ({"a.c": b"int a;\n"}, b"int a;\n"):
        with pytest.raises(KeyboardInterrupt):
            exporter._write(tmp_path / "made", ExportedModel(read.graph("FullKernel"), files))
        assert names_in(tmp_path) == []


def test_the_result_as_text() -> None:
    parity = exporter.ParityReport(10_000, 9_998, 0.25)
    value = ExportResult(
        *("c", True, Path("made"), 1000, 10, 99, "test", 9950, "PyTorch", parity),
        {"constants": 99, "ram": 64, "code_estimate": 5000},
    )
    text = " ".join(value.text().split())
    assert "9,998 of 10,000 test images: same class as the model" in text
    assert "Accuracy of the export: 9,950/10,000 (99.50 %), computed by PyTorch." in text
    assert "64 bytes of static RAM; about 5,000 bytes of code (estimate" in text
    assert value.to_json()["bytes"] == 1000
    assert "num_bytes" not in value.to_json()


@pytest.mark.parametrize("target", ["onnx", "c"])
def test_constants_that_are_not_finite_are_refused(target: str) -> None:
    graph = read.trained_graph()
    broken = {**graph.constants, "conv6.bias": graph.constants["conv6.bias"] / 0}
    with pytest.raises(ModelError, match=r"conv6\.bias: infinite or NaN values"):
        TARGETS[target].build(replace(graph, constants=broken), read.trained(), int8=False)
