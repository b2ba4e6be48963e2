"""Imports while a user's code runs: their own files as they were read, stand-ins for the rest."""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
import types
from collections.abc import Iterator, Sequence, Set
from functools import cache
from pathlib import Path

import torch

from whit.models.user_code import stand_ins
from whit.models.user_code.neighbours import NeighbourFinder, is_taken
from whit.models.user_code.reading.python_file import EVERYTHING
from whit.models.user_code.reading.source import Neighbour, Source, parse_quietly

_CATCHES_IMPORT_ERRORS = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


@contextlib.contextmanager
def user_imports(source: Source) -> Iterator[None]:
    """Make what a user's file imports importable inside; remove its modules afterwards.

    A loaded module of the same name from elsewhere is replaced inside: `from blocks import Block`
    means the file in this folder, not one that another model has imported.
    """
    finder = UserFinder(source)
    path = list(sys.path)
    siblings = set() if source.is_copy else _find_sibling_names(source.folder)
    own = siblings | {neighbour.module.partition(".")[0] for neighbour in source.neighbours}
    own |= {source.package.partition(".")[0]} - {""}
    replaced = _remove_modules(own)
    if not source.is_copy:
        sys.path.insert(0, str(source.folder))
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()  # the file finder may miss a file written a moment ago
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.path[:] = path  # a user's file may have changed it
        _remove_modules(own | finder.found)
        _remove_stand_ins()
        sys.modules.update(replaced)


class UserFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of a user's file, and stand-ins for packages that are missing.

    A stand-in is given only to an import in the user's own files, outside of a `try` that handles
    the error: an installed package that tries an optional import must see that it is missing.
    """

    def __init__(self, source: Source):
        self.neighbours = {neighbour.module: neighbour for neighbour in source.neighbours}
        self.files = {source.filename: source.text}
        self.files |= {neighbour.filename: neighbour.text for neighbour in source.neighbours}
        self.found: set[str] = set()  # top-level modules that were found in other folders
        self._source = source
        self._search = None if source.is_copy else NeighbourFinder(source.folder)
        packages = [*self.neighbours, *([f"{source.package}."] if source.package else [])]
        self._parents = {
            module[:index]
            for module in packages
            for index, character in enumerate(module)
            if character == "."
        }

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        neighbour = self.neighbours.get(name)
        if neighbour is None and name in self._parents:
            folder = self._source.folder / "__init__.py"
            neighbour = Neighbour(name, folder, "", b"", is_package=True)
        importer = _find_importer()
        if neighbour is None and importer in self.files:
            neighbour = self._find_more(name)
        if neighbour is not None:
            return importlib.util.spec_from_loader(
                name, _NeighbourLoader(neighbour), is_package=neighbour.is_package
            )
        above = sys.modules.get(name.rpartition(".")[0])
        if isinstance(above, stand_ins.StandInModule):
            return _stand_in_spec(name)
        is_own = name.rpartition(".")[0] in self.neighbours
        if importer not in self.files or is_own or self._is_guarded():
            return None
        spec = self._find_installed(name, path, target)
        if spec is None:
            # `from torch.nn import Conv2D` asks for a submodule: that is no missing package.
            return None if _is_attribute() else _stand_in_spec(name)
        if hasattr(spec.loader, "exec_module") and isinstance(
            spec.loader, importlib.machinery.SourceFileLoader
        ):
            spec.loader = _GuardedLoader(spec.loader)
        return spec

    def _find_more(self, name: str) -> Neighbour | None:
        """Return a module that the file names only when it runs, with all of its definitions."""
        file = self._search.find(name) if self._search else None
        if file is None or self._search is None:
            return None
        self.found.add(name.partition(".")[0])
        text = file.text
        if not self._source.run_whole_file:
            text = file.slice(EVERYTHING, self._search.star_names)
        neighbour = Neighbour(name, file.path, text, file.content, file.is_package, file.origins)
        self.files[neighbour.filename] = text
        return neighbour

    def _find_installed(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return spec
        return None

    def _is_guarded(self) -> bool:
        """Whether the import is in a `try` that handles its failure."""
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None:
            filename = frame.f_code.co_filename
            if filename in self.files:
                return frame.f_lineno in _guarded_lines(self.files[filename])
            frame = frame.f_back
        return False


class _NeighbourLoader(importlib.abc.Loader):
    def __init__(self, neighbour: Neighbour):
        self.neighbour = neighbour

    def exec_module(self, module: types.ModuleType) -> None:
        neighbour = self.neighbour
        module.__file__ = neighbour.filename
        if neighbour.is_package:
            module.__path__ = [str(neighbour.path.absolute().parent)]
        stand_ins.register_file(neighbour.filename, neighbour.format_location)
        execute(neighbour.text, neighbour.filename, module)


class _GuardedLoader(importlib.abc.Loader):
    """Loads an installed module; puts a stand-in in its place if it fails."""

    def __init__(self, loader: importlib.machinery.SourceFileLoader):
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        name = module.__name__
        try:
            self.loader.exec_module(module)
        except stand_ins.MissingPackage:
            raise
        except Exception as error:
            lines = str(error).strip().splitlines()
            reason = f"{type(error).__name__}{f': {lines[0]}' if lines else ''}"
            package = name.partition(".")[0] if "." not in name else name
            stand_ins.mark_broken(package, reason[:200])
            sys.modules[name] = stand_ins.StandInModule(name, package)


class _StandInLoader(importlib.abc.Loader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        above = sys.modules.get(spec.name.rpartition(".")[0])
        package = above.package if isinstance(above, stand_ins.StandInModule) else spec.name
        return stand_ins.StandInModule(spec.name, package)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def _stand_in_spec(name: str) -> importlib.machinery.ModuleSpec:
    return importlib.machinery.ModuleSpec(name, _StandInLoader(), is_package=True)


class _IPython:
    """In place of `get_ipython()`: whit runs no magics and no shell commands."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments, **options: None

    def getoutput(self, command: str, *arguments: object, **options: object) -> None:
        raise RuntimeError(f"needs the output of `!{command}`, and shell commands are not executed")

    def run_line_magic(self, name: str, line: str = "", *arguments: object) -> None:
        # Its value would be used, or the statement would not be executed.
        raise RuntimeError(f"needs the value of `%{name} {line}`, and magics are not executed")


def execute(text: str, filename: str, module: types.ModuleType) -> None:
    """Execute code in a module. Constants are real tensors, also where models are built on "meta".

    Raises SyntaxError, RecursionError, and whatever the code raises.
    """
    # For tracebacks and inspect.getsource: a file may change, and notebook cells are in none.
    lines = [f"{line}\n" for line in text.split("\n")]
    linecache.cache[filename] = (len(text), None, lines, filename)
    vars(module).setdefault("display", lambda *shown, **options: None)
    vars(module).setdefault("get_ipython", _IPython)
    code = builtins.compile(text, filename, "exec", dont_inherit=True)
    on_meta = torch.get_default_device().type == "meta"
    on_cpu = torch.device("cpu") if on_meta else contextlib.nullcontext()
    with stand_ins.executing_statements(), on_cpu:
        exec(code, module.__dict__)


def _find_importer() -> str:
    """Return the file name of the code that imports, without that of Python's import system."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        filename = frame.f_code.co_filename
        # `import_module` is part of the import, `importlib.util.find_spec` only asks.
        is_import = filename.startswith("<frozen importlib._bootstrap")
        if not is_import and filename not in (importlib.__file__, "<frozen importlib>"):
            return filename
        frame = frame.f_back
    return ""


def _is_attribute() -> bool:
    """Whether a module is looked for since a package has no attribute of that name."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        if frame.f_code.co_name == "_handle_fromlist":
            return True
        frame = frame.f_back
    return False


@cache
def _guarded_lines(text: str) -> Set[int]:
    """Return the lines of a text that are inside a `try` that handles an ImportError."""
    lines: set[int] = set()
    for node in ast.walk(parse_quietly(text)):
        body: Sequence[ast.stmt] = ()
        if isinstance(node, ast.Try | ast.TryStar):
            caught = [handler.type for handler in node.handlers]
            if any(kind is None or _names(kind) & _CATCHES_IMPORT_ERRORS for kind in caught):
                body = node.body
        elif isinstance(node, ast.With):
            calls = [item.context_expr for item in node.items]
            if any(
                "suppress" in ast.unparse(c) and _names(c) & _CATCHES_IMPORT_ERRORS for c in calls
            ):
                body = node.body
        for statement in body:
            lines.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return lines


def _names(node: ast.expr) -> Set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _find_sibling_names(folder: Path) -> set[str]:
    """Return the module names importable from `folder`, without those that must not be shadowed."""
    try:
        names = {entry.name.removesuffix(".py") for entry in folder.iterdir()}
    except OSError:  # a folder that may be entered but not listed
        return set()
    return {n for n in names if n.isidentifier() and not n.startswith("__") and not is_taken(n)}


def _remove_modules(top_names: Set[str]) -> dict[str, types.ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] in top_names]
    return {name: sys.modules.pop(name) for name in names}


def _remove_stand_ins() -> None:
    """Forget the stand-ins: the same import elsewhere must fail as it would without them."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, stand_ins.StandInModule):
            del sys.modules[name]
            above, _, last = name.rpartition(".")
            if vars(sys.modules.get(above, module)).get(last) is module:
                delattr(sys.modules[above], last)
