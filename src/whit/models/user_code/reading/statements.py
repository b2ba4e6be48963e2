"""The top-level statements of a file or a notebook, with the names that each deals with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    may_bind: set[str] = field(default_factory=set)  # those that may keep their earlier value
    mutates: set[str] = field(default_factory=set)  # `sizes` in `sizes.append(3)`, `sizes += [3]`
    sets: set[str] = field(default_factory=set)  # `config.width` in `config.width = 3`
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


def list_classes(statements: Iterable[Statement]) -> str:
    """Return a sentence that begins with a space and names the classes defined."""
    classes = dict.fromkeys(name for statement in statements for name in statement.classes)
    return f" Its classes: {', '.join(classes)}." if classes else " It defines no class."


def unknown_name_error(path: Path, name: str, statements: Sequence[Statement]) -> SourceError:
    """Return the error for a name that no statement of the file binds."""
    hint = did_you_mean(name, [defined for s in statements for defined in s.defines])
    return SourceError(f"{path} has no class {name!r}.{hint}{list_classes(statements)}")
