"""A user's own model, named as `path/file.py:Class` or `path/notebook.ipynb:Class`.

    target --read_source--> Source (the code, as text) --load_model_class--> class --> nn.Module

A user's file is code that they asked to run, and it runs with all their rights. Nothing else is
ever imported by name: a target names a file, never a module on the path. What the file itself
imports, from beside it or from installed packages, is imported as Python does it.

A `.py` file is executed whole, as a module that is not `__main__`. Of a notebook only those
statements are executed that the class needs: its own cell's and other cells' imports,
definitions and assignments, found by following the names that the class reads. Downloads,
training loops and magics that stand in the same cells do not run. What is executed is
`Source.text`, so a run folder can keep exactly that.

Wrong targets and errors in the user's code raise `SourceError` with the user's own file and line.
KeyboardInterrupt passes through.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import hashlib
import importlib
import inspect
import io
import json
import linecache
import os
import re
import sys
import tokenize
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import nn

from whit.errors import SourceError, did_you_mean

ModelFactory = type[nn.Module] | Callable[..., nn.Module]

SUFFIXES = (".py", ".ipynb")


# --- The target and its code ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """The code that defines one model, read but not yet run."""

    path: Path  # as the user gave it, for messages
    name: str  # of the class or function
    text: str  # exactly what is executed
    origins: tuple[tuple[int, int], ...] = ()  # of a notebook: (cell, line) of each line of text

    @property
    def target(self) -> str:
        return f"{self.path}:{self.name}"

    @property
    def sha256(self) -> str:
        """SHA-256 of the executed code in UTF-8, as 64 hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def folder(self) -> Path:
        return self.path.absolute().parent

    @property
    def filename(self) -> str:
        """The name under which Python knows the code, as tracebacks show it."""
        path = self.path.absolute()
        return f"{path}:{self.name}" if self.origins else str(path)

    def place(self, line: int) -> str:
        """Return where a line of the executed code stands in the user's own file.

        Cells are counted from 1 at the top of the notebook, cells of text included.
        """
        if not self.origins:
            return f"{self.path}, line {line}"
        cell, line = self.origins[min(line, len(self.origins)) - 1]
        return f"{self.path}, cell {cell}, line {line}" if cell else str(self.path)

    def line_text(self, line: int) -> str:
        lines = self.text.split("\n")
        return lines[line - 1].strip() if 0 < line <= len(lines) else ""


def is_source(target: str) -> bool:
    """Return whether `target` is meant as a file with a model, right or wrong.

    True for a path with a suffix or a folder in it and `:Name`, and for a bare `.py` or `.ipynb`
    path, whose error then says what is missing. False for registry names (also `python:Net`),
    recipes and run folders (also `C:\\runs\\one`).
    """
    path, colon, name = target.rpartition(":")
    if target.lower().endswith(SUFFIXES) or path.lower().endswith(SUFFIXES):
        return True
    is_path = any(mark in path for mark in "./\\")
    return bool(colon) and is_path and name.isidentifier()


def read_source(target: str) -> Source:
    """Return the code that `target` names; runs none of it.

    Raises SourceError: no such file, not readable, not UTF-8, no class named, a syntax error, no
    such class, or (in a notebook) a name that the class needs and no cell defines.
    """
    path, name = _split(target)
    try:
        if path.suffix.lower() == ".ipynb":
            return _read_notebook(path, name)
        text = _read_python(path)
        statements = [_scan(node) for node in _parse(text, path).body]
        _refuse_unknown_name(path, name, statements)
        return Source(path, name, text)
    except RecursionError as error:
        raise SourceError(f"{path}: something in it is nested too deeply to be read.") from error


def source_text(target: str | Source) -> str:
    """Return the exact code that loading `target` executes. Raises as `read_source`."""
    return _as_source(target).text


def source_sha256(target: str | Source) -> str:
    """Return the SHA-256 of `source_text(target)`. Raises as `read_source`."""
    return _as_source(target).sha256


def _as_source(target: str | Source) -> Source:
    return target if isinstance(target, Source) else read_source(target)


def _split(target: str) -> tuple[Path, str]:
    """Return the path and the name in `path:Name`, once both are plausible."""
    path_text, name = target, ""
    if not target.lower().endswith(SUFFIXES):
        path_text, _, name = target.rpartition(":")
    path = Path(os.path.expanduser(path_text))
    if not path_text:
        raise SourceError(f"{target!r} is not of the form 'path/file.py:Class'.")
    problems = []
    if not os.path.isfile(path):
        problems.append(_no_such_file(path))
    elif path.suffix.lower() not in SUFFIXES:
        problems.append(f"{path}: a model's file ends in .py or .ipynb, not in {path.suffix!r}.")
    if not name:
        classes = "" if problems else _classes_there(path)
        problems.append(f"{path} names a file but no class in it: write '{path}:Class'.{classes}")
    elif not name.isidentifier():
        problems.append(f"{target}: {name!r} is not the name of a class at the top of the file.")
    if problems:
        raise SourceError(problems)
    return path, name


def _no_such_file(path: Path) -> str:
    if os.path.isdir(path):
        return f"{path} is a folder, not a file."
    try:
        if os.path.exists(path):
            return f"{path} is not a file that can be read."
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix in SUFFIXES]
    except (OSError, ValueError):  # no such folder, a name that no file can have
        names = []
    return f"{path}: there is no such file.{did_you_mean(path.name, names)}"


def _classes_there(path: Path) -> str:
    """Return a sentence with the classes in a file, or nothing where it cannot be read."""
    try:
        if path.suffix.lower() == ".ipynb":
            return _classes_sentence(_Notebook.read(path).statements)
        return _classes_sentence([_scan(node) for node in _parse(_read_python(path), path).body])
    except SourceError:
        return ""


def _classes_sentence(statements: Iterable[Statement]) -> str:
    classes = dict.fromkeys(name for statement in statements for name in statement.classes)
    return f" Its classes: {', '.join(classes)}." if classes else " It defines no class."


def _refuse_unknown_name(path: Path, name: str, statements: Sequence[Statement]) -> None:
    """Refuse a name that is bound nowhere, before any code runs."""
    if any(name in statement.binds or statement.stars for statement in statements):
        return  # what a star import brings is known only once it has run
    near = did_you_mean(name, [defined for s in statements for defined in s.defines])
    raise SourceError(f"{path} has no class {name!r}.{near}{_classes_sentence(statements)}")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_python(path: Path) -> str:
    """Return the text of a Python file: UTF-8, or what its coding line says."""
    raw = _read_bytes(path)
    encoding = "utf-8"
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        _refuse_encoding(path, raw, error)
    except (SyntaxError, LookupError) as error:  # its first lines are not text, or name no codec
        try:
            raw.decode()
        except UnicodeDecodeError as undecodable:
            _refuse_encoding(path, raw, undecodable)
        raise SourceError(f"{path}: {_said(error)}.") from error


def _refuse_encoding(path: Path, raw: bytes, error: UnicodeDecodeError) -> NoReturn:
    line = raw.count(b"\n", 0, error.start) + 1
    raise SourceError(
        f"{path} is not {error.encoding.upper()} text: line {line} holds the byte "
        f"0x{raw[error.start]:02x}. Save it as UTF-8."
    ) from error


def _parse(text: str, path: Path) -> ast.Module:
    try:
        return _parse_quietly(text)
    except SyntaxError as error:
        raise SourceError(_syntax_problem(f"{path}, line {error.lineno}", error)) from error


def _parse_quietly(text: str) -> ast.Module:
    """Parse user code; warnings about its style (as of `"\\d"`) are not our message.

    Raises SyntaxError for everything that Python cannot read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (ValueError, RecursionError, MemoryError) as error:  # a NUL byte, endless brackets
            raise SyntaxError(str(error) or "nested too deeply", ("", 1, 1, "")) from error


def _syntax_problem(place: str, error: SyntaxError, line: str | None = None) -> str:
    line = (error.text or "" if line is None else line).strip()
    return f"{place}: syntax error, {error.msg}{f': `{line}`' if line else '.'}"


# --- Running it ----------------------------------------------------------------------------------


def load_model_class(target: str | Source) -> ModelFactory:
    """Run the code that `target` names and return its class or function.

    The class is a subclass of `torch.nn.Module`; a function is taken to return one. The code runs
    as a module with a private name, which stays in `sys.modules` so that `inspect`, dataclasses
    and torch's own tools find it. Files beside it can be imported while it runs, and are
    forgotten afterwards, so that two users' `blocks.py` never meet. Its prints go to standard
    error. torch's global generator is left as it was: a `torch.manual_seed(1)` in a user's file
    must not make all seeds the same.

    Raises SourceError: as `read_source`, or the code fails, exits, or defines no such class.
    """
    source = _as_source(target)
    unique = hashlib.sha256(f"{source.filename}\n{source.text}".encode()).hexdigest()[:16]
    module = types.ModuleType(f"_whit_user_{unique}")
    module.__file__ = source.filename
    module.__package__ = ""  # alone: a relative import must fail in Python's clear words
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(source.text, source.filename, "exec", dont_inherit=True)
    except RecursionError as error:
        raise SourceError(f"{source.path}: an expression is nested too deeply.") from error
    except SyntaxError as error:  # found by the compiler only, like `return` outside a function
        line = error.lineno or 1
        problem = _syntax_problem(source.place(line), error, source.line_text(line))
        raise SourceError(problem) from error
    if source.origins:  # no such file on disk; tracebacks and inspect.getsource read it here
        lines = source.text.splitlines(keepends=True)
        linecache.cache[source.filename] = (len(source.text), None, lines, source.filename)
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        with _users_code(source, "it"), torch.random.fork_rng(devices=[]), _real_tensors():
            exec(code, module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        if before is not None:
            sys.modules[module.__name__] = before
        raise
    return _checked(source, module)


def build_user_model(target: str | Source, arguments: Mapping[str, object]) -> nn.Module:
    """Return the model that `target` names, built with the keywords of a recipe's [model] table.

    Weights are drawn from torch's global generator: seed it before.

    Raises SourceError: as `load_model_class`, or the keywords do not fit (all of them at once),
    the constructor fails, or what it returns is not a module.
    """
    source = _as_source(target)
    factory = load_model_class(source)
    problems = _argument_problems(source, factory, arguments)
    if problems:
        raise SourceError(problems)
    with _users_code(source, f"building {source.name}"):
        model: object = factory(**arguments)
    if not isinstance(model, nn.Module):
        raise SourceError(
            f"{_defined_at(source, factory)}: {source.name} returned a "
            f"{type(model).__name__!r}, not a torch.nn.Module."
        )
    return model


def _checked(source: Source, module: types.ModuleType) -> ModelFactory:
    """Return the named value, if a model can be built from it."""
    if source.name not in vars(module):
        raise SourceError(f"{source.path}: running it left no {source.name!r} behind.")
    value: object = vars(module)[source.name]
    if isinstance(value, nn.Module):
        own = type(value).__module__ == module.__name__
        instead = f"its class, {type(value).__name__!r}" if own else "a function that returns it"
        raise SourceError(f"{source.target} is a model that is already built: name {instead}.")
    if isinstance(value, type) and not issubclass(value, nn.Module):
        modules = [
            name
            for name, other in vars(module).items()
            if isinstance(other, type)
            and issubclass(other, nn.Module)
            and other.__module__ == module.__name__
        ]
        there = f" Its modules: {', '.join(modules)}." if modules else ""
        raise SourceError(
            f"{source.target} is a class, but not a torch.nn.Module: "
            f"write `class {source.name}(nn.Module)`.{there}"
        )
    if not callable(value):
        raise SourceError(
            f"{source.target} is a {type(value).__name__!r}: name a class that is a "
            "torch.nn.Module, or a function that returns one."
        )
    return value


@contextlib.contextmanager
def _users_code(source: Source, doing: str) -> Iterator[None]:
    """Run user code inside: its neighbours importable, its failures in the user's own words.

    Standard output may carry our JSON, so prints go to standard error. The command line is
    ours, so the file sees only its own name, as when it is run without arguments.
    """
    argv, writes_no_bytecode = sys.argv, sys.dont_write_bytecode
    sys.argv, sys.dont_write_bytecode = [str(source.path)], True  # leave no __pycache__ behind
    try:
        with _neighbours(source.folder), contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        raise SourceError(_failure(source, doing, error)) from error
    finally:
        sys.argv, sys.dont_write_bytecode = argv, writes_no_bytecode


@contextlib.contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Make the files in `folder` importable by name, and forget them again afterwards.

    A module of the same name from elsewhere is set aside meanwhile: `from blocks import Block`
    means the file beside the user's, not one that some other model brought before.
    """
    loose = _loose_names(folder)
    entry = str(folder)

    def take_out() -> dict[str, types.ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] in loose]
        return {name: sys.modules.pop(name) for name in names}

    set_aside = take_out()
    sys.path.insert(0, entry)
    importlib.invalidate_caches()  # a file written a moment ago must be seen
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
        take_out()
        sys.modules.update(set_aside)


def _loose_names(folder: Path) -> set[str]:
    """Return the names importable from `folder`, less the modules that must stay what they are.

    Those are the standard library, whit itself, and every installed package already in use:
    importing torch a second time because of a folder named `torch` would break it.
    """
    names = set()
    try:
        for entry in folder.iterdir():
            name = entry.stem if entry.suffix == ".py" else entry.name
            if name.isidentifier() and not name.startswith("__"):
                names.add(name)
    except OSError:  # a folder that may be entered but not listed
        return set()
    kept = {name for name in names if _is_installed(sys.modules.get(name))}
    return names - kept - sys.stdlib_module_names - {"whit"}


def _is_installed(module: types.ModuleType | None) -> bool:
    return module is not None and _in_site_packages(Path(getattr(module, "__file__", None) or ""))


def _in_site_packages(path: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def _real_tensors() -> contextlib.AbstractContextManager[object]:
    """A plan builds models on the meta device; constants in the user's file are still real."""
    on_meta = torch.get_default_device().type == "meta"
    return torch.device("cpu") if on_meta else contextlib.nullcontext()


# --- Failures in words ---------------------------------------------------------------------------


def _failure(source: Source, doing: str, error: BaseException) -> str:
    """Return one sentence: where in the user's own code, what happened, what to do."""
    place, line = _deepest_own_line(source, error)
    at = f" at `{line}`" if line else ""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return _syntax_problem(f"{_shown(source, error.filename)}, line {error.lineno}", error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"{place}: imports {error.name!r}, which is not installed and not beside the file"
            f"{at}. Install it, or take the import out if the model does not need it."
        )
    if isinstance(error, ImportError) and "relative import" in str(error):
        return (
            f"{place}: a relative import{at}, but the file is loaded on its own: "
            "write `from blocks import Block` for a file `blocks.py` beside it."
        )
    if isinstance(error, SystemExit):
        return (
            f"{place}: {doing} ended the program with exit code {error.code!r}{at}. "
            'Put what is not the model under `if __name__ == "__main__":`.'
        )
    return f"{place}: {doing} raised {_said(error)}{at}."


def _deepest_own_line(source: Source, error: BaseException) -> tuple[str, str]:
    """Return the place and the text of the innermost line of the user's code in a traceback."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        filename = frame.f_code.co_filename
        if filename == source.filename:
            return source.place(line), source.line_text(line)
        if _is_beside(source, filename):
            text = linecache.getline(filename, line).strip()
            return f"{_shown(source, filename)}, line {line}", text
    return str(source.path), ""


def _is_beside(source: Source, filename: str) -> bool:
    path = Path(filename)
    if not path.is_relative_to(source.folder) or _in_site_packages(path):
        return False
    first = path.relative_to(source.folder).parts[0]
    return first.removesuffix(".py") in _loose_names(source.folder)


def _shown(source: Source, filename: str) -> str:
    """Return a file's name the way the user named their own."""
    path = Path(filename)
    if path.is_relative_to(source.folder):
        return str(source.path.parent / path.relative_to(source.folder))
    return filename


def _said(error: BaseException) -> str:
    """Return an exception's type and the first line of its message, at most 300 characters."""
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # a user's exception whose own __str__ fails
        lines = []
    message = lines[0] if lines else ""
    if len(message) > 300:
        message = message[:297] + "..."
    kind = type(error).__name__
    return f"{kind}: {message.rstrip('.')}" if message else kind


def _argument_problems(
    source: Source, factory: ModelFactory, arguments: Mapping[str, object]
) -> list[str]:
    """Return one sentence for each keyword that is unknown or missing."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a callable without a signature: its call will tell
        return []
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = [p.name for p in by_name]
    place = _defined_at(source, factory)
    takes = f"It takes: {', '.join(known)}." if known else "It takes no arguments."
    problems = [
        f"{place}: {source.name} has no argument {name!r}.{did_you_mean(name, known)} {takes}"
        for name in arguments
        if name not in known and not takes_any
    ]
    problems += [
        f"{place}: {source.name} needs {p.name!r}, and [model] does not give it."
        for p in by_name
        if p.default is p.empty and p.name not in arguments
    ]
    problems += [
        f"{place}: {source.name} takes {p.name!r} by position only: [model] gives names."
        for p in parameters
        if p.kind is p.POSITIONAL_ONLY and p.default is p.empty
    ]
    return problems


def _defined_at(source: Source, factory: ModelFactory) -> str:
    """Return where the signature of `factory` stands, as exactly as can be known."""
    function: Callable[..., object] = factory
    if isinstance(factory, type):
        function = factory.__init__  # type: ignore[misc]  # only its place is asked for
    code = getattr(inspect.unwrap(function), "__code__", None)
    if isinstance(code, types.CodeType):
        if code.co_filename == source.filename:
            return source.place(code.co_firstlineno)
        if _is_beside(source, code.co_filename):
            return f"{_shown(source, code.co_filename)}, line {code.co_firstlineno}"
    return str(source.path)


# --- Notebooks: from cells to the statements that a class needs ----------------------------------

# Cell magics whose cell is still Python of the notebook itself. All others hand the cell to
# another language, another process or a file.
PYTHON_CELL_MAGICS = {"time", "timeit", "capture", "prun", "memit", "matplotlib", "wandb"}

# What IPython defines in every notebook. Here they show nothing.
PRELUDE = "def display(*shown, **options): pass\n\ndef get_ipython(): pass"

MAGIC_LINE = re.compile(r"\s*[%!?]|.*\?\s*$|[\w., \t]+=\s*[%!]")

# Names that every module has, or that Python provides inside a class.
ALWAYS_THERE = {*dir(builtins), "__name__", "__file__", "__doc__", "__class__", "__builtins__"}


@dataclass(frozen=True, slots=True)
class BrokenCell:
    """A cell that is not Python. It matters only when the class needs it."""

    number: int
    text: str
    error: SyntaxError

    def may_define(self, name: str) -> bool:
        word = re.escape(name)
        pattern = rf"^\s*(?:(?:class|def)\s+{word}\b|{word}\s*=|(?:from|import)\b.*\b{word}\b)"
        return re.search(pattern, self.text, re.MULTILINE) is not None

    def problem(self, path: Path) -> str:
        line = self.error.lineno or 1
        lines = self.text.split("\n")
        text = lines[line - 1] if line <= len(lines) else ""
        return _syntax_problem(f"{path}, cell {self.number}, line {line}", self.error, text)


@dataclass(frozen=True, slots=True)
class _Notebook:
    """The Python of a notebook, top to bottom, and the cells that could not be read as such."""

    path: Path
    statements: list[Statement]
    broken: list[BrokenCell]

    @classmethod
    def read(cls, path: Path) -> _Notebook:
        statements = _statements_of(PRELUDE, 0, _parse_quietly(PRELUDE))
        broken = []
        parsed = []
        for number, text in _code_cells(path):
            text = _without_magics(text)
            try:
                parsed.append((text, number, _parse_quietly(text)))
            except SyntaxError as error:
                broken.append(BrokenCell(number, text, error))
        # A future import holds for every cell after it; here for all, as nobody means less.
        lazy = any(_is_lazy_annotations(node) for _, _, tree in parsed for node in tree.body)
        for text, number, tree in parsed:
            statements += _statements_of(text, number, tree, lazy)
        return cls(path, statements, broken)


def _read_notebook(path: Path, name: str) -> Source:
    """Return the statements of a notebook that the class needs, as one piece of code."""
    notebook = _Notebook.read(path)
    needed = _Needs(notebook, name).in_order()
    lines = [f"# From {path.name}: what {name} needs.", ""]
    origins = [(0, 0), (0, 0)]
    cell = 0
    # `from __future__` must be the first statement, and changes how all others are read.
    futures = [s for s in notebook.statements if s.dotted.startswith("__future__.")]
    for statement in [*futures, *(s for s in needed if s not in futures)]:
        if statement.cell != cell:
            cell = statement.cell
            lines += ["", f"# cell {cell}"] if cell else [""]
            origins += [(cell, 0)] * (len(lines) - len(origins))
        for offset, line in enumerate(statement.text.split("\n")):
            lines.append(line)
            origins.append((cell, min(statement.line + offset, statement.last_line)))
    return Source(path, name, "\n".join([*lines, ""]), (*origins, origins[-1]))


def _code_cells(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each code cell, of notebook formats 3 and 4."""
    raw = _read_bytes(path)
    try:
        notebook = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        _refuse_encoding(path, raw, error)
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
            _parse_quietly("\n".join(lines))
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
                found.append(_scan(one, ast.unparse(one), cell, lazy_annotations))
            continue
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        rows = lines[first - 1 : node.end_lineno]
        # Cut off what else stands in its lines; the parser counts columns in bytes of UTF-8.
        rows[-1] = rows[-1].encode()[: node.end_col_offset].decode()
        start = node.lineno - first
        rows[start] = rows[start].encode()[node.col_offset :].decode()
        found.append(_scan(node, "\n".join(rows), cell, lazy_annotations, first))
    return found


class _Needs:
    """Which statements a class needs, and in which order they can run.

    A name read when its statement runs (a base class, a default, an assignment's right side)
    means the latest definition above. A name read later, inside a function, means the latest
    definition above the statement on whose behalf the function is called. Where there is none
    above, the notebook was run out of order: the nearest below is taken, and moved up.
    """

    def __init__(self, notebook: _Notebook, name: str):
        self.path = notebook.path
        self.name = name
        self.statements = notebook.statements
        self.broken = notebook.broken
        self.now: dict[int, set[int]] = {}  # statement -> those that must have run before it
        self.later: dict[int, set[int]] = {}  # statement -> those that its functions need
        self.problems: list[str] = []
        self._givers: dict[str, list[int]] = {}
        for index, statement in enumerate(self.statements):
            for given in statement.gives:
                self._givers.setdefault(given, []).append(index)
        self._stars = [i for i, statement in enumerate(self.statements) if statement.stars]
        root = self._root()
        changes = self._changes_after(root)
        end = max([root, *changes]) + 1  # the class is called after all that makes it
        self._follow([(index, end) for index in [root, *changes]])
        if self.problems:
            raise SourceError(list(dict.fromkeys(self.problems)))

    def in_order(self) -> list[Statement]:
        """Return the needed statements top to bottom, except where one needs a later one."""
        waiting = sorted(self.now)
        if all(j < i for i in waiting for j in self.now[i] | self.later[i]):
            return [self.statements[i] for i in waiting]  # as nearly always
        ordered = []
        while waiting:
            blocked = set(waiting)
            free = (i for i in waiting if self._before(i).isdisjoint(blocked - {i}))
            index = next(free, waiting[0])  # in a circle: top to bottom, and Python will say
            waiting.remove(index)
            ordered.append(self.statements[index])
        return ordered

    def _before(self, index: int) -> set[int]:
        """Return all that must have run before a statement can: what it reads and calls."""
        found: set[int] = set()
        waiting = set(self.now[index])
        while waiting:
            found |= waiting
            waiting = {j for i in waiting for j in self.now[i] | self.later[i]} - found
        return found

    def _root(self) -> int:
        """Return the last definition of the class, or else the last statement that binds it."""
        defining = [i for i, s in enumerate(self.statements) if self.name in s.defines]
        binding = [i for i, s in enumerate(self.statements) if self.name in s.binds]
        root = (defining or binding or [-1])[-1]
        cell = self.statements[root].cell if root >= 0 else 0
        for broken in self.broken:
            if broken.number > cell and re.search(
                rf"^\s*(?:class|def)\s+{self.name}\b", broken.text, re.MULTILINE
            ):
                raise SourceError(broken.problem(self.path))
        if root < 0:
            _refuse_unknown_name(self.path, self.name, self._without_stars())
        return root

    def _without_stars(self) -> list[Statement]:
        return [s for s in self.statements if not s.stars and s.cell]

    def _changes_after(self, root: int) -> list[int]:
        """Return what is done to the class below its definition, like `Net.forward = forward`."""
        found = []
        for index in range(root + 1, len(self.statements)):
            if self.name in self.statements[index].binds:
                break
            if self.name in self.statements[index].changes:
                found.append(index)
        return found

    def _follow(self, waiting: list[tuple[int, int]]) -> None:
        """Need statements, each called at a place in the notebook, and all that those need."""
        seen = set()
        while waiting:
            index, called_at = waiting.pop()
            if (index, called_at) in seen:
                continue
            seen.add((index, called_at))
            now = self.now.setdefault(index, set())
            later = self.later.setdefault(index, set())
            for read in self.statements[index].reads:
                if read.later and read.root in self.statements[index].binds:
                    continue  # a function that calls itself, a class that names itself in super()
                before = called_at if read.later else index
                found = self._resolve(read, before, index)
                (later if read.later else now).update(found)
                waiting += [(other, before) for other in found]

    def _resolve(self, read: Read, before: int, reader: int) -> set[int]:
        """Return the statements that give a name its value, before a place in the notebook."""
        name = read.root
        givers = [i for i in self._givers.get(name, []) if i != reader]
        above = [i for i in givers if i < before]
        below = [i for i in givers if i >= before and name in self.statements[i].binds]
        sure = [i for i in above if self.statements[i].binds.get(name, True)]
        bound = [i for i in sure if name in self.statements[i].binds]
        if bound and self.statements[bound[-1]].is_import:
            # Settings such as `torch.backends.cudnn.benchmark = True` are no part of a model.
            return self._imports(read, [i for i in bound if self.statements[i].is_import])
        if bound:
            return {sure[-1]}  # the binding, or the latest change to what it bound
        if name in ALWAYS_THERE:
            return set()
        if above:
            return {above[-1]}  # bound in a loop only
        known, unknown = self._star_imports(name)
        if known or below:
            return {known[-1]} if known else {below[0]}
        if not unknown and not any(name in statement.sets for statement in self.statements):
            self._refuse(read, reader)
        return set(unknown)

    def _imports(self, read: Read, imports: list[int]) -> set[int]:
        """Return the imports that a dotted name needs.

        `import torch` and `import torch.utils.tensorboard` both bind `torch`; the second is
        needed only by those who say `torch.utils.tensorboard`.
        """
        latest = {self.statements[i].dotted: i for i in imports}
        asked = {i for dotted, i in latest.items() if f"{read.dotted}.".startswith(f"{dotted}.")}
        return asked or {imports[-1]}

    def _star_imports(self, name: str) -> tuple[list[int], list[int]]:
        """Return the star imports that bring a name, and those of which that is not known yet."""
        known, unknown = [], []
        for index in self._stars:
            for module in self.statements[index].stars:
                if module not in sys.modules:
                    unknown.append(index)
                elif _star_has(module, name):
                    known.append(index)
        return known, unknown

    def _refuse(self, read: Read, reader: int) -> None:
        statement = self.statements[reader]
        names = {name for s in self.statements for name in s.binds}
        problem = (
            f"{self.path}, cell {statement.cell}, line {read.line}: {self.name} needs "
            f"{read.root!r}, and no cell defines it.{did_you_mean(read.root, names)}"
        )
        for cell in self.broken:
            if cell.may_define(read.root):
                problem += f" A cell that may is not Python: {cell.problem(self.path)}"
        self.problems.append(problem)


def _star_has(module: str, name: str) -> bool:
    """Return whether a module that is already imported gives `name` to a star import."""
    loaded = sys.modules[module]
    public = getattr(loaded, "__all__", None)
    return hasattr(loaded, name) if public is None else name in public


# --- Names: what one statement binds, changes and reads ------------------------------------------

# Methods by which a list, set or dictionary is filled, statement after statement.
FILLING = {"add", "append", "clear", "extend", "insert", "pop", "remove", "setdefault", "update"}


@dataclass(frozen=True, slots=True)
class Read:
    """A name that a statement takes from outside itself, with the attributes asked of it."""

    dotted: str  # `torch.nn.Module`
    line: int  # in its cell
    later: bool  # inside a function: not when the statement runs, but when it is called

    @property
    def root(self) -> str:
        return self.dotted.partition(".")[0]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One statement at the top level of a file or cell, and its dealings with names."""

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


def _scan(
    node: ast.stmt,
    text: str = "",
    cell: int = 0,
    lazy_annotations: bool = False,
    first_line: int | None = None,
) -> Statement:
    names = _Names(lazy_annotations or sys.version_info >= (3, 14))
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


@dataclass(slots=True)
class _Scope:
    kind: str  # "function", "class", or "block" (comprehension, type parameters)
    names: set[str]


class _Names(ast.NodeVisitor):
    """Follows Python's scoping rules through one statement.

    A function's names are local throughout its body; a class body's only from where they are
    bound, and never inside its methods; a comprehension's only inside it.
    """

    def __init__(self, lazy_annotations: bool):
        self.binds: dict[str, bool] = {}
        self.changes: set[str] = set()
        self.sets: set[str] = set()
        self.defines: list[str] = []
        self.classes: list[str] = []
        self.reads: list[Read] = []
        self.stars: list[str] = []
        self._lazy_annotations = lazy_annotations
        self._scopes: list[_Scope] = []
        self._loops = 0

    def _bind(self, name: str) -> None:
        for scope in reversed(self._scopes):
            if scope.kind == "class":
                scope.names.add(name)
            if scope.kind != "block":
                return  # a function's local names are known from its start
        self.binds[name] = self.binds.get(name, False) or not self._loops

    def _read(self, dotted: str, node: ast.expr) -> None:
        name = dotted.partition(".")[0]
        for depth, scope in enumerate(reversed(self._scopes)):
            if name in scope.names and (scope.kind != "class" or depth == 0):
                return
        later = any(scope.kind == "function" for scope in self._scopes)
        if later or name not in self.binds:
            self.reads.append(Read(dotted, node.lineno, later))

    def _change(self, target: ast.expr) -> None:
        """Note that the object behind `name.a[0].b` is altered, when done at the top level."""
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
        at_top = all(scope.kind == "block" for scope in self._scopes)
        if isinstance(target, ast.Name) and at_top:
            self.changes.add(target.id)

    def _all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def _inside(self, kind: str, names: Iterable[str], nodes: Iterable[ast.AST | None]) -> None:
        self._scopes.append(_Scope(kind, set(names)))
        self._all(nodes)
        self._scopes.pop()

    # Names and what hangs on them

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id)
        elif isinstance(node.ctx, ast.Load):
            self._read(node.id, node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts = [node.attr]
        value = node.value
        while isinstance(value, ast.Attribute):
            parts.append(value.attr)
            value = value.value
        if isinstance(value, ast.Name):
            self._read(".".join([value.id, *reversed(parts)]), value)
        else:
            self.visit(node.value)
        if isinstance(node.ctx, ast.Store):
            self._change(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Store):
            self._change(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr in FILLING:
            self._change(node.func)

    # Bindings: the value is read before the name is bound

    def visit_Assign(self, node: ast.Assign) -> None:
        self._all([node.value, *node.targets])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        in_function = bool(self._scopes) and self._scopes[-1].kind == "function"
        if not (self._lazy_annotations or in_function):
            self.visit(node.annotation)
        if node.value is not None:
            self._all([node.value, node.target])

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self._read(node.target.id, node.target)
            if self._scopes:
                self._bind(node.target.id)
        else:
            self.visit(node.target)
        self._change(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._all([node.value, node.target])

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self._loops += 1
        self._all([node.target, *node.body, *node.orelse])
        self._loops -= 1

    visit_AsyncFor = visit_For

    def visit_While(self, node: ast.While) -> None:
        self._loops += 1
        self.generic_visit(node)
        self._loops -= 1

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._bind(alias.asname or alias.name.partition(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.stars.append("." * node.level + (node.module or ""))
            else:
                self._bind(alias.asname or alias.name)

    def visit_Global(self, node: ast.Global) -> None:
        self.sets.update(node.names)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._bind(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self._bind(node.name)
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self._bind(node.rest)
        self.generic_visit(node)

    # Scopes

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._all(node.decorator_list)
        if not self._scopes:
            self.defines.append(node.name)
        self._bind(node.name)
        arguments = node.args
        self._all([*arguments.defaults, *arguments.kw_defaults])
        type_names = _type_parameters(node)
        if not self._lazy_annotations:
            annotations = [a.annotation for a in _every_argument(arguments)]
            self._inside("block", type_names, [*annotations, node.returns])
        local = {a.arg for a in _every_argument(arguments)} | _bound_in(node.body)
        self._inside("function", local | type_names, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._all([*node.args.defaults, *node.args.kw_defaults])
        local = {a.arg for a in _every_argument(node.args)} | _bound_in([node.body])
        self._inside("function", local, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._all(node.decorator_list)
        self._scopes.append(_Scope("block", _type_parameters(node)))
        self._all([*node.bases, *node.keywords])
        self._inside("class", (), node.body)
        self._scopes.pop()
        if not self._scopes:
            self.defines.append(node.name)
            self.classes.append(node.name)
        self._bind(node.name)

    def visit_TypeAlias(self, node: ast.AST) -> None:  # from Python 3.12; its value is lazy
        alias = getattr(node, "name", None)
        if isinstance(alias, ast.Name):
            self._bind(alias.id)

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
    ) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        targets = {
            name.id
            for generator in node.generators
            for name in ast.walk(generator.target)
            if isinstance(name, ast.Name)
        }
        values = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        inner = [*first.ifs, *(part for g in others for part in (g.iter, *g.ifs)), *values]
        self._inside("block", targets, inner)

    visit_ListComp = _comprehension
    visit_SetComp = _comprehension
    visit_DictComp = _comprehension
    visit_GeneratorExp = _comprehension


def _every_argument(arguments: ast.arguments) -> list[ast.arg]:
    starred = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]


def _type_parameters(node: ast.AST) -> set[str]:
    """Return `T` of `class Net[T]` and `def f[T]`, from Python 3.12 on."""
    return {parameter.name for parameter in getattr(node, "type_params", [])}


def _bound_in(body: Sequence[ast.AST]) -> set[str]:
    """Return the names that a function's body makes local, less those it declares global."""
    names = _Bound()
    for node in body:
        names.visit(node)
    return names.local - names.declared_global


class _Bound(ast.NodeVisitor):
    """Collects the names bound in one function body, not those of the scopes inside it."""

    def __init__(self) -> None:
        self.local: set[str] = set()
        self.declared_global: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.local.add(node.id)

    def visit_Global(self, node: ast.Global) -> None:
        self.declared_global.update(node.names)

    def visit_alias(self, node: ast.alias) -> None:
        self.local.add(node.asname or node.name.partition(".")[0])

    def _named(self, node: ast.AST) -> None:
        name = getattr(node, "name", None) or getattr(node, "rest", None)
        if isinstance(name, str):
            self.local.add(name)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.generic_visit(node)

    visit_FunctionDef = _named
    visit_AsyncFunctionDef = _named
    visit_ClassDef = _named
    visit_ExceptHandler = _named
    visit_MatchAs = _named
    visit_MatchStar = _named
    visit_MatchMapping = _named

    def visit_Lambda(self, node: ast.Lambda) -> None:
        pass

    def _only_walrus(self, node: ast.AST) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                self.local.add(inner.target.id)

    visit_ListComp = _only_walrus
    visit_SetComp = _only_walrus
    visit_DictComp = _only_walrus
    visit_GeneratorExp = _only_walrus
