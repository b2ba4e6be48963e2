"""A statement at the top level of a file or cell, with its dealings with names."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from whit.errors import SourceError, did_you_mean
from whit.models.user_code.scopes import Names, Read


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One statement; of a cell it also keeps its text and its place."""

    text: str
    cell: int  # from 1; 0 outside notebooks
    line: int  # its first, in its cell
    last_line: int
    binds: dict[str, bool]  # name -> certainly, not only inside a loop
    changes: frozenset[str]  # names whose value it alters: `sizes.append(3)`, `total += 1`
    sets: frozenset[str]  # names that its functions declare `global`
    defines: tuple[str, ...]  # functions and classes
    classes: tuple[str, ...]
    reads: tuple[Read, ...]
    stars: tuple[str, ...]  # modules of which it imports everything
    is_import: bool
    dotted: str  # of `import a.b` and `from a import b`: the dotted name that it is about

    @property
    def gives(self) -> set[str]:
        return self.binds.keys() | self.changes


def scan(
    node: ast.stmt,
    text: str = "",
    cell: int = 0,
    lazy_annotations: bool = False,
    first_line: int | None = None,
) -> Statement:
    """Return a node of the top level with the names that it binds, changes and reads."""
    names = Names(lazy_annotations or sys.version_info >= (3, 14))
    names.visit(node)
    dotted = ""
    if isinstance(node, ast.Import):
        # `import a.b as c` binds c to a.b itself: nobody can ask for a part of it by name.
        dotted = node.names[0].asname or node.names[0].name
    elif isinstance(node, ast.ImportFrom):
        from_future = node.module == "__future__"
        dotted = "__future__." if from_future else node.names[0].asname or node.names[0].name
    return Statement(
        text=text,
        cell=cell,
        line=node.lineno if first_line is None else first_line,
        last_line=node.end_lineno or node.lineno,
        binds=names.binds,
        changes=frozenset(names.changes),
        sets=frozenset(names.sets),
        defines=tuple(names.defines),
        classes=tuple(names.classes),
        reads=tuple(names.reads),
        stars=tuple(names.stars),
        is_import=isinstance(node, ast.Import | ast.ImportFrom),
        dotted=dotted,
    )


def classes_sentence(statements: Iterable[Statement]) -> str:
    """Return a sentence that begins with a space and names the classes defined."""
    classes = dict.fromkeys(name for statement in statements for name in statement.classes)
    return f" Its classes: {', '.join(classes)}." if classes else " It defines no class."


def unknown_name(path: Path, name: str, statements: Sequence[Statement]) -> SourceError:
    """Return the error for a name that no statement of the file binds."""
    near = did_you_mean(name, [defined for s in statements for defined in s.defines])
    return SourceError(f"{path} has no class {name!r}.{near}{classes_sentence(statements)}")
