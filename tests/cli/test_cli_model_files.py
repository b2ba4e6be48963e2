"""A training script as a model's file, on the command line; and the copy that its run keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from calling import Done

SCRIPT = """\
!pip install torchsummary
import torch
from torch import nn
from torchsummary_x import summary
from torchvision_x import datasets, transforms

WIDTH = 8


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, WIDTH, 3, stride=2)
        self.head = nn.Conv2d(WIDTH, 10, 1)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x))).mean((2, 3))


train_set = datasets.MNIST("data", download=True, transform=transforms.ToTensor())
summary(Net(), (1, 28, 28))
raise RuntimeError("trained")
"""


def test_a_training_script_is_planned_trained_and_audited_without_its_file(
    whit: Callable[..., Done], easy_npz: Path, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(SCRIPT)
    (tmp_path / "mine.toml").write_text(
        f'schema = 2\nname = "mine"\n[model]\nname = "net.py:Net"\n[data]\nname = "{easy_npz}"\n'
        '[train]\nepochs = 1\nbatch_size = 16\n[budget]\nparams = "< 20000"\n'
    )
    assert whit("plan mine.toml", tmp_path).code == 0
    assert whit("train mine.toml --out run --threads 1 --quiet", tmp_path).code == 0
    done = whit("audit net.py:Net --recipe mine.toml --json", tmp_path)
    assert (done.code, json.loads(done.out)["params"]["total"]) == (0, 170)

    for command in ("audit net.py:Net", "plan mine.toml", "train mine.toml"):
        done = whit(f"{command} --run-whole-file", tmp_path)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("whit: net.py, line 22: it raised RuntimeError: trained")

    (tmp_path / "net.py").rename(tmp_path / "elsewhere.py")
    for command in ("audit run", "export run --format onnx"):
        done = whit(command, tmp_path)
        assert (done.code, done.out) == (2, "")
        assert "A copy of the source that was trained is in run/model.py." in done.err
        done = whit(f"{command} --trust-model-files", tmp_path)
        assert done.code == 0
    assert whit("report run --trust-model-files", tmp_path).code == 0
    done = whit("train mine.toml --trust-model-files", tmp_path)
    assert (done.code, "only valid with --resume RUN" in done.err) == (2, True)
    done = whit("train --resume run --run-whole-file", tmp_path)
    assert (done.code, "omit --run-whole-file" in done.err) == (2, True)
