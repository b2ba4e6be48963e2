"""The files beside a user's file that it imports: found, and reduced to what is imported of them.

Nothing is executed. A module is looked for in the folder of the file, in the package that it is
part of, in the folders above, and in the files that a notebook writes with `%%writefile`.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from whit.models.user_code.reading.notebook import Notebook
from whit.models.user_code.reading.python_file import EVERYTHING, PythonFile
from whit.models.user_code.reading.slicing import StarNames, loaded_star_names
from whit.models.user_code.reading.source import Neighbour, parse_quietly

_MAX_ABOVE = 3  # folders above that of the file in which a module is looked for
_SYNTHETIC = "_whit_package"  # in place of a folder name that cannot be a module's

_ADDED_PATH = re.compile(
    r"sys\.path\.\w+\(\s*(?:\d+\s*,\s*)?[rR]?[\"']([^\"'\n]+)[\"']"
    r"|^[ \t]*%?cd[ \t]+([\w./-]+)[ \t]*$",
    re.MULTILINE,
)

Request = tuple[str, Set[str]]  # a module, and the names that are imported of it


@dataclass
class NeighbourFinder:
    """Finds the modules of one user's file."""

    folder: Path
    written: Mapping[str, str] = field(default_factory=dict)  # by path, of a notebook
    searched: Sequence[Path] = ()  # other folders, as of `sys.path.append("src")`
    package: str = ""  # of the file, for its relative imports
    aliases: dict[str, Path] = field(default_factory=dict)  # the top package -> its folder
    known: Mapping[str, PythonFile] | None = None  # of a copy: all modules, and no others
    _files: dict[str, PythonFile | None] = field(default_factory=dict)

    def join_package(self, tree: ast.Module) -> None:
        """Determine the package of the file from `__init__.py` files and its relative imports."""
        levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        depth = 0
        for folder in [self.folder, *self.folder.parents]:
            if not (folder / "__init__.py").is_file():
                break
            depth += 1
        depth = min(max([depth, *levels]), len(self.folder.parents))
        if not depth:
            return
        names = list(self.folder.parts[-depth:])
        is_file = (self.folder / f"{names[0]}.py").is_file()
        if is_file or is_taken(names[0]) or not all(name.isidentifier() for name in names):
            names[0] = _SYNTHETIC
        self.package = ".".join(names)
        self.aliases[names[0]] = self.folder.parents[depth - 2] if depth > 1 else self.folder

    def star_names(self, module: str, package: str | None = None) -> Set[str] | None:
        """Return the names of `from module import *`; None where they are not known."""
        level = len(module) - len(module.lstrip("."))
        if level:
            package = self.package if package is None else package
            module = _resolve_relative(package, level, module[level:])
        if found := self.find(module):
            return found.public_names
        return loaded_star_names(module)

    def find(self, module: str) -> PythonFile | None:
        """Return the file of a module, parsed; None if it is not a neighbour."""
        if self.known is not None:
            return self.known.get(module)
        if module not in self._files:
            self._files[module] = self._read(module)
        return self._files[module]

    def _read(self, module: str) -> PythonFile | None:
        located = self._locate(module)
        if located is None:
            return None
        path, is_package, content = located
        if content is not None:
            return PythonFile(path, content, content.encode(), is_package)
        if path.suffix == ".ipynb":
            return Notebook.read(path).to_file()
        return PythonFile.read(path, is_package)

    def _locate(self, module: str) -> tuple[Path, bool, str | None] | None:
        parts = module.split(".")
        if not all(part.isidentifier() for part in parts) or (
            is_taken(parts[0]) and parts[0] not in self.aliases
        ):
            return None
        stem = "/".join(parts)
        for relative in (f"{stem}.py", f"{stem}/__init__.py"):
            for base in [self.folder, *self.searched]:
                path = os.path.relpath(base / relative, self.folder)
                if path in self.written:
                    is_package = relative.endswith("__init__.py")
                    return self.folder / path, is_package, self.written[path]
        for number, base in enumerate(self._bases(parts)):
            if number and not self._is_nearer(parts[0]):
                break
            if (base / "__init__.py").is_file():
                return base / "__init__.py", True, None
            for suffix in (".py", ".ipynb"):  # `%run blocks.ipynb`
                file = base.with_name(f"{base.name}{suffix}")
                if file.is_file():
                    return file, False, None
        return None

    def _bases(self, parts: list[str]) -> Iterator[Path]:
        if parts[0] in self.aliases:
            yield self.aliases[parts[0]].joinpath(*parts[1:])
            return
        above = list(self.folder.parents)[:_MAX_ABOVE]
        for root in [self.folder, *self.searched, *above]:
            yield root.joinpath(*parts)

    def _is_nearer(self, name: str) -> bool:
        """Whether a folder above may provide a module: not if a package of that name exists."""
        try:
            return importlib.util.find_spec(name) is None
        except (ImportError, ValueError, AttributeError):
            return True

    def collect(self, text: str, *, whole: bool, requested: str) -> tuple[Neighbour, ...]:
        """Return the modules that a text imports, and those that these import.

        Each has the statements that are imported of it; all of them with `whole`. `requested` is
        the name that is used of the text itself, which a star import may provide.
        """
        wanted: dict[str, Set[str]] = {}
        texts: dict[str, str] = {}
        pending = list(_find_requests(text, self.package, {requested}))
        while pending:
            module, names = pending.pop()
            for parent in _parents(module):
                if parent not in wanted and self.find(parent):
                    pending.append((parent, frozenset()))
            file = self.find(module)
            known = wanted.get(module)
            if file is None or (known is not None and names <= known):
                continue
            wanted[module] = names | (known or frozenset())
            sliced = file.text
            if not whole:
                sliced = file.slice(wanted[module], self._star_names_in(module, file))
            if sliced != texts.get(module):
                texts[module] = sliced
                package = module if file.is_package else module.rpartition(".")[0]
                pending += _find_requests(sliced, package, wanted[module])
        neighbours = []
        for module in sorted(texts):
            file = self.find(module)
            assert file is not None
            text, content = texts[module], file.content
            neighbours.append(
                Neighbour(module, file.path, text, content, file.is_package, file.origins)
            )
        return tuple(neighbours)

    def _star_names_in(self, module: str, file: PythonFile) -> StarNames:
        package = module if file.is_package else module.rpartition(".")[0]
        return lambda star: self.star_names(star, package)


def is_taken(name: str) -> bool:
    """Whether a top-level module must not be shadowed: torch, whit, the standard library.

    Importing torch a second time because of a folder named `torch` would break it.
    """
    if name in sys.stdlib_module_names or name == "whit":
        return True
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _resolve_relative(package: str, level: int, module: str) -> str:
    parts = package.split(".")
    kept = parts[: len(parts) - level + 1] if package and level <= len(parts) else []
    return ".".join([*kept, *([module] if module else [])])


def _find_requests(text: str, package: str, exported: Set[str] = frozenset()) -> Iterator[Request]:
    """Yield each module that a text may import, with the names that it uses of it.

    `exported` are names that are used of the text itself.
    """
    try:
        tree = parse_quietly(text)
    except SyntaxError:  # reported when it is executed
        return
    used = {*_dotted_uses(tree), *exported}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _imported_module(alias.name, alias.asname or alias.name, used)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = _resolve_relative(package, node.level, module)
            for alias in node.names:
                if alias.name == "*":
                    yield module, {name.partition(".")[0] for name in used}
                else:
                    yield module, frozenset({alias.name})
                    submodule = f"{module}.{alias.name}"
                    yield from _imported_module(submodule, alias.asname or alias.name, used)
        elif isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            is_import = function in ("importlib.import_module", "import_module", "__import__")
            name = node.args[0] if is_import and node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value, EVERYTHING


def _imported_module(module: str, bound: str, used: Set[str]) -> Iterator[Request]:
    """Yield the names that are used of a module through the name that it is bound to."""
    names = {
        dotted.removeprefix(f"{bound}.").partition(".")[0]
        for dotted in used
        if dotted.startswith(f"{bound}.")
    }
    yield module, EVERYTHING if bound in used else frozenset(names)


def _dotted_uses(tree: ast.Module) -> Iterator[str]:
    """Yield `a.b.c` for each outermost chain of attributes of a name, and bare names."""
    inner: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts, value = [node.attr], node.value
            while isinstance(value, ast.Attribute):
                inner.add(value)
                parts.append(value.attr)
                value = value.value
            if isinstance(value, ast.Name):
                inner.add(value)
                if node not in inner:
                    yield ".".join([value.id, *reversed(parts)])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node not in inner:
            yield node.id


def search_paths(text: str, folder: Path) -> list[Path]:
    """Return the folders that are added as in `sys.path.append("../src")` or `%cd repo`."""
    return [folder / os.path.expanduser(path or moved) for path, moved in _ADDED_PATH.findall(text)]
