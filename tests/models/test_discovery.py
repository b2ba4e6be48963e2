"""Which model a file means when its class is omitted. Nothing of the file is executed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from whit.errors import SourceError
from whit.models.user_code import find_models, resolve_target

HEAD = "import torch\nfrom torch import nn\nraise SystemExit('executed')\n"


def module(name: str, base: str = "nn.Module", uses: str = "", init: str = "") -> str:
    return (
        f"class {name}({base}):\n"
        f"    def __init__(self{init}):\n        super().__init__()\n        self.part = [{uses}]\n"
        "    def forward(self, x):\n        return x\n"
    )


BUILD = "def build({arguments}):\n    model = {call}\n    return model.to('cpu')\n"

FILES = {
    "one class": (module("Net"), ["Net"]),
    "layers": (module("Block") + module("Net", uses="Block()"), ["Net"]),
    "layers below": (module("Net", uses="Block()") + module("Block"), ["Net"]),
    "base class": (module("Base") + module("Net", "Base"), ["Net"]),
    "base class of torch": (module("Net", "torch.nn.Sequential"), ["Net"]),
    "other names": ("from torch.nn import Module as M\n" + module("Net", "M"), ["Net"]),
    "a base class elsewhere": ("from base import BaseNet\n" + module("Net", "BaseNet"), ["Net"]),
    "lightning": ("import lightning as L\n" + module("Net", "L.LightningModule"), ["Net"]),
    "layers by a dict": (
        module("A") + module("B") + "class Net(nn.Module):\n    kinds = {'a': A, 'b': B}\n",
        ["Net"],
    ),
    "layers of a function": (
        "def block(i, o):\n    return nn.Sequential(nn.Conv2d(i, o, 3))\n"
        + module("Net", uses="block(1, 2)"),
        ["Net"],
    ),
    "an unused function of layers": (
        "def block(i, o):\n    return nn.Sequential(nn.Conv2d(i, o, 3))\n" + module("Net"),
        ["Net"],
    ),
    "no models beside it": (
        "from torch.utils.data import Dataset\nclass Digits(Dataset):\n    pass\n"
        "class Config:\n    pass\nclass Trainer:\n    def __init__(self):\n"
        "        self.model = Net()\ndef evaluate(model):\n    return model\n"
        "class Round(torch.autograd.Function):\n    @staticmethod\n"
        "    def forward(ctx, x):\n        return x\n" + module("Net"),
        ["Net"],
    ),
    "a loss": (
        module("Net") + "class Focal(nn.Module):\n    def forward(self, x, target):\n"
        "        return x\n",
        ["Net"],
    ),
    "a function alone": (BUILD.format(arguments="", call="nn.Sequential(nn.Flatten())"), ["build"]),
    "a function that builds the class": (
        module("Net") + BUILD.format(arguments="", call="Net()"),
        ["Net"],
    ),
    "a function that gives the class its sizes": (
        module("Net", init=", width") + BUILD.format(arguments="", call="Net(8)"),
        ["build"],
    ),
    "another size of the class": (
        module("Net", init=", width=8") + BUILD.format(arguments="", call="Net(16)"),
        ["Net", "build"],
    ),
    "a function that returns two values": (
        module("Net") + "def setup():\n    model = Net()\n    return model, 3\n",
        ["Net"],
    ),
    "two": (module("Net") + module("Net2"), ["Net", "Net2"]),
    "defined twice": (module("Net") + "print(1)\n" + module("Net"), ["Net"]),
    "under a condition": ("if torch.cuda.is_available():\n    pass\nelse:\n"
                          "    class Net(nn.Module):\n        pass\n", ["Net"]),
    "in the main part": (
        module("Net") + "if __name__ == '__main__':\n    class Other(nn.Module):\n        pass\n",
        ["Net"],
    ),
    "each uses the other": (module("A", uses="B()") + module("B", uses="A()"), ["A", "B"]),
    "a class inside a function": (
        "def build():\n    class Net(nn.Module):\n        pass\n    return Net()\n",
        ["build"],
    ),
    "a function that is annotated": (
        "from zoo import resnet\ndef build() -> nn.Module:\n    return resnet(1)\n"
        "def count(model: nn.Module) -> int:\n    return 3\n"
        "def freeze(model: nn.Module) -> nn.Module:\n    return model\n",
        ["build"],
    ),
    "a module of data": (
        "import lightning as L\nclass Data(L.LightningDataModule):\n    pass\n" + module("Net"),
        ["Net"],
    ),
    "a forward of two arguments alone": (
        "class Net(nn.Module):\n    def forward(self, x, hidden):\n        return x\n",
        ["Net"],
    ),
    "built in a wrapper": (
        module("Net") + "class Wrap(nn.Module):\n    def __init__(self, model):\n"
        "        self.model = model\n    def forward(self, x, y):\n        return Net()\n",
        ["Net"],
    ),
    "none": ("model = nn.Sequential(nn.Flatten())\nclass Config:\n    pass\n", []),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_the_models_of_a_file_and_of_a_notebook(kind: str, tmp_path: Path) -> None:
    text, expected = FILES[kind]
    file = tmp_path / "net.py"
    file.write_text(HEAD + text)
    assert find_models(file) == expected
    notebook = tmp_path / "net.ipynb"
    cells = [{"cell_type": "code", "source": cell} for cell in (HEAD, "%pip install x\n" + text)]
    notebook.write_text(json.dumps({"cells": cells, "nbformat": 4}))
    assert find_models(notebook) == expected
    if len(expected) == 1:
        assert resolve_target(str(file)) == f"{file}:{expected[0]}"
        assert resolve_target(f"{file}:") == f"{file}:{expected[0]}"
        assert resolve_target(f"{file}:{expected[0]}") == f"{file}:{expected[0]}"
        return
    with pytest.raises(SourceError) as caught:
        resolve_target(str(file))
    for name in expected:
        assert f"{file}:{name}" in str(caught.value)


def test_a_file_without_a_model_says_what_would_be_one(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(FILES["none"][0])
    with pytest.raises(SourceError, match="neither a class derived from"):
        resolve_target(str(file))


def test_why_a_file_has_no_model(tmp_path: Path) -> None:
    """The cause first: a cell that cannot be parsed, a notebook named .py, a built model."""

    def problems(name: str, content: str) -> list[str]:
        (tmp_path / name).write_text(content)
        with pytest.raises(SourceError) as caught:
            resolve_target(str(tmp_path / name))
        return list(caught.value.problems)

    cell = {"cell_type": "code", "source": f"git clone x\n{HEAD}{module('Net')}"}
    book = json.dumps({"cells": [cell], "nbformat": 4})
    first, second = problems("net.ipynb", book)
    assert first.endswith("net.ipynb, cell 1, line 1: syntax error, invalid syntax: `git clone x`")
    assert "defines no model" in second
    (only,) = problems("net.py", book)
    assert only.endswith("contains a notebook, not Python code: give it the suffix .ipynb.")
    (only,) = problems("net.py", f"{HEAD}x = 3\nnet = nn.Sequential(nn.Flatten())\n")
    assert "'net' is a model that is built already: write a function that builds and" in only
