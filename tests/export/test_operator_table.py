"""docs/how-to/export-onnx.md lists every operator and the formats that support it.

`WHIT_OVERWRITE=1 pytest tests/export/test_operator_table.py` writes the table anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from whit.export.ir.ops.registry import OPERATORS
from whit.export.ir.ops.tensors.convert import MODULES
from whit.export.targets import TARGETS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "export-onnx.md"
_COLUMNS = {"onnx": "ONNX", "c": "C", "html": "HTML", "int8": "--int8"}
_REGION = re.compile(r"(?<=<!-- operators -->\n).*?(?=<!-- end of operators -->)", re.DOTALL)


def row(name: str, targets: Collection[str], operators: Iterable[str]) -> list[str]:
    marks = ["yes" if target in targets else "no" for target in _COLUMNS]
    aten = {each.partition(".")[0] for each in operators if each[0] != "_"}  # no overloads
    names = ", ".join(f"`{each}`" for each in sorted(aten))
    return [name, *marks, names or "none of its own"]


def table() -> str:
    """The operators of all formats by kind, then those that only ONNX has by module."""
    rows = [
        row(f"`{kind}`", operator.targets, operator.converters)
        for kind, operator in OPERATORS.items()
        if "c" in operator.targets
    ]
    for module in MODULES:
        targets = frozenset[str].intersection(*(each.targets for each in module.OPERATORS))
        title = module.__name__.rpartition(".")[2].replace("_", " ")
        rows.append(row(f"{title}, in any other case", targets, module.CONVERTERS))
    head = ["operator", *_COLUMNS.values(), "operators of PyTorch"]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def test_the_page_lists_the_operators() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = _REGION.search(text)
    assert shown
    if os.environ.get("WHIT_OVERWRITE"):
        changed = text[: shown.start()] + table() + text[shown.end() :]
        PAGE.write_text(changed, encoding="utf-8")
    else:
        assert shown.group() == table()


def test_every_format_has_a_column() -> None:
    assert set(_COLUMNS) == {*TARGETS, "int8"}
    for operator in OPERATORS.values():
        assert operator.targets <= set(_COLUMNS)
        assert "onnx" in operator.targets
        assert ("c" in operator.targets) == (operator.kernel is not None)
