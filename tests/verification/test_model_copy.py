"""A run keeps a copy of its model's source, which is executed only on request.

pytest tests/verification/test_model_copy.py
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import whit
from whit.errors import InputError, Interrupted, SourceError
from whit.models.run_source import read_copy
from whit.training.callback import RunCallback
from whit.training.plan import make_plan
from whit.training.run import resume_run, train_run

NET = """\
import torch
from torch import nn
from torchsummary_x import summary
from blocks import Block

WIDTH = 8


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = Block(1, WIDTH)
        self.head = nn.Conv2d(WIDTH, 10, 1)

    def forward(self, x):
        return self.head(self.body(x)).mean((2, 3))


model = Net()
summary(model, (1, 28, 28))
raise RuntimeError("trained")
"""
BLOCKS = """\
import torchvision_x
from torch import nn
from sizes.kernel import SIZE


class Block(nn.Sequential):
    def __init__(self, inner, outer):
        super().__init__(nn.Conv2d(inner, outer, SIZE, 2), nn.BatchNorm2d(outer), nn.ReLU())
"""


def write_notebook(path: Path, *texts: str) -> None:
    cells = [{"cell_type": "code", "source": text} for text in texts]
    path.write_text(json.dumps({"cells": cells, "nbformat": 4}))


_SOURCES = ("net.py", "net.ipynb")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, easy_npz: Path) -> Path:
    """A folder with two finished runs, `run` of a file and `book` of a notebook."""
    folder = tmp_path_factory.mktemp("copies")
    (folder / "sizes").mkdir()
    (folder / "sizes/kernel.py").write_text("SIZE = 3\n")
    (folder / "blocks.py").write_text(BLOCKS)
    (folder / "net.py").write_text(NET)
    write_notebook(folder / "net.ipynb", "pip install x", NET.replace("raise", "!ls\nraise"))
    for name in ("run", "book"):
        suffix = "py" if name == "run" else "ipynb"
        recipe = (
            f'schema = 2\nname = "easy"\n[model]\nname = "{folder}/net.{suffix}:Net"\n'
            f'[data]\nname = "{easy_npz}"\n[train]\nepochs = 1\nbatch_size = 16\n'
            '[budget]\nparams = "< 20000"\nepochs = "< 20"\naccuracy = ">= 1"\n'
        )
        (folder / f"{name}.toml").write_text(recipe)
        whit.train(folder / f"{name}.toml", out=folder / name, threads=1, quiet=True)
    return folder


@pytest.fixture
def at(made: Path, tmp_path: Path) -> Path:
    """A copy of the runs; their model files are moved away from where the recipes name them."""
    shutil.copytree(made, tmp_path / "made", ignore=shutil.ignore_patterns(*_SOURCES))
    for name in ("net.py", "net.ipynb", "blocks.py", "sizes"):
        (made / name).rename(made / f"{name}.away")
    yield tmp_path / "made"
    for name in ("net.py", "net.ipynb", "blocks.py", "sizes"):
        (made / f"{name}.away").rename(made / name)


def test_the_copy_is_the_file_and_what_it_imports(made: Path) -> None:
    run = made / "run"
    assert (run / "model.py").read_text() == NET
    assert (run / "model/blocks.py").read_text() == BLOCKS
    assert (run / "model/sizes/kernel.py").read_text() == "SIZE = 3\n"
    files = json.loads((run / "result.json").read_text())["files"]
    assert {"model.py", "model/blocks.py", "model/sizes/kernel.py"} <= set(files)
    environment = json.loads((run / "environment.json").read_text())
    assert environment["model_source"] == {
        "file": "net.py",
        "class": "Net",
        "is_notebook": False,
        "run_whole_file": False,
        "package": "",
        "modules": {"blocks": "model/blocks.py", "sizes.kernel": "model/sizes/kernel.py"},
    }
    assert read_copy(run, environment).sha256 == environment["model_sha256"]


def test_of_a_notebook_the_executed_text_is_kept(made: Path) -> None:
    text = (made / "book/model.py").read_text()
    assert "class Net(nn.Module)" in text
    assert not any(word in text for word in ("pip", "summary", "raise", "!ls"))


@pytest.mark.parametrize("name", ["run", "book"])
def test_without_its_file_a_run_says_where_the_copy_is(at: Path, name: str) -> None:
    run = at / name
    for use in (whit.audit, whit.load_run, lambda run: whit.export(run, "onnx", at / "o.onnx")):
        with pytest.raises(SourceError) as caught:
            use(run)
        missing, advice = caught.value.problems
        assert missing.endswith("no such file.")
        assert advice == (
            f"A copy of the source that was trained is in {run}/model.py. It is executed only on "
            "request: read it, then add --trust-model-files (in Python: trust_model_files=True)."
        )


@pytest.mark.parametrize("name", ["run", "book"])
def test_on_request_the_copy_is_executed(at: Path, name: str) -> None:
    result = whit.audit(at / name, trust_model_files=True)
    assert (result.verdict, result.mismatches) == ("met", ())
    note = f"the copy of its source, {at / name}/model.py, was executed."
    assert any(text.endswith(note) for text in result.notes)
    assert whit.load_run(at / name, trust_model_files=True).model.body[0].out_channels == 8
    whit.export(at / name, "onnx", at / "net.onnx", trust_model_files=True)
    page = whit.report(at / name, at / "net.html", trust_model_files=True)
    assert "Verdict" in page.read_text()


def test_an_edited_copy_is_found(at: Path) -> None:
    with (at / "run/model/blocks.py").open("a") as file:
        file.write("# a comment\n")
    (at / "run/model/more.py").write_text("")
    result = whit.audit(at / "run", trust_model_files=True)
    rules = {found.rule for found in result.mismatches}
    assert rules == {"altered model/blocks.py", "altered model/more.py"}
    (at / "run/model/sizes/kernel.py").write_text("SIZE = 1 + 2\n")
    result = whit.audit(at / "run", trust_model_files=True)
    assert "record source" in {found.rule for found in result.mismatches}


def test_a_file_that_changed_is_replaced_by_the_copy_on_request(made: Path) -> None:
    file = made / "net.py"
    try:
        file.write_text(NET + "epochs = 20  # not executed, so nothing has changed\n")
        assert whit.audit(made / "run").mismatches == ()
        file.write_text(NET.replace("mean((2, 3))", "amax((2, 3))"))
        (changed,) = [m for m in whit.audit(made / "run").mismatches if m.rule == "record source"]
        assert "A copy of the source that was trained is in" in changed.message
        file.write_text(NET.replace("WIDTH = 8", "WIDTH = 9"))
        with pytest.raises(InputError, match="has changed since the run, and the weights do not"):
            whit.audit(made / "run")
        assert whit.audit(made / "run", trust_model_files=True).mismatches == ()
    finally:
        file.write_text(NET)


def set_modules(run: Path, modules: object) -> None:
    environment = json.loads((run / "environment.json").read_text())
    environment["model_source"]["modules"] = modules
    (run / "environment.json").write_text(json.dumps(environment))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: set_modules(run, ["blocks"]),
        lambda run: set_modules(run, {"blocks": "../../net.py"}),
        lambda run: set_modules(run, {"../blocks": "model/../blocks.py"}),
        lambda run: set_modules(run, {"blocks": 3}),
        lambda run: (run / "model/blocks.py").unlink(),
        lambda run: (run / "model.py").write_bytes(b"\xff" * 9),
        lambda run: ((run / "model.py").unlink(), (run / "model.py").mkdir()),
        lambda run: ((run / "model.py").unlink(), (run / "model.py").symlink_to("/dev/zero")),
    ],
)
def test_a_damaged_copy_is_refused(at: Path, spoil: Callable[[Path], object]) -> None:
    spoil(at / "run")
    with pytest.raises(SourceError):
        whit.audit(at / "run", trust_model_files=True)


class Stop(RunCallback):
    def on_epoch_end(self, record: object) -> None:
        raise Interrupted("stopped", 130)


def test_a_run_resumes_from_its_copy(made: Path, tmp_path: Path) -> None:
    recipe = whit.load_recipe(made / "run.toml").with_overrides(["train.epochs=2"])
    shutil.copytree(made / "sizes", tmp_path / "sizes")
    for name in ("net.py", "blocks.py"):
        shutil.copy(made / name, tmp_path / name)
    recipe = recipe.with_overrides([f"model.name={tmp_path}/net.py:Net"])
    with pytest.raises(Interrupted):
        train_run(make_plan(recipe), out=tmp_path / "run", threads=1, callback=Stop())
    (tmp_path / "net.py").unlink()
    with pytest.raises(SourceError, match="--trust-model-files"):
        resume_run(tmp_path / "run")
    assert resume_run(tmp_path / "run", trust_model_files=True).epochs == 2


def test_a_built_in_network_leaves_no_copy(easy_recipe: Path, tmp_path: Path) -> None:
    whit.train(easy_recipe, out=tmp_path / "out", threads=1, quiet=True)
    assert not (tmp_path / "out/model.py").exists()
    assert "model_source" not in json.loads((tmp_path / "out/environment.json").read_text())


def test_run_whole_file_is_part_of_the_recipe(made: Path, tmp_path: Path) -> None:
    recipe = whit.load_recipe(made / "run.toml")
    with pytest.raises(InputError, match="it raised RuntimeError: trained"):
        whit.plan(recipe, run_whole_file=True)
    with pytest.raises(InputError, match="it raised RuntimeError: trained"):
        whit.audit(f"{made}/net.py:Net", run_whole_file=True)
    with pytest.raises(InputError, match="run_whole_file is only for a model named as"):
        whit.plan("sprint", run_whole_file=True)
    with pytest.raises(InputError, match="its recipe says what is executed"):
        whit.audit(made / "run", run_whole_file=True)
    whole = recipe.with_overrides(["model.run_whole_file=true"])
    assert "run_whole_file = true" in whole.to_toml()
    assert "run_whole_file" not in recipe.to_toml()
