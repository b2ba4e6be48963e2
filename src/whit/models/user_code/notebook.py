"""A notebook: its code cells without their magics, as statements of Python."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whit.errors import SourceError
from whit.models.user_code.pyfile import parse_quietly, read_bytes, refuse_encoding, syntax_problem
from whit.models.user_code.statement import Statement, scan

# Cell magics whose cell is still Python of the notebook itself. All others hand the cell to
# another language, another process or a file.
PYTHON_CELL_MAGICS = {"time", "timeit", "capture", "prun", "memit", "matplotlib", "wandb"}

# What IPython defines in every notebook. Here they show nothing.
PRELUDE = "def display(*shown, **options): pass\n\ndef get_ipython(): pass"

MAGIC_LINE = re.compile(r"\s*[%!?]|.*\?\s*$|[\w., \t]+=\s*[%!]")


@dataclass(frozen=True, slots=True)
class BrokenCell:
    """A cell that is not Python. It matters only when the class needs it."""

    number: int
    text: str
    error: SyntaxError

    def defines(self, name: str) -> bool:
        return self._has(rf"(?:class|def)\s+{name}\b")

    def may_bind(self, name: str) -> bool:
        imported = rf"(?:from|import)\b.*\b{name}\b"
        return self.defines(name) or self._has(rf"{name}\s*=|{imported}")

    def _has(self, line_start: str) -> bool:
        return re.search(rf"^\s*(?:{line_start})", self.text, re.MULTILINE) is not None

    def problem(self, path: Path) -> str:
        line = self.error.lineno or 1
        lines = self.text.split("\n")
        text = lines[line - 1] if line <= len(lines) else ""
        return syntax_problem(f"{path}, cell {self.number}, line {line}", self.error, text)


@dataclass(frozen=True, slots=True)
class Notebook:
    """The Python of a notebook, top to bottom, and the cells that could not be read as such."""

    path: Path
    statements: list[Statement]
    broken: list[BrokenCell]

    @classmethod
    def read(cls, path: Path) -> Notebook:
        statements = _statements_of(PRELUDE, 0, parse_quietly(PRELUDE))
        broken = []
        parsed = []
        for number, text in _code_cells(path):
            text = _without_magics(text)
            try:
                parsed.append((text, number, parse_quietly(text)))
            except SyntaxError as error:
                broken.append(BrokenCell(number, text, error))
        # A future import holds for every cell after it; here for all, as nobody means less.
        lazy = any(_is_lazy_annotations(node) for _, _, tree in parsed for node in tree.body)
        for text, number, tree in parsed:
            statements += _statements_of(text, number, tree, lazy)
        return cls(path, statements, broken)


def _code_cells(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each code cell, of notebook formats 3 and 4."""
    raw = read_bytes(path)
    try:
        notebook = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        refuse_encoding(path, raw, error)
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{path} is not a notebook: no JSON at line {error.lineno}, column {error.colno} "
            f"({error.msg})."
        ) from error
    try:
        # Format 3 has a level more, the worksheets, and other words.
        sheets = [notebook] if "cells" in notebook else notebook["worksheets"]
        cells = [cell for sheet in sheets for cell in sheet["cells"]]
        metadata = notebook.get("metadata", {})
        language = (
            metadata.get("kernelspec", {}).get("language")
            or metadata.get("language_info", {}).get("name")
            or "python"
        )
        found = [
            (number, _joined(cell["source"] if "source" in cell else cell.get("input", "")))
            for number, cell in enumerate(cells, start=1)
            if cell["cell_type"] == "code" and cell.get("language", "python") == "python"
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path} is not a notebook: the JSON holds no list of cells in a form that is known."
        ) from error
    if not str(language).lower().startswith("python"):
        raise SourceError(f"{path} is a notebook in {language}, not in Python.")
    yield from found


def _joined(source: object) -> str:
    """Return a cell's text with plain line ends; it is stored as a string or as its lines."""
    if isinstance(source, list):
        source = "".join(source)
    if not isinstance(source, str):
        raise TypeError(source)
    return source.replace("\r\n", "\n").replace("\r", "\n")


def _without_magics(text: str) -> str:
    """Return a cell with each magic or shell line made a `pass`, line for line.

    Python's own parser decides what a magic is: a line that it stumbles over and that looks like
    one. So a line `% b` in the middle of a bracket, or `!` in a string, stays what it is.
    """
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    margin = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
    lines = [line.removeprefix(margin) for line in lines]  # a pasted cell, as IPython reads it
    if lines[first].startswith("%%"):
        words = lines[first][2:].split()
        if not words or words[0] not in PYTHON_CELL_MAGICS:
            return "\n".join(f"# {line}" for line in lines)
        lines[first] = ""
    for _ in range(len(lines)):
        try:
            parse_quietly("\n".join(lines))
            break
        except SyntaxError as error:
            at = (error.lineno or 1) - 1
            if at >= len(lines) or not MAGIC_LINE.match(lines[at]):
                break  # an error of another kind: kept, and told if the cell is needed
            line = lines[at]
            goes_on = line.rstrip().endswith("\\")
            indent = line[: len(line) - len(line.lstrip())]
            lines[at] = f"{indent}pass  # {line.strip()}"
            while goes_on and at + 1 < len(lines):
                at += 1
                goes_on = lines[at].rstrip().endswith("\\")
                lines[at] = ""
    return "\n".join(lines)


def _is_lazy_annotations(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and any(alias.name == "annotations" for alias in node.names)
    )


def _statements_of(
    text: str, cell: int, tree: ast.Module, lazy_annotations: bool = False
) -> list[Statement]:
    """Return a cell's statements, an import of several names as one for each name."""
    lines = text.split("\n")
    found = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom) and len(node.names) > 1:
            # `import torch, torchvision` must not need torchvision for the sake of torch.
            for alias in node.names:
                if isinstance(node, ast.Import):
                    one: ast.stmt = ast.Import([alias])
                else:
                    one = ast.ImportFrom(node.module, [alias], node.level)
                ast.copy_location(one, alias)
                found.append(scan(one, ast.unparse(one), cell, lazy_annotations))
            continue
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        rows = lines[first - 1 : node.end_lineno]
        # Cut off what else stands in its lines; the parser counts columns in bytes of UTF-8.
        rows[-1] = rows[-1].encode()[: node.end_col_offset].decode()
        start = node.lineno - first
        rows[start] = rows[start].encode()[node.col_offset :].decode()
        found.append(scan(node, "\n".join(rows), cell, lazy_annotations, first))
    return found
