"""A Python file as statements, and the text of those that some of its names depend on."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from whit.models.user_code.reading import ipython_syntax
from whit.models.user_code.reading.scopes import analyze_statement
from whit.models.user_code.reading.slicing import DependencySlicer, StarNames
from whit.models.user_code.reading.source import decode_python, parse, parse_quietly, read_bytes
from whit.models.user_code.reading.statements import Statement

# In place of names: all functions, classes and constants.
EVERYTHING = frozenset({"*"})


@dataclass(frozen=True)
class PythonFile:
    """A file as it was read; `text` is without the magics that an exported notebook may keep.

    origins: (cell, line) in the file of each line of `text`, none where the lines are the same;
        cell is 0 in a file that is no notebook
    written: the files that the cells of an exported notebook write, by their paths
    """

    path: Path
    text: str
    content: bytes
    is_package: bool = False
    origins: tuple[tuple[int, int], ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, is_package: bool = False) -> PythonFile:
        """Raises SourceError: not readable, or not text."""
        return cls.decode(path, read_bytes(path), is_package)

    @classmethod
    def decode(cls, path: Path, content: bytes, is_package: bool = False) -> PythonFile:
        """Raises SourceError: not text."""
        stripped = ipython_syntax.strip_lines(decode_python(path, content))
        text, lines, written = ipython_syntax.expand_cells(stripped)
        return cls(path, text, content, is_package, tuple((0, line) for line in lines), written)

    @cached_property
    def tree(self) -> ast.Module:
        """Raises SourceError for a syntax error."""
        return parse(self.text, self.path)

    @cached_property
    def statements(self) -> list[Statement]:
        text = self.text.replace("\r\n", "\n").replace("\r", "\n")
        return split_statements(text, 0, self.tree, has_lazy_annotations([self.tree]))

    @cached_property
    def public_names(self) -> Set[str]:
        """The names of a star import; none for a file with a syntax error."""
        try:
            tree = parse_quietly(self.text)
        except SyntaxError:
            return frozenset()
        for node in tree.body:
            if not isinstance(node, ast.Assign) or ast.unparse(node.targets[0]) != "__all__":
                continue
            if isinstance(node.value, ast.List | ast.Tuple):
                items = [item.value for item in node.value.elts if isinstance(item, ast.Constant)]
                return {item for item in items if isinstance(item, str)}
        names = {name for statement in self.statements for name in statement.binds}
        return {name for name in names if not name.startswith("_")}

    def slice(self, names: Set[str], star_names: StarNames) -> str:
        """Return the statements that `names` depend on, each in its own line.

        A file with a syntax error is returned as it is: the error is reported when it is executed.
        """
        try:
            parse_quietly(self.text)
        except SyntaxError:
            return self.text
        slicer = DependencySlicer(self.statements, star_names, is_notebook=False)
        for name in sorted(self._expand(names)):
            if not slicer.add(name):
                slicer.add_star(name)
        return self.join(slicer.sort_statements())

    def _expand(self, names: Set[str]) -> Set[str]:
        if not names >= EVERYTHING:
            return names
        found = {
            name
            for s in self.statements
            for name in [*s.defines, *(s.binds if not s.calls else [])]
        }
        return (names - EVERYTHING) | found

    def join(self, statements: Iterable[Statement]) -> str:
        """Return statements as a text in which each has the line that it has in the file."""
        docstring = [s for s in self.statements[:1] if ast.get_docstring(self.tree, clean=False)]
        futures = [s for s in self.statements if s.dotted.startswith("__future__.")]
        kept = {id(s): s for s in [*docstring, *futures, *statements]}
        lines: list[str] = []
        headers: set[int] = set()
        for statement in sorted(kept.values(), key=self.statements.index):
            first = statement.main_line or statement.line
            if statement.main_line and statement.main_line not in headers:
                headers.add(statement.main_line)
                lines += [""] * (first - 1 - len(lines))
                lines.append("if True:  # __name__ == '__main__'")
            rows = statement.text.split("\n")
            lines += [""] * (statement.line - 1 - len(lines))
            if len(lines) >= statement.line:  # several statements on one line
                is_header = lines[-1].startswith("if True:") and statement.main_line
                before = "if True: " if is_header else f"{lines[-1]}; "
                lines[-1] = before + rows.pop(0).lstrip()
            lines += rows
        return "\n".join([*lines, ""])


def has_lazy_annotations(trees: Iterable[ast.Module]) -> bool:
    """Return whether `from __future__ import annotations` is in a tree."""
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and "annotations" in [alias.name for alias in node.names]
        for tree in trees
        for node in tree.body
    )


def split_statements(
    text: str, cell: int, tree: ast.Module, lazy_annotations: bool = False
) -> list[Statement]:
    """Return a cell's statements, an import of several names as one for each name."""
    lines = text.split("\n")
    statements = []
    for node, main_line in _top_level_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and len(node.names) > 1:
            # A class that uses only torch must not require `import torch, torchvision`.
            for alias in node.names:
                single = ast.copy_location(copy.copy(node), alias)
                single.names = [alias]
                text = ast.unparse(single)
                single.end_lineno = single.lineno
                before = lines[node.lineno - 1][: node.col_offset]
                indent = (before if before.isspace() else "    ") if main_line else ""
                statements.append(
                    analyze_statement(
                        single, indent + text, cell, lazy_annotations, main_line=main_line
                    )
                )
            continue
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        rows = lines[first - 1 : node.end_lineno]
        # Cut off other statements on the same lines; columns are in bytes of UTF-8.
        rows[-1] = rows[-1].encode()[: node.end_col_offset].decode()
        start = node.lineno - first
        row = rows[start].encode()
        before = row[: node.col_offset]
        keeps_indent = bool(main_line) and not before.strip()
        rows[start] = (before if keeps_indent else b"").decode() + row[node.col_offset :].decode()
        if main_line and not keeps_indent:
            rows[start] = f"    {rows[start]}"
        text = "\n".join(rows)
        statements.append(analyze_statement(node, text, cell, lazy_annotations, first, main_line))
    return statements


def _top_level_nodes(tree: ast.Module) -> Iterator[tuple[ast.stmt, int]]:
    """Yield the statements, those of a main block one by one with the line of its `if`."""
    for node in tree.body:
        if isinstance(node, ast.If) and not node.orelse and _is_main_check(node.test):
            yield from ((inner, node.lineno) for inner in node.body)
        else:
            yield node, 0


def _is_main_check(test: ast.expr) -> bool:
    return ast.unparse(test) in ("__name__ == '__main__'", "'__main__' == __name__")
