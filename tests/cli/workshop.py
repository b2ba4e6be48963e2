"""A folder with one good recipe, its data and its runs, and with everything that can be wrong.

easy.toml, easy.npz            good, trained in a second
runs/easy-0, runs/easy-1       finished runs of it
models.py                      models of a user, most of them wrong
anything else                  wrong as its name says
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from easy_data import easy_images
from whit.recipes.recipe import load_recipe
from whit.training.plan import make_plan
from whit.training.run import train_run

EASY = """\
schema = 2
name = "easy"

[model]
name = "plain"
widths = [8, 16]
pool_after = [1, 2]

[data]
name = "easy.npz"

[train]
epochs = 3
batch_size = 16
precision = "fp32"

[augment]
translate = 1.0
degrees = 2.0

[budget]
params = "< 20000"
epochs = "< 20"
accuracy = ">= 90"
require = ["batchnorm", "dropout", "gap"]
"""

MODELS = '''\
"""Models of a user."""

import sys
import time

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=8, classes=10):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 5, 2)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.05)
        self.last = nn.Conv2d(width, classes, 3)

    def forward(self, x):
        x = self.drop(torch.relu(self.norm(self.conv(x))))
        return self.last(x).mean((2, 3))


class Talks(Net):
    def __init__(self):
        print("built")
        super().__init__()

    def forward(self, x):
        print("called")
        return super().forward(x)


class Sleeps(Net):
    def __init__(self):
        super().__init__()
        print("asleep", file=sys.stderr, flush=True)
        time.sleep(60)


class TwelveClasses(Net):
    def __init__(self):
        super().__init__(classes=12)


class Map(Net):
    def forward(self, x):
        return self.last(self.conv(x))


class Pair(Net):
    def forward(self, x):
        return super().forward(x), x


class BadConstructor(Net):
    def __init__(self):
        raise ValueError("eight is too few")


class BadForward(Net):
    def forward(self, x):
        raise ValueError("no such image")


class Huge(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(10**7, 10**7))


class NoModule:
    pass
'''

SOURCE = EASY.replace('"plain"\nwidths = [8, 16]\npool_after = [1, 2]', '"models.py:Net"')

FILES: dict[str, str | bytes] = {
    "typo.toml": (
        'base = "easy.toml"\nobjectives = ["parms", "accuracy", "speed"]\ncluster = 1\n'
        '[space]\n"optim.lr" = {low = 1, hihg = 2}\n'
    ),
    "unknown-key.toml": (
        'base = "easy.toml"\n[space]\n"optim.learning" = [1, 2]\n"optim.lr" = [0]\n'
    ),
    "easy.toml": EASY,
    "wider.toml": EASY.replace("[8, 16]", "[12, 16]"),
    "source.toml": SOURCE,
    "sleeps.toml": SOURCE.replace("Net", "Sleeps"),
    "models.py": MODELS,
    "no.toml.toml": "name easy\n",
    "binary.toml": bytes(range(256)),
    "huge.toml": "#" * 1_000_001,
    "long-number.toml": "name = " + "9" * 5000,
    "deep.toml": "name = " + "[" * 5000,
    "empty.toml": "",
    "syntax.py": "import torch\nclass Net(torch.nn.Module:\n    pass\n",
    "import.py": "import torchvisionary\nclass Net(torchvisionary.Net): pass\n",
    "not-an.npz": "PK of a kind",
    "keys.toml": """\
schema = 2
name = "a name with blanks"
colour = "blue"
[model]
name = "plain"
widths = [8]
[train]
epoch = 3
batch_size = "16"
epochs = 0
[optim]
lr = -0.1
name = "adam"
[data]
mean = [0.1, 0.2]
[budget]
params = 20000
epochs = "> 20"
accuracy = ">= 101"
require = ["batchnrom"]
""",
    "schema-1.toml": """\
name = "schema-1"
[model]
name = "plain"
widths = [8, 16]
pools = [1, 2]
kinds = ["conv", "separable"]
shares = [0, 0]
pooling = "avg"
norm = "shift"
deskew = "both"
views = 9
[data]
val = 100
[augment]
rotate = 10.0
shift = 1.5
until = 0.9
[train]
evaluate = "val"
test = false
dropout_until = 0.8
[optim]
bias_lr = 2.0
[schedule]
progress = [0.0, 1.0]
scale = [1.0, 0.0]
[average]
decay = 0.99
start = 0.5
[quantise]
bits = 4
start = 0.25
""",
    "schema-3.toml": 'schema = 3\nname = "later"\n[model]\nname = "plain"\nwidths = [8]\n',
    "base-unknown.toml": 'schema = 2\nbase = "sprnt"\n',
    "base-number.toml": "schema = 2\nbase = 3\n",
    "base-circle.toml": 'schema = 2\nbase = "base-circle.toml"\n',
    "base-schema-1.toml": 'schema = 2\nbase = "schema-1.toml"\n',
    "base-folder.toml": 'schema = 2\nbase = "a-folder"\n',
    "base-keys.toml": """\
schema = 2
base = "sprint"
[model]
views = 5
[train]
epcohs = 3
epochs = 0
""",
    "model.toml": """\
schema = 2
name = "model"
[model]
name = "plain"
widths = [0, 8, 70000]
kernels = [5, 3]
pool_after = [4]
pading = [0]
dropout = 1
""",
    "sizes.toml": """\
schema = 2
name = "sizes"
[model]
name = "plain"
widths = [8, 16, 16]
kernels = [5, 3]
pool_after = [4]
""",
}


def fill(folder: Path, easy_npz: Path) -> None:
    """Write all of it, and train two runs of the easy recipe."""
    for name, content in FILES.items():
        raw = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(raw)
    shutil.copy(easy_npz, folder / "easy.npz")
    (folder / "a-folder").mkdir()
    (folder / "dangling").symlink_to("nowhere")
    (folder / "circle").symlink_to("circle")
    _data(folder)
    _runs(folder)


def _data(folder: Path) -> None:
    """Data sets that are cut off, or of other images than those of the easy one."""
    whole = (folder / "easy.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    images, labels = easy_images(200, 3)
    split = {"x_train": images, "y_train": labels, "x_test": images[:50], "y_test": labels[:50]}
    np.savez(folder / "labels.npz", **{**split, "y_train": labels[:150]})
    np.savez(folder / "other.npz", **split)
    idx = folder / "idx"
    idx.mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (idx / f"{name}-ubyte").write_bytes(b"\0\0\x08\x03\0\0")


def _runs(folder: Path) -> None:
    """Two good runs, one on other data, and copies of the first that are spoilt in one place."""
    before = Path.cwd()
    os.chdir(folder)  # so that the runs hold no path of this machine
    try:
        recipe = load_recipe("easy.toml")
        for seed in (0, 1):
            train_run(make_plan(recipe), seed=seed, threads=1, out=Path(f"runs/easy-{seed}"))
        other = recipe.with_overrides(["data.name=other.npz", "name=other", "train.epochs=1"])
        train_run(make_plan(other), threads=1, out=Path("more/other-0"))
        train_run(
            make_plan(recipe.with_overrides(["name=third"])), threads=1, out=Path("mixed/third-0")
        )
        untested = recipe.with_overrides(["eval.test=false", "name=untested", "train.epochs=1"])
        train_run(make_plan(untested), threads=1, out=Path("more/untested-0"))
    finally:
        os.chdir(before)

    def spoilt(name: str) -> Path:
        return Path(shutil.copytree(folder / "runs" / "easy-0", folder / "spoilt" / name))

    def result(name: str, **changes: Any) -> None:
        file = spoilt(name) / "result.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    shutil.copytree(folder / "runs" / "easy-0", folder / "mixed" / "easy-0")
    (spoilt("unfinished") / "result.json").unlink()
    (spoilt("no-weights") / "weights.safetensors").unlink()
    (spoilt("recipe") / "recipe.toml").write_text("name = 3\n")
    (spoilt("cut-result") / "result.json").write_text('{"verdict": "met", "para')
    (spoilt("list-result") / "result.json").write_text("[1, 2]")
    result("typed-result", test=[1, 2], params="few", verdict="fine")
    result("empty-result", test={"correct": 90, "total": 0})
    log = spoilt("cut-log") / "log.jsonl"
    log.write_text(log.read_text()[:-40])
    first = log.read_text().splitlines()[0]
    typed = {**json.loads(first), "images_seen": "x", "total": "x"}
    (spoilt("typed-log") / "log.jsonl").write_text(json.dumps(typed))
    (spoilt("empty-log") / "log.jsonl").write_text("")
    (spoilt("environment") / "environment.json").write_text("seed: 3")
    weights = spoilt("cut-weights") / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    tensors = load((folder / "runs/easy-0/weights.safetensors").read_bytes())
    tensors["conv9.weight"] = tensors.pop("conv2.weight")
    tensors["linear1.bias"] = torch.zeros(12)
    (spoilt("other-weights") / "weights.safetensors").write_bytes(save(tensors))
