"""A user's model is loaded from their file or notebook, and nothing of theirs runs besides.

pytest tests/models/test_user_code.py
"""

from __future__ import annotations

import ast
import base64
import dataclasses
import dis
import inspect
import json
import os
import random
import sys
import textwrap
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from whit.errors import SourceError
from whit.models.user_code import build_user_model, read_source, user_model_sha256
from whit.models.user_code.loader import load_model_class
from whit.models.user_code.reading.ipython_syntax import WrittenFile, find_names, strip_cell
from whit.models.user_code.reading.scopes import analyze_statement
from whit.recipes.model_ref import is_model_path

NET = """\
import torch.nn as nn
import torch.nn.functional as F

class Net(nn.Module):
    def __init__(self, width=4, *, classes=10):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        x = self.head(F.relu(self.conv(x)))
        return F.log_softmax(x.mean((2, 3)), dim=1)
"""


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets are given as a person types them: relative to where they are."""
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return name


def notebook(*cells: str, name: str = "net.ipynb", metadata: object = None) -> str:
    """Write a notebook of format 4; a cell that begins with `#md` is one of text."""
    written = []
    for number, text in enumerate(cells):
        text = textwrap.dedent(text).strip("\n")
        kind = "markdown" if text.startswith("#md") else "code"
        lines = text.splitlines(keepends=True)  # as Jupyter stores it; Colab may use a string
        written.append({"cell_type": kind, "source": lines if number % 2 else text})
    content = {"cells": written, "metadata": metadata or {}, "nbformat": 4, "nbformat_minor": 2}
    Path(name).write_text(json.dumps(content), encoding="utf-8")
    return name


def problems(target: str, run_whole_file: bool = False, **arguments: object) -> list[str]:
    """Return the problems of building a model, which must fail, as sentences of one line."""
    with pytest.raises(SourceError) as caught:
        build_user_model(target, arguments, run_whole_file=run_whole_file)
    assert caught.value.exit_code == 2
    assert all("\n" not in problem for problem in caught.value.problems)
    assert "Traceback" not in str(caught.value)
    return list(caught.value.problems)


def problem(target: str, run_whole_file: bool = False, **arguments: object) -> str:
    (only,) = problems(target, run_whole_file, **arguments)
    return only


def runs(model: nn.Module, shape: tuple[int, ...] = (2, 1, 8, 8)) -> torch.Size:
    with torch.no_grad():
        return model(torch.zeros(shape)).shape


# --- What counts as a target ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("net.py:Net", True),
        ("deep/er/net.ipynb:Net", True),
        ("net.py", True),
        ("net.py:", True),
        ("net.txt:Net", True),
        ("C:\\models\\net.py:Net", True),
        ("models/net:Net", True),
        ("plain", False),
        ("python:Net", False),
        ("published-16848", False),
        ("recipes/mine.toml", False),
        ("runs/sprint-1-20260101", False),
        ("C:\\runs\\one", False),
        ("weights.safetensors", False),
        ("", False),
    ],
)
def test_a_target_is_told_from_other_names(target: str, meant: bool) -> None:
    assert is_model_path(target) is meant


# --- Files ---------------------------------------------------------------------------------------


def test_a_class_in_a_file_is_built_with_the_recipe_s_keywords() -> None:
    write("net.py", NET)
    model = build_user_model("net.py:Net", {"width": 6, "classes": 7})
    assert type(model).__name__ == "Net"
    assert runs(model) == (2, 7)
    assert issubclass(load_model_class("net.py:Net"), nn.Module)


def test_a_function_and_an_absolute_path_and_crlf_lines_work() -> None:
    text = NET + "\ndef small():\n    return Net(width=2)\n"
    Path("net.py").write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    model = build_user_model(f"{Path('net.py').absolute()}:small", {})
    assert model.conv.out_channels == 2


def test_what_is_returned_is_the_code_that_was_executed() -> None:
    write("net.py", NET)
    source = read_source("net.py:Net")
    assert source.text == NET
    assert user_model_sha256("net.py:Net") == source.sha256
    write("net.py", "raise RuntimeError('a later version')")
    assert runs(build_user_model(source, {})) == (2, 10)


def test_the_main_block_does_not_run_and_the_command_line_is_not_seen() -> None:
    parsing = """
    import argparse
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=3)
    options = parser.parse_args()
    if __name__ == "__main__":
        raise RuntimeError("trained")
    """
    write("net.py", NET + textwrap.dedent(parsing))
    before = sys.argv
    sys.argv = ["whit", "audit", "net.py:Net", "--json"]
    try:
        build_user_model("net.py:Net", {})
        assert sys.argv == ["whit", "audit", "net.py:Net", "--json"]
    finally:
        sys.argv = before


def test_dataclasses_and_type_hints_find_their_module() -> None:
    text = """
    from __future__ import annotations
    import dataclasses, typing
    from torch import nn

    @dataclasses.dataclass
    class Sizes:
        width: int = 3
        kinds: typing.ClassVar[list[str]] = []

    hints = typing.get_type_hints(Sizes)

    class Net(nn.Linear):
        def __init__(self):
            super().__init__(Sizes().width, 2)
    """
    write("net.py", text)
    assert build_user_model("net.py:Net", {}).in_features == 3
    assert "class Net(nn.Linear)" in inspect.getsource(load_model_class("net.py:Net"))


def test_siblings_are_imported_from_beside_the_file_and_then_forgotten() -> None:
    for folder, width in (("one", 1), ("two", 2)):
        write(f"{folder}/blocks.py", f"from parts.sizes import EXTRA\nwidth = {width} + EXTRA\n")
        write(f"{folder}/parts/__init__.py", "")
        write(f"{folder}/parts/sizes.py", "EXTRA = 10\n")
        write(f"{folder}/net.py", f"from blocks import width\n{NET.replace('=4', '=width')}")
    path, modules = list(sys.path), set(sys.modules)
    assert build_user_model("one/net.py:Net", {}).conv.out_channels == 11
    assert build_user_model("two/net.py:Net", {}).conv.out_channels == 12
    assert sys.path == path
    assert not {"blocks", "parts", "parts.sizes", "net"} & set(sys.modules)
    assert all(name.startswith("_whit_user_") for name in set(sys.modules) - modules)
    assert not list(Path().rglob("__pycache__"))


def test_a_module_of_the_same_name_from_elsewhere_is_set_aside_and_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = type(sys)("blocks")
    monkeypatch.setitem(sys.modules, "blocks", other)
    write("blocks.py", "width = 5")
    write("net.py", f"from blocks import width\n{NET.replace('=4', '=width')}")
    assert build_user_model("net.py:Net", {}).conv.out_channels == 5
    assert sys.modules["blocks"] is other


def test_siblings_named_like_torch_or_the_standard_library_do_no_harm() -> None:
    write("torch.py", "raise RuntimeError('not torch')")
    write("random.py", "raise RuntimeError('not random')")
    write("whit.py", "raise RuntimeError('not whit')")
    write("net.py", f"import random, torch, whit.errors\n{NET}")
    build_user_model("net.py:Net", {})
    assert sys.modules["torch"] is torch
    assert sys.modules["random"] is random


def test_prints_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    write("net.py", NET + "print('loading')\n")
    build_user_model("net.py:Net", {}, run_whole_file=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "loading" in captured.err


def test_a_seed_in_the_file_does_not_fix_the_weights() -> None:
    write("net.py", f"import torch\ntorch.manual_seed(1)\n{NET}")
    weights = []
    for seed in (1, 2, 2):
        torch.manual_seed(seed)
        weights.append(build_user_model("net.py:Net", {}).conv.weight)
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])


def test_constants_of_a_file_are_real_when_a_model_is_planned_without_memory() -> None:
    write("net.py", f"import torch\nlimit = int(torch.tensor(4))\n{NET.replace('=4', '=limit')}")
    with torch.device("meta"):
        model = build_user_model("net.py:Net", {})
    assert model.conv.weight.shape == (4, 1, 3, 3)
    assert model.conv.weight.is_meta


def test_a_coding_line_is_obeyed() -> None:
    Path("net.py").write_bytes(f"# -*- coding: latin-1 -*-\n# caf\xe9\n{NET}".encode("latin-1"))
    assert runs(build_user_model("net.py:Net", {})) == (2, 10)


# --- Targets that cannot be loaded ---------------------------------------------------------------


def test_a_missing_file_is_told_with_its_nearest_neighbour() -> None:
    write("network.py", NET)
    assert problem("netwrok.py:Net") == ("netwrok.py: no such file. Did you mean 'network.py'?")
    assert problem("no/where.py:Net") == "no/where.py: no such file."
    assert problem(f"{'x' * 5000}.py:Net").endswith("no such file.")
    assert problem("nul\0.py:Net").endswith("no such file.")


def test_a_folder_a_wrong_suffix_and_a_missing_class_are_told() -> None:
    Path("folder.py").mkdir()
    assert problem("folder.py:Net") == "folder.py is a folder, not a file."
    os.mkfifo("pipe.py")
    assert problem("pipe.py:Net") == "pipe.py is not a regular file."
    write("net.txt", NET)
    assert problem("net.txt:Net") == (
        "net.txt: the file of a model must end in .py or .ipynb, not in '.txt'."
    )
    write("net.py", NET + NET.replace("Net", "Net2"))
    expected = "net.py defines 2 models: name one of net.py:Net, net.py:Net2."
    assert problem("net.py") == problem("net.py:") == expected
    notebook("x = 3")
    assert problem("net.ipynb").startswith("net.ipynb defines no model: ")
    assert problem("net.py:Net.Inner") == (
        "net.py:Net.Inner: 'Net.Inner' is not the name of a class at the top of the file."
    )
    assert problem("plain") == "'plain' is not of the form 'path/file.py:Class'."
    assert problem(":Net") == "':Net' is not of the form 'path/file.py:Class'."


def test_all_that_is_wrong_with_a_target_is_told_at_once() -> None:
    assert problems("gone.py:a-b") == [
        "gone.py: no such file.",
        "gone.py:a-b: 'a-b' is not the name of a class at the top of the file.",
    ]


@pytest.mark.parametrize("name", ["net.py", "net.ipynb"])
def test_a_class_that_is_not_there_is_told_before_anything_runs(name: str) -> None:
    text = f"raise RuntimeError('ran')\n{NET}\nclass Block(nn.Module): pass\n"
    write(name, text) if name == "net.py" else notebook(text)
    assert problem(f"{name}:Nett") == (
        f"{name} has no class 'Nett'. Did you mean 'Net'? Its classes: Net, Block."
    )
    write("empty.py", "")
    assert problem("empty.py:Net") == "empty.py has no class 'Net'. It defines no class."


def test_what_is_no_module_class_is_told() -> None:
    write("net.py", NET + "\nclass Data: pass\n\nmodel = Net()\nwidth = 3\n")
    assert problem("net.py:Data") == (
        "net.py:Data is a class, but not a torch.nn.Module: write `class Data(nn.Module)`. "
        "Its classes: Net, Data."
    )
    assert problem("net.py:model") == (
        "net.py:model is a model instance, not a class: name its class, 'Net'."
    )
    write("seq.py", "from torch import nn\nmodel = nn.Sequential()\n")
    assert problem("seq.py:model") == (
        "seq.py:model is a model instance, not a class: name a function that returns it."
    )
    assert problem("net.py:width") == (
        "net.py:width is a 'int': name a class that is a torch.nn.Module, "
        "or a function that returns one."
    )
    write("gone.py", "Net = 3\ndel Net\n")
    assert problem("gone.py:Net", True) == "gone.py: running it did not define 'Net'."
    write("star.py", "from math import *\n")
    assert problem("star.py:Net") == "star.py has no class 'Net'. It defines no class."
    write("unknown.py", "from chunk_x import *\n")
    assert problem("unknown.py:Net") == "unknown.py: running it did not define 'Net'."


def test_a_syntax_error_is_told_with_its_line() -> None:
    write("net.py", "import torch\nclass Net(:\n    pass\n")
    assert problem("net.py:Net") == "net.py, line 2: syntax error, invalid syntax: `class Net(:`"
    write("ret.py", "class Net: pass\nreturn 3\n")
    assert problem("ret.py:Net", run_whole_file=True) == (
        "ret.py, line 2: syntax error, 'return' outside function: `return 3`"
    )
    write("nul.py", "class Net: pass\0\n")
    assert "syntax error" in problem("nul.py:Net")
    write("deep.py", f"class Net: pass\nx = {'(' * 500}{')' * 500}\n")
    assert problem("deep.py:Net").startswith("deep.py")
    write("sum.py", f"class Net: pass\nx = {' + '.join('1' * 600)}\n")
    assert problem("sum.py:Net") == "sum.py: its code is nested too deeply."
    write("deeper.py", f"class Net: pass\nx = {'-' * 5000}1\n")
    assert problem("deeper.py:Net").startswith("deeper.py")


def test_text_that_is_not_utf8_is_told() -> None:
    for name in ("net.py", "net.ipynb"):
        Path(name).write_bytes(b"#\n#\n#\n# caf\xe9\nclass Net: pass\n")
        assert problem(f"{name}:Net") == (
            f"{name} is not UTF-8 text: line 4 contains the byte 0xe9. Save it as UTF-8."
        )
    Path("early.py").write_bytes(b"# caf\xe9\nclass Net: pass\n")
    assert "line 1 contains the byte 0xe9" in problem("early.py:Net")
    Path("codec.py").write_bytes(b"# coding: klingon\nclass Net: pass\n")
    assert "klingon" in problem("codec.py:Net")


def test_a_missing_package_that_the_network_needs_is_named_with_its_line() -> None:
    needs = "import packt_x.blocks as ts\n" + NET.replace("F.relu(", "ts.relu(")
    write("net.py", needs)
    write("base.py", f"from packt_x import Base\n{NET.replace('nn.Module', 'Base')}")
    assert problem("base.py:Net") == (
        "base.py:Net needs 'packt_x', which is not installed. Install it, or name a class that "
        "does not need it."
    )
    write("size.py", f"import packt_x\nwidth = packt_x.size() + 2\n{NET.replace('=4', '=width')}")
    assert problem("size.py:Net") == (
        "size.py, line 2: it needs 'packt_x', which is not installed: "
        "`width = packt_x.size() + 2`. Install it, or remove it from the network."
    )
    write("blocks.py", "\nfrom packt_x.deep import Block\nclass Base(Block): pass\n")
    write(
        "uses.py",
        f"from blocks import Base\n{NET.replace('self.conv =', 'self.b = Base(); self.conv =')}",
    )
    assert problem("uses.py:Net").startswith("uses.py, line 8: building Net needs 'packt_x', which")
    write(
        "seq.py",
        "import packt_x\nfrom torch import nn\ndef make(): return nn.Sequential(packt_x.A())",
    )
    assert problem("seq.py:make").startswith("seq.py, line 3: building make needs 'packt_x', which")
    write("ret.py", "import packt_x\ndef make(): return packt_x.create('net')")
    assert problem("ret.py:make") == "ret.py, line 2: make needs 'packt_x', which is not installed."
    write(
        "try.py", f"try:\n    import packt_x\nexcept ImportError:\n    raise\n{NET}        packt_x"
    )
    assert problem("try.py:Net").startswith("try.py, line 2: it needs 'packt_x', which is neither")
    write("rel.py", f"from .............................. import Block\n{NET}        Block")
    assert "write `from blocks import Block`" in problem("rel.py:Net")
    write("name.py", f"from math import no_such_name\n{NET}        no_such_name()")
    assert problem("name.py:Net").startswith("name.py, line 1: it raised ImportError: cannot")
    with pytest.raises(ImportError, match="needs 'packt_x', which is not installed"):
        runs(build_user_model("net.py:Net", {}))


def test_an_error_while_it_runs_is_told_with_the_user_s_own_line() -> None:
    write("net.py", f"{NET}\ndef check():\n    return {{}}['width']\n\ncheck()\n")
    assert problem("net.py:Net", run_whole_file=True) == (
        "net.py, line 15: it raised KeyError: 'width' at `return {}['width']`."
    )
    write("sub/broken.py", "\n\nclass Block(:\n    pass\n")
    write("sub/net.py", f"from broken import Block\n{NET}        Block")
    assert problem("sub/net.py:Net") == (
        "sub/broken.py, line 3: syntax error, invalid syntax: `class Block(:`"
    )
    silent = "class Odd(Exception):\n    def __str__(self): raise self\nraise Odd\n"
    write("odd.py", f"{NET}{silent}")
    assert problem("odd.py:Net", True).endswith("it raised Odd at `raise Odd`.")
    write("long.py", f"{NET}raise ValueError('x' * 9999 + '\\nmore')\n")
    assert len(problem("long.py:Net", True)) < 500
    write("loop.py", f"{NET}def f(): f()\nf()\n")
    assert "it raised RecursionError" in problem("loop.py:Net", True)
    assert not [name for name in sys.modules if name == "broken"]


def test_exit_is_an_error_and_ctrl_c_passes_through() -> None:
    write("net.py", f"{NET}\nimport sys\nsys.exit(3)\n")
    assert problem("net.py:Net", True) == (
        "net.py, line 15: it ended the program with exit code 3 at `sys.exit(3)`. "
        'Put code that is not part of the model under `if __name__ == "__main__":`.'
    )
    write("stop.py", f"{NET}\nraise KeyboardInterrupt\n")
    path = list(sys.path)
    with pytest.raises(KeyboardInterrupt):
        load_model_class(read_source("stop.py:Net", run_whole_file=True))
    assert sys.path == path
    assert not [m for m in sys.modules.values() if getattr(m, "__file__", "") == "stop.py"]


# --- Building ------------------------------------------------------------------------------------


def test_keywords_that_do_not_fit_are_told_all_at_once() -> None:
    text = NET.replace("width=4, *, classes=10", "width, *, classes, depth=1")
    write("net.py", text)
    assert problems("net.py:Net", widht=3, colour="red") == [
        "net.py, line 5: Net has no argument 'widht'. Did you mean 'width'? "
        "It takes: width, classes, depth.",
        "net.py, line 5: Net has no argument 'colour'. It takes: width, classes, depth.",
        "net.py, line 5: Net requires 'width', which [model] does not set.",
        "net.py, line 5: Net requires 'classes', which [model] does not set.",
    ]
    write("bare.py", "from torch import nn\nclass Net(nn.Module): pass\ndef make(a, /): pass\n")
    assert "unexpected keyword argument" in problem("bare.py:Net", width=3)
    assert "positional-only argument 'a'" in problem("bare.py:make")
    write("none.py", "from torch import nn\ndef make(): return nn.ReLU()\n")
    assert problem("none.py:make", width=3).endswith("It takes no arguments.")
    write("any.py", "from torch import nn\ndef make(**sizes): return nn.Linear(**sizes)\n")
    assert build_user_model("any.py:make", {"in_features": 2, "out_features": 3}).out_features == 3


def test_a_constructor_that_fails_is_told_with_the_user_s_line() -> None:
    write("net.py", NET)
    said = problem("net.py:Net", width=-1)
    assert said.startswith("net.py, line 7: building Net raised ")
    assert said.endswith(" at `self.conv = nn.Conv2d(1, width, 3)`.")
    write("blocks.py", "def size(n):\n    return [1, 2][n]\n")
    write("uses.py", f"from blocks import size\n{NET.replace('1, width', '1, size(width)')}")
    assert problem("uses.py:Net") == (
        "blocks.py, line 2: building Net raised IndexError: list index out of range "
        "at `return [1, 2][n]`."
    )
    write("none.py", "def make():\n    return None\n")
    assert problem("none.py:make") == (
        "none.py, line 1: make returned a 'NoneType', not a torch.nn.Module."
    )
    write("forgot.py", NET.replace("super().__init__()", "pass"))
    assert "before Module.__init__() call" in problem("forgot.py:Net")


# --- Notebooks -----------------------------------------------------------------------------------

WRITE_UP = (
    "#md # Less than 20k parameters, more than 99.4 %",
    """
    from __future__ import print_function
    import torch, torchvision_x
    import torch.nn as nn
    import torch.nn.functional as F
    import torch.optim as optim
    from torchvision_x import datasets, transforms
    from google_x.colab import drive
    %matplotlib inline
    drive.mount('/content/drive')
    """,
    """
    !pip install torchsummary \\
        --quiet
    from torchsummary_x import summary
    use_cuda = torch.cuda.is_available()
    device = torch.device("cuda" if use_cuda else "cpu")
    dropout_value = 0.1
    """,
    "",
    """
    class Block(nn.Module):
        def __init__(self, inner, outer):
            super(Block, self).__init__()
            self.conv = nn.Conv2d(inner, outer, 3, bias=False)
            self.norm = nn.BatchNorm2d(outer)
            self.drop = nn.Dropout(dropout_value)

        def forward(self, x):
            return self.drop(self.norm(F.relu(self.conv(x))))
    """,
    """
    class Net(nn.Module):
        def __init__(self, width=8):
            super(Net, self).__init__()
            self.first = Block(1, width)
            self.last = nn.Conv2d(width, 10, 3)

        def forward(self, x):
            x = F.max_pool2d(self.first(x), 2)
            x = self.last(x)
            x = F.avg_pool2d(x, x.shape[2:]).view(-1, 10)
            return F.log_softmax(x, dim=1)

    model = Net().to(device)
    summary(model, input_size=(1, 28, 28))
    """,
    """
    torch.manual_seed(1)
    raise RuntimeError("downloaded")
    train_loader = torch.utils.data.DataLoader(datasets.MNIST('../data', download=True))
    """,
    """
    from tqdm_x import tqdm
    def train(model, device, train_loader, optimizer, epoch):
        for batch_idx, (data, target) in enumerate(tqdm(train_loader)):
            loss = F.nll_loss(model(data), target)
    """,
    """
    %%time
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(1, 20):
        print "epoch", epoch
        train(model, device, train_loader, optimizer, epoch)
    """,
    "model?",
)


def test_of_a_write_up_only_what_the_class_needs_is_run() -> None:
    notebook(*WRITE_UP)
    model = build_user_model("net.ipynb:Net", {"width": 6})
    assert runs(model, (2, 1, 28, 28)) == (2, 10)
    text = read_source("net.ipynb:Net").text
    for foreign in ("torchvision", "colab", "summary", "tqdm", "device", "model =", "raise", "!"):
        assert foreign not in text
    assert ast.parse(text)
    write("copy.py", text)  # what a run folder keeps is a model's file in its own right
    assert runs(build_user_model("copy.py:Net", {}), (2, 1, 28, 28)) == (2, 10)
    assert "class Net(nn.Module)" in inspect.getsource(load_model_class("net.ipynb:Net"))


def test_the_text_of_a_notebook_is_in_its_order_and_names_its_cells() -> None:
    notebook("import torch.nn as nn, os\n", "#md text", "width = 3; depth = 4\nprint(width)", NET)
    kept = NET.replace("=4", "=width")
    notebook("import os, torch.nn as nn", "#md text", "width = 3; depth = 4\nprint(width)", kept)
    assert read_source("net.ipynb:Net").text == (
        "# From net.ipynb: what Net needs.\n\n\n# cell 3\nwidth = 3\n\n# cell 4\n"
        "import torch.nn as nn\nimport torch.nn.functional as F\n" + kept[kept.index("class") :]
    )


def test_format_3_and_lines_as_lists_are_read() -> None:
    cells = [
        {"cell_type": "heading", "level": 1, "source": "Net"},
        {"cell_type": "code", "language": "python", "input": ["import torch.nn as nn\n"]},
        {"cell_type": "code", "language": "perl", "input": "my $x;"},
        {"cell_type": "code", "input": "class Net(nn.Linear):\n  def __init__(self): pass\n"},
        {"cell_type": "code"},
    ]
    old = {"worksheets": [{"cells": cells[:2]}, {"cells": cells[2:]}], "nbformat": 3}
    Path("old.ipynb").write_text(json.dumps(old), encoding="utf-8-sig")
    assert issubclass(load_model_class("old.ipynb:Net"), nn.Linear)


def test_the_last_definition_of_a_class_wins() -> None:
    notebook(NET, "net = Net()", NET.replace("=4", "=9"), "Net = Net()")
    assert build_user_model("net.ipynb:Net", {}).conv.out_channels == 9
    notebook(NET, NET.replace("class Net(", "class Net(("))
    assert problem("net.ipynb:Net").startswith("net.ipynb, cell 2, line 4: syntax error, ")


def test_a_class_is_told_from_a_name_that_later_holds_its_model() -> None:
    notebook(NET.replace("Net", "CNN"), "Net = CNN", "Net.width = 3")
    assert build_user_model("net.ipynb:Net", {}).width == 3
    notebook(NET, "def build():\n    return Net(7)")
    assert build_user_model("net.ipynb:build", {}).conv.out_channels == 7


@pytest.mark.parametrize(
    ("cells", "width"),
    [
        # the latest above the class, not what training makes of the name below
        (["width = 3", "width = 5", NET, "width = 100"], 5),
        (["width, other = 3, load()", "width, other = 7, 0", NET], 7),
        # above first, else below: the cells were run out of order
        ([NET, "width = 6"], 6),
        (["size = base * 2", NET.replace("=4", "=size"), "base = 4"], 8),
        # filled, added to and set, statement after statement
        (["sizes = [1]\nsizes.append(2)\nsizes += [3]", "width = sum(sizes)", NET], 6),
        (["c = {}", "for i in range(3): c[i] = i", "width = len(c)", NET], 3),
        (["width = 1", "for i in range(3):\n    width += i\n    print(i)", NET], 4),
        (["class C: pass", "C.width = 4", "width = C.width", NET], 4),
        (["a = 'ä→'; width = len(a); b = 'ß' # ü", NET], 2),
        (["width = 1000 - 1996", "\n".join(["width += 1"] * 1000), NET], 4),
        (["    import torch.nn as nn\n    width: int = 5\n    if width:\n        pass", NET], 5),
        # whole blocks, where the name is bound in one
        (["if True:\n    width = 2\nelse:\n    width = 4", NET], 2),
        (["try:\n    import nope_x\n    width = 1\nexcept ImportError:\n    width = 8", NET], 8),
        (["with open('w', 'w') as file:\n    width = 5", NET], 5),
        # a loop's variable only if nothing else binds the name
        (["width = 3", "for width in loader: train(width)", NET], 3),
        (["for width in range(4): pass", NET], 3),
        # functions, lambdas, comprehensions, walrus and their own names
        (["def width_of(n):\n    return n if n < 2 else width_of(n - 1) + 1",
          "width = width_of(5)", NET], 5),
        (["base = 2", "double = lambda n: n * base", "width = double(3)", NET], 6),
        (["n = [9]", "m = 2", "width = sum(m for n in n for m in [n])", NET], 9),
        (["k = 3", "width = [(w := j + k) for j in range(2)][-1] if k else w", NET], 4),
        (["from math import floor, no_such_name", "width = floor(3.5)", NET], 3),
        (["from operator import *", "width = add(1, 2)", NET], 3),
        # a helper called by the class sees what holds where the class stands
        (["k = 1", "def size(): return k", "k = 5", NET.replace("=4", "=0").replace(
            "width, 3", "size(), 3").replace("(width", "(size()")], 5),
        # a dotted import is not run for the sake of its package
        (["import os\nimport os.no_such_part\nimport os.path", "width = len(os.sep) + 1", NET], 2),
        (["import xml.dom\nimport xml.dom.minidom", "width = len(xml.dom.minidom.__name__) - 13",
          NET], 2),
        # settings of a module are no part of a model
        (["import torch\ntorch.no_such.benchmark = True", "width = int(torch.tensor(3))", NET], 3),
    ],
)  # fmt: skip
def test_names_are_followed_to_the_statements_that_give_them(cells: list[str], width: int) -> None:
    notebook(*[cell.replace("width=4", "width=width") for cell in cells])
    assert build_user_model("net.ipynb:Net", {}).conv.out_channels == width


def test_decorators_bases_annotations_and_patches_are_followed() -> None:
    notebook(
        "from __future__ import annotations\nimport pandas_x as pd",
        "def double(c):\n    c.double = True\n    return c",
        "def register(c): raise RuntimeError('not needed')",
        "from abc import ABC as Base",
        NET.replace("class Net(nn.Module)", "@double\nclass Net(nn.Module, Base)").replace(
            "self, x)", "self, x: pd.DataFrame) -> pd.Series"
        ),
        "def forward(self, x):\n    display(x)\n    return x * 3",
        "Net.forward = forward",
        "Net.forward(None, None).train()",
    )
    model = build_user_model("net.ipynb:Net", {})
    assert model.double
    assert model(torch.ones(1)) == 3


def test_scoping_is_python_s_own() -> None:
    notebook(
        """
        from torch import nn
        class Net(nn.Module):
            size = 3
            sizes = [size for size in range(size)]
            def __init__(self, *, given=None, **others):
                global total
                super().__init__()
                total = 1
                def inner(a, /, *b, c=given, **d):
                    nonlocal given
                    import os.path as p, math
                    given = [a, b, c, d, p, math]
                    return [q for q, *r in [given] if (found := q) or r] and found
                inner(1)
                try:
                    with open("/dev/null") as file:
                        for i, (j, k) in enumerate([(file, 1)]):
                            del i
                        k += 1
                except (OSError, ValueError) as error:
                    print(error)
                match given:
                    case [first, *rest]: print(first, rest)
                    case {"a": x, **more}: print(x, more)
                    case str() as text: print(text)
                class Local(nn.Module): again = size = 1
                async def task(): return Local, __class__, self.sizes
                print((lambda u, *v: (u, v))(1), total, __name__)
        """
    )
    build_user_model("net.ipynb:Net", {})


def names_in(code: types.CodeType) -> Iterator[tuple[str, str]]:
    """Yield each instruction on a global name in a piece of compiled code and all inside it."""
    for step in dis.get_instructions(code):
        if step.opname in {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_CLASSDEREF"}:
            yield step.opname, step.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)


@pytest.mark.parametrize("module", [dataclasses, threading, base64, ast, nn.modules.conv, textwrap])
def test_the_names_read_are_those_that_the_compiler_finds(module: types.ModuleType) -> None:
    """Its twin is Python's compiler: every global that a function loads, and no local of it."""
    text = inspect.getsource(module)
    lazy = "from __future__ import annotations" in text
    flags = annotations.compiler_flag if lazy else 0
    for node in ast.parse(text).body:
        code = compile(ast.Module([node], []), "", "exec", flags, dont_inherit=True)
        loaded = set(names_in(code))
        statement = analyze_statement(node, lazy_annotations=lazy)
        read = {use.root for use in statement.uses}
        loaded_in_functions = {name for kind, name in loaded if kind == "LOAD_GLOBAL"}
        mangled = {name for name in loaded_in_functions if "__" in name[1:].rstrip("_")}
        assert loaded_in_functions - mangled <= read | set(statement.binds), ast.unparse(node)
        read_later = {use.root for use in statement.uses if use.deferred and not use.optional} - {
            "__class__"
        }
        assert read_later - mangled <= {name for _, name in loaded}, ast.unparse(node)


def test_magics_are_dropped_and_text_that_looks_like_one_is_kept() -> None:
    notebook(
        "%%time\n\nimport torch.nn as nn\n",
        "%load_ext autoreload\n!echo \"it's\nget_ipython().system('ls')\n?print\nfiles = !ls\n"
        "if True:\n    %cd /tmp\ncount = %sx ls\n!ls\\\n  -l\nlow = 3",
        "%%bash\nwidth=3\nclass Net(:",
        "%%writefile other.py\nclass Net(nn.Module): pass",
        '''
        width = (7
            % low)
        text = """
        !ls
        %%bash
        """
        ''',
        "def Net():\n    return nn.Linear(width, len(text))",
        "print 'of Python 2'",
        "class Net2(:",
        "if:",
    )
    model = build_user_model("net.ipynb:Net", {})
    assert model.in_features == 1
    assert model.out_features == len("\n!ls\n%%bash\n")


# --- Notebooks that cannot be loaded -------------------------------------------------------------


def test_what_is_no_notebook_is_told() -> None:
    write("net.ipynb", '{"cells": [\n  {"cell_type": }]}')
    assert problem("net.ipynb:Net") == (
        "net.ipynb is not a notebook: invalid JSON at line 2, column 17 (Expecting value)."
    )
    write("net.ipynb", "[" * 100_000)
    assert problem("net.ipynb:Net").startswith("net.ipynb")
    for content in (
        '{"nbformat": 4}',
        "[]",
        "3",
        "null",
        '"cells"',
        '{"cells": 3}',
        '{"cells": [3]}',
        '{"cells": [{}]}',
        '{"cells": [{"cell_type": "code", "source": 3}]}',
        '{"cells": [{"cell_type": "code", "source": [3]}]}',
        '{"cells": [], "metadata": []}',
        '{"worksheets": [{}]}',
    ):
        write("net.ipynb", content)
        assert problem("net.ipynb:Net") == (
            "net.ipynb is not a notebook: the JSON has no list of cells in a known format."
        )
    notebook("Net <- 3", metadata={"kernelspec": {"language": "R"}})
    assert problem("net.ipynb:Net") == "net.ipynb is a notebook in R, not in Python."
    notebook()
    assert problem("net.ipynb:Net") == "net.ipynb has no class 'Net'. It defines no class."


def test_names_that_no_cell_defines_are_told_all_at_once() -> None:
    swish = NET.replace("F.relu", "swish").replace("width=4", "width=widht")
    notebook("#md", "def swihs(x): return x\nwidth = 4", swish, "def swish(x):\n  print 'no'")
    assert problems("net.ipynb:Net") == [
        "net.ipynb, cell 3, line 5: Net needs 'widht', which no cell defines. "
        "Did you mean 'width'?",
        "net.ipynb, cell 4, line 2: syntax error, Missing parentheses in call to 'print'. "
        "Did you mean print(...)?: `print 'no'` (Net needs 'swish' from this cell)",
    ]
    notebook("from torch.nn import *", NET.replace("F.relu", "swish"))
    assert "Net needs 'swish', which no cell defines." in problem("net.ipynb:Net")
    notebook("count = count + 1", NET.replace("=4", "=count"))
    assert problem("net.ipynb:Net").startswith("net.ipynb, cell 1, line 1: Net needs 'count'")
    notebook("a = b", "b = a", NET.replace("=4", "=a"))
    assert "it raised NameError: name" in problem("net.ipynb:Net")


def test_errors_in_a_notebook_are_told_with_cell_and_line() -> None:
    missing = "\nfrom torchvision_x.ops import (\n    relu6,\n    drop)\nwidth = (\n  drop() + 3)\n"
    notebook("#md", missing, NET.replace("=4", "=width"))
    assert problem("net.ipynb:Net").startswith(
        "net.ipynb, cell 2, line 5: it needs 'torchvision_x', which is not installed: `drop() + 3)`"
    )
    notebook("# a note\n\nsizes = [1]\n\nwidth = sizes[\n    7\n]\n", NET.replace("=4", "=width"))
    assert problem("net.ipynb:Net").startswith(
        "net.ipynb, cell 1, line 5: it raised IndexError: list index out of range at `width"
    )
    notebook("import torch", f"x = 3\n\n@torch.no_grad()\ndef f(): pass\n\n{NET}")
    assert problem("net.ipynb:Net", width=-1).startswith("net.ipynb, cell 2, line 12: building")
    assert problem("net.ipynb:Net", wdth=1).startswith("net.ipynb, cell 2, line 10: Net has no")
    notebook(f"width = await size()\n{NET.replace('=4', '=width')}", "async def size(): return 3")
    assert problem("net.ipynb:Net").startswith(
        "net.ipynb, cell 1, line 1: syntax error, 'await' outside function: `width = await"
    )


@pytest.mark.parametrize(
    ("cell", "python"),
    [
        ("pip install a \\\n  b\nx = 2", "pass  # pip install a    b\n\nx = 2"),
        ("if 1:\n    cd ..\n    x = 1", "if 1:\n    pass  # cd ..\n    x = 1"),
        ("mkdir data", "pass  # mkdir data"),
        ("git clone x", "git clone x"),  # no alias of IPython: a syntax error there, too
        ("%time x = f(3)", "x = f(3)"),
        ("time x = f(3)", "x = f(3)"),
        ("x = %time f(3)", "x = f(3)"),
        ("x = %timeit -o f(3)", "x = get_ipython().run_line_magic('timeit', '-o f(3)')"),
        ("a, *b = !ls {x}", "a, *b = get_ipython().getoutput('ls {x}')"),
        ("c['k'].v = !!ls", "c['k'].v = get_ipython().getoutput('!ls')"),
        ("%run -i lib/sizes.py", "from lib.sizes import *"),
        ("?torch.nn", "pass  # ?torch.nn"),
        ("x.y[0]??", "pass  # x.y[0]??"),
        ("x = y +  # why?", "x = y +  # why?"),
        ("s = '''\n!ls\n%%bash\n'''", "s = '''\n!ls\n%%bash\n'''"),
        ("x = (7\n  % 3)", "x = (7\n  % 3)"),
        ("\n\n%%time\n%%capture out\nx = 1", "\n\n\n\nx = 1"),
        ("  import os\n  x = 1", "import os\nx = 1"),
        (">>> x = 1\n>>> if x:\n...     y = 2", "x = 1\nif x:\n    y = 2"),
        ("In [1]: x = 1", "x = 1"),
        ("%%bash\nls", None),
        ("%%javascript\nx", None),
        ("%%\nls", None),
        ("%%writefile 'lib/m.py'\nx = 1", WrittenFile("lib/m.py", "x = 1\n", False)),
        ("%%writefile -a m.py\nx = 1", WrittenFile("m.py", "x = 1\n", True)),
        ("%%file m.py\nx = 1", WrittenFile("m.py", "x = 1\n", False)),
    ],
)
def test_ipython_s_syntax_becomes_python_s(cell: str, python: object) -> None:
    assert strip_cell(cell, set()) == python


def test_a_bound_name_is_no_magic() -> None:
    assert strip_cell("cat notes txt", {"cat"}) == "cat notes txt"
    texts = ["a, b = 1, 2\nc == 3", "def f(): pass\nclass C: pass", "from m import d as e, g", "?("]
    assert find_names([*texts, "for i, j in x: pass"]) >= {*"abfdegCij"}
