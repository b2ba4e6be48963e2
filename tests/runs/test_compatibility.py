"""Resuming with another result is refused with the difference, or allowed and recorded."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import whit
from harness.processes import Command, evidence
from harness.processes import whit as command_line
from training.test_kill_and_resume import RESUME, kill_after
from waiting import wait_until
from whit.errors import IncompatibleResume, Interrupted, ModelError
from whit.runs.compatibility import describe_change, diff_environments


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, easy_npz: Path, undisturbed: Path) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    shutil.copy(easy_npz, folder / "easy.npz")
    shutil.copy(undisturbed.parent / "easy.toml", folder / "easy.toml")
    kill_after(folder, 2)
    return folder


@pytest.fixture
def unfinished(killed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "place"))


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in (folder / "run").rglob("*") if path.is_file()]
    return {
        str(path): path.read_bytes()
        for path in files
        if path.parent.name != "checkpoint" or path.suffix == ".safetensors"
    }


def edit(file: Path, **changes: Any) -> None:
    value = json.loads(file.read_text())
    for key, new in changes.items():
        inner = value
        *path, last = key.split("__")
        for part in path:
            inner = inner[part]
        inner[last] = new
    file.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"torch": "2.10.0+cpu"}, "torch: was 2.10.0.cpu, now "),
        ({"threads": 2}, "threads: was 2, now 1"),
        ({"processor": "another"}, "processor: was another, now "),
        ({"processor_features": ["sse", "amx"]}, "processor features: removed amx; added "),
        ({"whit": "0.0.9"}, "whit: was 0.0.9, now 0.1.0"),
        ({"code__sha256": "0"}, "whit's own code: changed"),
        ({"data_sha256": "0"}, "the data: changed"),
        ({"device": "cuda:9"}, "--device cuda:9"),
    ],
)
def test_it_is_refused_by_name(unfinished: Path, changes: dict[str, Any], named: str) -> None:
    edit(unfinished / "run" / "environment.json", **changes)
    before = contents(unfinished)
    more = ("--threads", "1") if "threads" in changes else ()
    code, said = command_line(unfinished, *RESUME, *more)
    assert code == 2
    assert re.search(named, said), said
    assert contents(unfinished) == before


def test_other_threads_are_refused_or_recorded(unfinished: Path) -> None:
    edit(unfinished / "run" / "environment.json", threads=2)
    code, said = command_line(unfinished, *RESUME, "--threads", "1")
    assert code == 2
    assert said.splitlines()[0] == "whit: run: threads: was 2, now 1."
    assert "--allow-changes" in said
    code, said = command_line(unfinished, *RESUME, "--threads", "1", "--allow-changes")
    assert code == 0
    assert "whit: Accepted change: threads: was 2, now 1." in said
    result = json.loads((unfinished / "run" / "result.json").read_text())
    (change,) = result["accepted_changes"]
    assert (change["what"], change["before"], change["now"]) == ("threads", 2, 1)
    (note,) = result["notes"]
    assert note.endswith("with an accepted change: threads: was 2, now 1.")
    code, said = command_line(unfinished, "audit", "run")
    assert code == 0
    assert "threads: was 2, now 1" in said.replace("\n  ", " ")


def test_accepted_changes_hold_from_then_on(unfinished: Path) -> None:
    """Stopped again after accepting one thread, the run resumes with one and is not refused."""
    edit(unfinished / "run" / "environment.json", threads=2)
    command = Command.start(unfinished, *RESUME, "--threads", "1", "--allow-changes")
    wait_until(lambda: "Accepted" in command.said, command)
    command.signal(signal.SIGINT)
    assert command.wait() == 130
    code, said = command_line(unfinished, *RESUME)
    assert code == 0, said
    result = json.loads((unfinished / "run" / "result.json").read_text())
    assert [change["what"] for change in result["accepted_changes"]] == ["threads"]


def test_an_altered_recipe_is_refused(unfinished: Path) -> None:
    file = unfinished / "run" / "recipe.toml"
    file.write_text(file.read_text().replace("epochs = 4", "epochs = 3"))
    code, said = command_line(unfinished, *RESUME)
    assert code == 2
    assert "written with another recipe.toml or another seed" in said


def test_an_altered_model_file_is_refused(workplace: Path) -> None:
    net = (
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(1, 10, 5, 4)\n"
        "    def forward(self, x):\n"
        "        if self.training and len(x) > 2 and open('stop').read():\n"
        "            raise KeyError('stopped')\n"
        "        return self.conv(x).mean((2, 3))\n"
    )
    (workplace / "net.py").write_text(net)
    (workplace / "stop").write_text("stop")
    text = (workplace / "easy.toml").read_text()
    text = text.replace('"plain"\nwidths = [8, 16]\npool_after = [1, 2]', '"net.py:Net"')
    (workplace / "net.toml").write_text(text)
    code, said = command_line(
        workplace, "train", "net.toml", "--out", "run", "--threads", "1", "--quiet"
    )
    assert code == 3, said
    assert "failed while training: KeyError: 'stopped'" in said
    (workplace / "net.py").write_text(net.replace("mean((2, 3))", "amax((2, 3))"))
    (workplace / "stop").write_text("")
    code, said = command_line(workplace, *RESUME)
    assert code == 2
    assert "whit: run: the model's source: changed." in said
    assert command_line(workplace, *RESUME, "--allow-changes")[0] in (0, 1)


def test_options_that_a_resumed_run_has_already(unfinished: Path) -> None:
    code, said = command_line(
        unfinished, "train", "sprint", "--resume", "run", "--seed", "3", "--out", "x",
        "--set", "optim.lr=1",
    )  # fmt: skip
    assert code == 2
    for name in ("RECIPE", "--seed", "--out", "--set"):
        assert (
            f"whit: {name}: --resume uses the run's own recipe, seed and folder; omit {name}."
            in said
        )
    code, said = command_line(unfinished, "train", "easy.toml", "--allow-changes", "--steal-lock")
    assert code == 2
    assert said.count("only valid with --resume RUN") == 2


def test_a_model_given_in_python_is_given_again(workplace: Path) -> None:
    """Its initial weights are in the first checkpoint, so another fresh copy resumes from them."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 10, 5, 4)
            self.fail = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.fail and self.training and len(x) > 2:  # not in the audit of its plan
                raise KeyError("now")
            return self.conv(x).mean((2, 3))

    recipe = whit.load_recipe(workplace / "easy.toml").with_overrides(
        [f"data.name={workplace / 'easy.npz'}"]
    )
    torch.manual_seed(1)
    whole = whit.train(recipe, Net(), out=workplace / "whole", quiet=True)
    torch.manual_seed(1)
    net = Net()
    net.fail = True
    with pytest.raises(whit.RunFailed):
        whit.train(recipe, net, out=workplace / "run", quiet=True)
    with pytest.raises(ModelError, match="passed in Python"):
        whit.resume(workplace / "run", quiet=True)
    torch.manual_seed(2)
    resumed = whit.resume(workplace / "run", Net(), quiet=True)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert evidence(workplace / "run") == evidence(workplace / "whole")
    with pytest.raises(IncompatibleResume):
        whit.resume(workplace / "run", Net(), quiet=True)


def test_random_numbers_of_numpy_and_python_are_resumed_too(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that draws from all three generators, interrupted in the middle of an epoch."""
    import random

    import numpy as np

    stop_at = -1

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 10, 5, 4)
            self.norm = torch.nn.BatchNorm2d(10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                if self.norm.num_batches_tracked == stop_at:
                    signal.raise_signal(signal.SIGINT)
                x = x * (1 + random.random() * np.random.rand() * float(torch.rand(())))
            return self.norm(self.conv(x)).mean((2, 3))

    recipe = whit.load_recipe(workplace / "easy.toml").with_overrides(
        [f"data.name={workplace / 'easy.npz'}"]
    )
    torch.manual_seed(1)
    whole = whit.train(recipe, Net(), out=workplace / "whole", quiet=True)
    torch.manual_seed(1)
    stop_at = 100
    with pytest.raises(Interrupted, match="in epoch 2 of 4, after 26 of 75 batches"):
        whit.train(recipe, Net(), out=workplace / "run", quiet=True)
    stop_at = -1
    before = random.getstate(), np.random.rand()
    np.random.seed(1)
    assert before
    resumed = whit.resume(workplace / "run", Net(), quiet=True)
    assert resumed.weights_sha256 == whole.weights_sha256


def test_changes_as_text() -> None:
    then = {"threads": 1, "processor_features": ["a", "b"], "code": {"sha256": "x"}}
    now = {"threads": 2, "processor_features": ["b", "c"], "code": {"sha256": "y"}}
    found = diff_environments(then, now)
    assert [describe_change(change) for change in found] == [
        "whit's own code: changed",
        "processor features: removed a; added c",
        "threads: was 1, now 2",
    ]
    assert diff_environments(then, now, found) == []
    assert [c["what"] for c in diff_environments(then, then, found)] == [
        "code.sha256",
        "processor_features",
        "threads",
    ]
