"""Read a Jupyter notebook: its code cells without magics, as statements of Python."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whit.errors import SourceError, did_you_mean
from whit.models.user_code.reading import ipython_syntax, source
from whit.models.user_code.reading.python_file import (
    PythonFile,
    has_lazy_annotations,
    split_statements,
)
from whit.models.user_code.reading.slicing import DependencySlicer, StarNames
from whit.models.user_code.reading.statements import (
    NameUse,
    Statement,
    unknown_name_error,
)


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
    written: dict[str, str]  # the files of its `%%writefile` cells
    foreign: list[tuple[int, str]]  # cells of another language: number, text
    code: str  # of all cells, as they are written

    @classmethod
    def read(cls, path: Path) -> Notebook:
        unparsable, parsed, foreign = [], [], []
        written: dict[str, str] = {}
        cells = _read_code_cells(path)
        names = ipython_syntax.find_names(text for _, text in cells)
        for number, cell in cells:
            text = ipython_syntax.strip_cell(cell, names)
            if isinstance(text, ipython_syntax.WrittenFile):
                before = written.get(text.relative_path, "") if text.appends else ""
                written[text.relative_path] = before + text.text
                continue
            if text is None:
                foreign.append((number, cell))
                continue
            try:
                parsed.append((text, number, source.parse_quietly(text)))
            except SyntaxError as error:
                unparsable.append(UnparsableCell(number, cell, error))
        # A future import holds for every cell after it; here it is applied to all cells.
        lazy = has_lazy_annotations(tree for _, _, tree in parsed)
        statements = []
        for text, number, tree in parsed:
            statements += split_statements(text, number, tree, lazy)
        code = "\n".join(text for _, text in cells)
        return cls(path, statements, unparsable, written, foreign, code)

    def to_file(self) -> PythonFile:
        """Return all statements as a file, as `%run` executes them in another notebook."""
        text, origins = self._join("this notebook", list(self.statements))
        return PythonFile(self.path, text, text.encode(), origins=origins)

    def slice(
        self, name: str, star_names: StarNames, *, whole: bool = False
    ) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Return the statements that a class depends on as one text, and each line's (cell, line).

        Raises SourceError: no such class, or names that no cell defines.
        """
        slicer = DependencySlicer(self.statements, star_names, is_notebook=True)
        self._check_class(name, slicer.find_root(name))
        if whole:
            slicer.add_all()
        else:
            slicer.add(name)
        if slicer.missing:
            raise SourceError(self._describe_missing(name, slicer.missing))
        return self._join(name, slicer.sort_statements())

    def _check_class(self, name: str, root: int | None) -> None:
        cell = 0 if root is None else self.statements[root].cell
        for unparsable in self.unparsable:
            if unparsable.number > cell and unparsable.defines(name):
                raise SourceError(unparsable.describe(self.path))
        if root is not None:
            return
        # A star import may provide it, but then it is not a class of the notebook.
        definition = re.compile(rf"^\s*(?:class|def)\s+{name}\b", re.MULTILINE)
        for number, text in self.foreign:
            if definition.search(text):
                magic = text.strip().split("\n")[0]
                raise SourceError(
                    f"{self.path}, cell {number}: {name!r} is defined in a cell that begins with "
                    f"`{magic}`, which is not executed as Python of the notebook."
                )
        for path, text in self.written.items():
            if definition.search(text):
                module = path.removesuffix(".py").replace("/", ".")
                raise SourceError(
                    f"{self.path}: {name!r} is defined in {path}, which a cell writes, and no cell "
                    f"imports it: add `from {module} import {name}` to the notebook."
                )
        raise unknown_name_error(self.path, name, self.statements)

    def _describe_missing(self, name: str, missing: list[tuple[NameUse, Statement]]) -> list[str]:
        """Return a sentence for each name; one for all names of a cell with a syntax error."""
        first_uses = {use.root: (use, statement) for use, statement in reversed(missing)}
        by_cell: dict[int, list[str]] = {}
        problems = []
        known = {name for statement in self.statements for name in statement.binds}
        for root, (use, statement) in reversed(first_uses.items()):
            cells = [i for i, cell in enumerate(self.unparsable) if cell.may_bind(root)]
            if cells:
                by_cell.setdefault(cells[-1], []).append(root)
                continue
            problems.append(
                f"{self.path}, cell {statement.cell}, line {use.line}: {name} needs "
                f"{root!r}, which no cell defines.{did_you_mean(root, known)}"
            )
        problems += [
            f"{self.unparsable[index].describe(self.path)} ({name} needs "
            f"{', '.join(map(repr, names))} from this cell)"
            for index, names in by_cell.items()
        ]
        return problems

    def _join(self, name: str, needed: list[Statement]) -> tuple[str, tuple[tuple[int, int], ...]]:
        lines = [f"# From {self.path.name}: what {name} needs.", ""]
        origins = [(0, 0), (0, 0)]
        cell = main_line = 0
        # `from __future__` must be the first statement, and changes how all others are compiled.
        futures = [s for s in self.statements if s.dotted.startswith("__future__.")]
        for statement in [*futures, *(s for s in needed if s not in futures)]:
            if statement.cell != cell:
                cell, main_line = statement.cell, 0
                lines += ["", f"# cell {cell}"]
                origins += [(cell, 0)] * (len(lines) - len(origins))
            if statement.main_line and statement.main_line != main_line:
                lines.append("if True:  # __name__ == '__main__'")
                origins.append((cell, statement.main_line))
            main_line = statement.main_line
            for offset, line in enumerate(statement.text.split("\n")):
                lines.append(line)
                origins.append((cell, min(statement.line + offset, statement.last_line)))
        return "\n".join([*lines, ""]), (*origins, origins[-1])


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
        metadata = _find_table(notebook, "metadata")
        language = (
            _find_table(metadata, "kernelspec").get("language")
            or _find_table(metadata, "language_info").get("name")
            or "python"
        )
        code_cells = [
            (number, _join_lines(cell["source"] if "source" in cell else cell.get("input")))
            for number, cell in enumerate(cells, start=1)
            if cell["cell_type"] == "code" and cell.get("language", "python") == "python"
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path} is not a notebook: the JSON has no list of cells in a known format."
        ) from error
    if not str(language).lower().startswith(("python", "ipython")):
        raise SourceError(f"{path} is a notebook in {language}, not in Python.")
    return code_cells


def _find_table(table: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a table of metadata, an empty one if it is missing or null."""
    found: dict[str, Any] | None = table.get(key)
    return {} if found is None else found


def _join_lines(lines: object) -> str:
    """Return a cell's text with "\\n" line ends; it is stored as a text, a list of lines, or null.

    Raises TypeError for anything else.
    """
    text = "".join(lines or ()) if isinstance(lines, list | None) else lines
    if not isinstance(text, str):
        raise TypeError(text)
    return text.replace("\r\n", "\n").replace("\r", "\n")
