"""The top-level statements of a file or a notebook, with the names that each deals with."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from whit.errors import SourceError, did_you_mean


@dataclass(frozen=True, slots=True)
class NameUse:
    """A free name of a statement, with the attributes that are accessed on it."""

    dotted: str  # `torch.nn.Module`
    line: int  # in its cell
    deferred: bool  # inside a function: looked up when that is called, not when it is defined
    optional: bool = False  # of an annotation that is not evaluated, but may be looked up

    @property
    def root(self) -> str:
        return self.dotted.partition(".")[0]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A top-level statement of a file or cell, with the names that it deals with.

    The statements under `if __name__ == "__main__":` are statements of their own.
    """

    text: str
    cell: int  # from 1; 0 outside notebooks
    line: int  # its first, in its cell
    last_line: int
    is_import: bool
    dotted: str  # of `import a.b` and `from a import b`: the dotted name that it binds
    main_line: int = 0  # the line of `if __name__ == "__main__":` around it, 0 without
    binds: dict[str, bool] = field(default_factory=dict)  # name -> not only inside a loop
    mutates: set[str] = field(default_factory=set)  # `sizes` in `sizes.append(3)`, `sizes += [3]`
    method_calls: set[str] = field(default_factory=set)  # `parser` in a line `parser.add(...)`
    shares: dict[str, str] = field(default_factory=dict)  # `group = parser.add_group()`
    calls: set[str] = field(default_factory=set)  # functions that it calls when it runs
    later_mutates: set[str] = field(default_factory=set)  # by its functions, when called
    declares_global: set[str] = field(default_factory=set)  # in its functions
    defines: list[str] = field(default_factory=list)  # functions and classes
    classes: list[str] = field(default_factory=list)
    uses: list[NameUse] = field(default_factory=list)
    stars: list[str] = field(default_factory=list)  # modules of which it imports everything
    is_dynamic: list[bool] = field(default_factory=list)  # not empty: it may bind any name

    @property
    def provides(self) -> set[str]:
        return self.binds.keys() | self.mutates


def list_classes(statements: Iterable[Statement]) -> str:
    """Return a sentence that begins with a space and names the classes defined."""
    classes = dict.fromkeys(name for statement in statements for name in statement.classes)
    return f" Its classes: {', '.join(classes)}." if classes else " It defines no class."


def unknown_name_error(path: Path, name: str, statements: Sequence[Statement]) -> SourceError:
    """Return the error for a name that no statement of the file binds."""
    hint = did_you_mean(name, [defined for s in statements for defined in s.defines])
    return SourceError(f"{path} has no class {name!r}.{hint}{list_classes(statements)}")


def split_statements(
    text: str, cell: int, tree: ast.Module, lazy_annotations: bool = False
) -> list[Statement]:
    """Return a cell's statements, an import of several names as one for each name."""
    from whit.models.user_code.scopes import analyze_statement

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
