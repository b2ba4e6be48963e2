"""Read a Jupyter notebook: its code cells without magics, as statements of Python."""

from __future__ import annotations

import ast
import copy
import json
import re
from dataclasses import dataclass
from pathlib import Path

from whit.errors import SourceError
from whit.models.user_code import source
from whit.models.user_code.scopes import Statement, analyze_statement

# Cell magics whose cell is still Python of the notebook itself. All others pass the cell to
# another language, another process or a file.
PYTHON_CELL_MAGICS = {"time", "timeit", "capture", "prun", "memit", "matplotlib", "wandb"}

# What IPython defines in every notebook, without output here.
PRELUDE = "def display(*shown, **options): pass\n\ndef get_ipython(): pass"

MAGIC_LINE = re.compile(r"\s*[%!?]|.*\?\s*$|[\w., \t]+=\s*[%!]")


@dataclass(frozen=True, slots=True)
class UnparsableCell:
    """A cell that is not valid Python, an error only if the class depends on it."""

    number: int
    text: str
    error: SyntaxError

    def defines(self, name: str) -> bool:
        return bool(re.search(rf"^\s*(?:class|def)\s+{name}\b", self.text, re.MULTILINE))

    def may_bind(self, name: str) -> bool:
        binding = rf"^\s*(?:{name}\s*=|(?:from|import)\b.*\b{name}\b)"
        return self.defines(name) or bool(re.search(binding, self.text, re.MULTILINE))

    def describe(self, path: Path) -> str:
        line = self.error.lineno or 1
        text = "".join(self.text.split("\n")[line - 1 : line])
        return source.describe_syntax_error(
            f"{path}, cell {self.number}, line {line}", self.error, text
        )


@dataclass(frozen=True, slots=True)
class Notebook:
    """The statements of a notebook, top to bottom, and the cells that could not be parsed."""

    path: Path
    statements: list[Statement]
    unparsable: list[UnparsableCell]

    @classmethod
    def read(cls, path: Path) -> Notebook:
        statements = _split_statements(PRELUDE, 0, source.parse_quietly(PRELUDE))
        unparsable, parsed = [], []
        for number, cell in _read_code_cells(path):
            text = _strip_magics(cell)
            try:
                parsed.append((text, number, source.parse_quietly(text)))
            except SyntaxError as error:
                unparsable.append(UnparsableCell(number, text, error))
        # A future import holds for every cell after it; here it is applied to all cells.
        lazy = any(
            isinstance(node, ast.ImportFrom)
            and node.module == "__future__"
            and "annotations" in [alias.name for alias in node.names]
            for _, _, tree in parsed
            for node in tree.body
        )
        for text, number, tree in parsed:
            statements += _split_statements(text, number, tree, lazy)
        return cls(path, statements, unparsable)


def _read_code_cells(path: Path) -> list[tuple[int, str]]:
    """Return the number and the text of each code cell, of notebook formats 3 and 4."""
    raw = source.read_bytes(path)
    try:
        notebook = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        source.raise_encoding_error(path, raw, error)
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{path} is not a notebook: invalid JSON at line {error.lineno}, column {error.colno} "
            f"({error.msg})."
        ) from error
    try:
        # Format 3 has one more level, the worksheets, and other keys.
        sheets = [notebook] if "cells" in notebook else notebook["worksheets"]
        cells = [cell for sheet in sheets for cell in sheet["cells"]]
        metadata = notebook.get("metadata", {})
        language = (
            metadata.get("kernelspec", {}).get("language")
            or metadata.get("language_info", {}).get("name")
            or "python"
        )
        code_cells = [
            (number, _join_lines(cell["source"] if "source" in cell else cell.get("input", "")))
            for number, cell in enumerate(cells, start=1)
            if cell["cell_type"] == "code" and cell.get("language", "python") == "python"
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path} is not a notebook: the JSON has no list of cells in a known format."
        ) from error
    if not str(language).lower().startswith("python"):
        raise SourceError(f"{path} is a notebook in {language}, not in Python.")
    return code_cells


def _join_lines(lines: object) -> str:
    """Return a cell's text with "\\n" line ends; it is stored as a string or as a list of lines."""
    text = "".join(lines) if isinstance(lines, list) else lines
    if not isinstance(text, str):
        raise TypeError(text)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _strip_magics(text: str) -> str:
    """Return a cell with each magic or shell line replaced by `pass`; line numbers do not change.

    A magic is a line at which Python's parser fails and that looks like one. So a line `% b`
    inside brackets, or `!` in a string, does not change.
    """
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    margin = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
    lines = [line.removeprefix(margin) for line in lines]  # an indented cell, as IPython reads it
    if lines[first].startswith("%%"):
        words = lines[first][2:].split()
        if not words or words[0] not in PYTHON_CELL_MAGICS:
            return "\n".join(f"# {line}" for line in lines)
        lines[first] = ""
    for _ in range(len(lines)):
        try:
            source.parse_quietly("\n".join(lines))
            break
        except SyntaxError as error:
            index = (error.lineno or 1) - 1
            if index >= len(lines) or not MAGIC_LINE.match(lines[index]):
                break  # another syntax error: reported if the class depends on the cell
            line = lines[index]
            indent = line[: len(line) - len(line.lstrip())]
            lines[index] = f"{indent}pass  # {line.strip()}"
            while line.rstrip().endswith("\\") and index + 1 < len(lines):
                index += 1
                line, lines[index] = lines[index], ""
    return "\n".join(lines)


def _split_statements(
    text: str, cell: int, tree: ast.Module, lazy_annotations: bool = False
) -> list[Statement]:
    """Return a cell's statements, an import of several names as one for each name."""
    lines = text.split("\n")
    statements = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom) and len(node.names) > 1:
            # A class that uses only torch must not require `import torch, torchvision`.
            for alias in node.names:
                single = ast.copy_location(copy.copy(node), alias)
                single.names = [alias]
                text = ast.unparse(single)
                statements.append(analyze_statement(single, text, cell, lazy_annotations))
            continue
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        rows = lines[first - 1 : node.end_lineno]
        # Cut off other statements on the same lines; columns are in bytes of UTF-8.
        rows[-1] = rows[-1].encode()[: node.end_col_offset].decode()
        start = node.lineno - first
        rows[start] = rows[start].encode()[node.col_offset :].decode()
        text = "\n".join(rows)
        statements.append(analyze_statement(node, text, cell, lazy_annotations, first))
    return statements
