"""`whit export`: every form with its proof, wrong input refused at once, nothing half-written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from export import read
from export.zoo import some_images
from harness.processes import whit
from whit.errors import InputError, ModelError, RunFailed
from whit.export import exporter
from whit.export.exporter import ExportResult, export_run
from whit.export.targets import TARGETS, CTarget, ExportedModel
from whit.system import atomic_files


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of its own, to be spoilt."""
    return Path(shutil.copytree(read.recorded(0), tmp_path / "run"))


def left_in(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def shipped(where: Path, run: Path, form: str, *options: str) -> dict[str, Any]:
    out = f"made.{form}"
    code, said = whit(where, "export", str(run), "--format", form, "--json", "--out", out, *options)
    assert code == 0, said
    assert list(where.glob(".*")) == []  # nothing unfinished
    value: dict[str, Any] = json.loads(said)
    return value


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_each_form_by_the_command_line(easy_recipe: Path, tmp_path: Path) -> None:
    code, said = whit(tmp_path, "train", str(easy_recipe), "--out", "easy")
    assert code == 0, said
    run = tmp_path / "easy"
    onnx = shipped(tmp_path, run, "onnx")
    assert onnx["proof"]["same_class"] == onnx["proof"]["num_images"] == 100
    assert onnx["bytes"] == (tmp_path / "made.onnx").stat().st_size
    assert onnx["ran_by"] == "onnxruntime"
    whole = shipped(tmp_path, run, "c", "--int8")
    assert whole["proof"]["same_class"] >= 98
    assert whole["ran_by"] == "the C form, compiled here"
    assert left_in(tmp_path / "made.c") == ["README.md", "easy.c", "easy.h"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "c"])
def test_a_recorded_run_on_every_test_image(form: str, tmp_path: Path) -> None:
    value = shipped(tmp_path, read.recorded(0), form)
    assert value["proof"]["same_class"] == value["proof"]["num_images"] == 10_000
    (tmp_path / "whole").mkdir()
    value = shipped(tmp_path / "whole", read.recorded(0), form, "--int8")
    assert value["correct"] == 9951


def test_what_is_there_stays(run: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already: remove it"):
        export_run(run, "c", tmp_path / "made")
    assert left_in(tmp_path / "made") == ["mine.txt"]
    with pytest.raises(InputError, match="is not there"):
        export_run(run, "onnx", tmp_path / "nowhere" / "made")
    with pytest.raises(InputError, match="File name too long: name another by --out"):
        export_run(run, "onnx", tmp_path / ("m" * 300))


def test_a_run_that_diverged(run: Path, tmp_path: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"state": "diverged"}))
    with pytest.raises(InputError, match="the run diverged"):
        export_run(run, "c", tmp_path / "made")
    assert left_in(tmp_path) == ["run"]


def test_weights_of_another_network(run: Path, tmp_path: Path) -> None:
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace("widths = [16, 24", "widths = [8, 24"))
    assert recipe != (run / "recipe.toml").read_text()
    with pytest.raises(InputError, match="the model wants"):
        export_run(run, "onnx", tmp_path / "made")
    assert left_in(tmp_path) == ["run"]


def test_other_weights_than_were_judged(run: Path, tmp_path: Path) -> None:
    shutil.copy(read.recorded(1) / "weights.safetensors", run)
    with pytest.raises(InputError, match="not the weights that the run was judged by"):
        export_run(run, "c", tmp_path / "made")


def test_other_data_than_it_was_judged_on(run: Path, tmp_path: Path) -> None:
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | {"data_sha256": "0" * 64}))
    with pytest.raises(InputError, match="the data changed since the run"):
        export_run(run, "c", tmp_path / "made")
    assert left_in(tmp_path) == ["run"]


def test_a_form_that_is_not_the_network(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(CTarget):
        def run(self, model: ExportedModel, images: Tensor) -> tuple[Tensor, str]:
            logits, ran_by = TARGETS["html"].run(model, images)
            return logits * 1.01, ran_by

    monkeypatch.setitem(TARGETS, "c", Other())
    with pytest.raises(RunFailed, match=r"its c form is not the network, .* Nothing was written"):
        export_run(run, "c", tmp_path / "made")
    assert left_in(tmp_path) == ["run"]


def test_whole_numbers_of_another_graph(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "predict", lambda *given: torch.eye(10))
    monkeypatch.setattr(exporter, "run_logits", lambda *given: torch.eye(10) * 1.1)
    with pytest.raises(RunFailed, match=r"its graph is not the network, .* Nothing was written"):
        export_run(run, "c", tmp_path / "made", int8=True)
    assert left_in(tmp_path) == ["run"]


def test_near_logits_of_another_class_are_not_equal() -> None:
    wanted = torch.tensor([[100.0, 99.95, 0.0], [1.0, 2.0, 3.0]])
    assert exporter._is_equal(wanted + 0.05, wanted)
    assert not exporter._is_equal(wanted[:, [1, 0, 2]][:1], wanted[:1])
    tied = torch.tensor([[100.0, 99.9999, 0.0]])
    assert exporter._is_equal(tied[:, [1, 0, 2]], tied)
    assert not exporter._is_equal(wanted / 0, wanted)


@pytest.mark.parametrize("name", ["Whole", "Branches"])
def test_whole_numbers_before_a_softmax_are_compared_behind_it(name: str) -> None:
    split, test = SimpleNamespace(images=some_images()), {"correct": None}
    given: Any = SimpleNamespace(
        split=split,
        dataset=SimpleNamespace(train=split),
        run=SimpleNamespace(result={"params": 1, "test": test}),
    )
    graph = read.graph(name)
    made = TARGETS["c"].build(graph, given, int8=True)
    logits, _ = TARGETS["c"].run(made, split.images)
    shares = logits if graph.operations[-1].kind == "softmax" else logits.exp()
    assert torch.allclose(shares.sum(1).double(), torch.ones(len(split.images)).double())


def test_the_page_has_no_int8(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the page computes in float32"):
        export_run(run, "html", tmp_path / "made", int8=True)
    code, said = whit(tmp_path, "export", str(run), "--format", "html", "--int8")
    assert (code, said.count("the page computes in float32")) == (2, 1)


def test_a_missing_part_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whit.system.optional_deps.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'whit\[export\]'"):
        export_run(run, "onnx", tmp_path / "made")


def test_a_folder_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    with pytest.raises(RunFailed, match=r"Free .* then export again"):
        exporter._write(tmp_path / "made", ExportedModel(read.graph("Whole"), {"a.c": b"int a;\n"}))
    assert left_in(tmp_path) == []


def test_a_signal_leaves_no_half_written_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic_files.os, "fsync", stopped)
    for files in ({"a.c": b"int a;\n"}, b"int a;\n"):
        with pytest.raises(KeyboardInterrupt):
            exporter._write(tmp_path / "made", ExportedModel(read.graph("Whole"), files))
        assert left_in(tmp_path) == []


def test_a_form_says_what_it_proved() -> None:
    proof = exporter.ParityReport(10_000, 9_998, 0.25)
    value = ExportResult(
        *("c", True, Path("made"), 1000, 10, 99, "test", 9950, "PyTorch", proof, {"memory": 64})
    )
    assert "the network on 9,998 of 10,000 test images" in value.text()
    assert "Right on 9,950 of them (99.50 %), computed by PyTorch." in value.text()
    assert "64 bytes of memory" in value.text()
    assert value.to_json()["bytes"] == 1000
    assert "num_bytes" not in value.to_json()


@pytest.mark.parametrize("form", ["onnx", "c"])
def test_numbers_that_are_none_are_refused(form: str) -> None:
    graph = read.trained_graph()
    broken = {**graph.constants, "conv6.bias": graph.constants["conv6.bias"] / 0}
    with pytest.raises(ModelError, match=r"conv6\.bias: not all are finite numbers"):
        TARGETS[form].build(replace(graph, constants=broken), read.trained(), int8=False)
