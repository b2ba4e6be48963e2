"""A user's own model, named as `path/file.py:Class` or `path/notebook.ipynb:Class`.

    target --read_source--> Source (the code, as text) --load_model_class--> class --> nn.Module
              │                                          │
              pyfile, notebook, needs                    neighbours, failure, factory

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

import contextlib
import hashlib
import linecache
import os
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from whit.errors import SourceError, did_you_mean
from whit.models.user_code.factory import ModelFactory, argument_problems, defined_at, factory_in
from whit.models.user_code.notebook import Notebook
from whit.models.user_code.pyfile import parse, read_python, syntax_problem
from whit.models.user_code.sibling_imports import neighbours
from whit.models.user_code.slicing import needed_code
from whit.models.user_code.source import Source
from whit.models.user_code.statement import Statement, classes_sentence, scan, unknown_name
from whit.models.user_code.tracebacks import failure

__all__ = [
    "ModelFactory",
    "Source",
    "build_user_model",
    "executing",
    "is_source",
    "load_model_class",
    "own_sha256",
    "read_source",
    "refuse_inside",
    "source_sha256",
    "source_text",
]

SUFFIXES = (".py", ".ipynb")


# --- The target and its code ---------------------------------------------------------------------


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


def refuse_inside(target: str, run: Path) -> None:
    """Raise SourceError for code that lies in a run folder: nothing that comes with a run runs.

    A user's own file elsewhere is code that they asked to run, as the run did.
    """
    if not is_source(target):
        return
    path = Path(os.path.realpath(target.rpartition(":")[0] or target))
    if path.is_relative_to(os.path.realpath(run)):
        raise SourceError(
            f"{run}: its recipe names {target}, which lies in the run folder itself; nothing that "
            "comes with a run is run. If the code is your own, keep it elsewhere and name it there."
        )


def read_source(target: str) -> Source:
    """Return the code that `target` names; runs none of it.

    Raises SourceError: no such file, not readable, not UTF-8, no class named, a syntax error, no
    such class, or (in a notebook) a name that the class needs and no cell defines.
    """
    path, name = _split(target)
    try:
        if path.suffix.lower() == ".ipynb":
            return Source(path, name, *needed_code(Notebook.read(path), name))
        text = read_python(path)
        statements = _statements(text, path)
        # What a star import brings is known only once it has run.
        if not any(name in statement.binds or statement.stars for statement in statements):
            raise unknown_name(path, name, statements)
        return Source(path, name, text)
    except RecursionError as error:
        raise SourceError(f"{path}: something in it is nested too deeply to be read.") from error


def source_text(target: str | Source) -> str:
    """Return the exact code that loading `target` executes. Raises as `read_source`."""
    return _as_source(target).text


def source_sha256(target: str | Source) -> str:
    """Return the SHA-256 of `source_text(target)`. Raises as `read_source`."""
    return _as_source(target).sha256


def own_sha256(target: str) -> str | None:
    """Return the SHA-256 of a user's own model; None for a shipped one. Raises as `read_source`."""
    return source_sha256(target) if is_source(target) else None


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
            return classes_sentence(Notebook.read(path).statements)
        return classes_sentence(_statements(read_python(path), path))
    except (SourceError, RecursionError):
        return ""


def _statements(text: str, path: Path) -> list[Statement]:
    return [scan(node) for node in parse(text, path).body]


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
    code = _compiled(source)
    if source.origins:  # no such file on disk; tracebacks and inspect.getsource read it here
        lines = source.text.splitlines(keepends=True)
        linecache.cache[source.filename] = (len(source.text), None, lines, source.filename)
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        with executing(source, "it"), torch.random.fork_rng(devices=[]), _real_tensors():
            exec(code, module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        if before is not None:
            sys.modules[module.__name__] = before
        raise
    return factory_in(module, source)


def _compiled(source: Source) -> types.CodeType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(source.text, source.filename, "exec", dont_inherit=True)
    except RecursionError as error:
        raise SourceError(f"{source.path}: an expression is nested too deeply.") from error
    except SyntaxError as error:  # found by the compiler only, like `return` outside a function
        line = error.lineno or 1
        problem = syntax_problem(source.place(line), error, source.line_text(line))
        raise SourceError(problem) from error


def build_user_model(target: str | Source, arguments: Mapping[str, object]) -> nn.Module:
    """Return the model that `target` names, built with the keywords of a recipe's [model] table.

    Weights are drawn from torch's global generator: seed it before.

    Raises SourceError: as `load_model_class`, or the keywords do not fit (all of them at once),
    the constructor fails, or what it returns is not a module.
    """
    source = _as_source(target)
    factory = load_model_class(source)
    problems = argument_problems(source, factory, arguments)
    if problems:
        raise SourceError(problems)
    with executing(source, f"building {source.name}"):
        model: object = factory(**arguments)
    if not isinstance(model, nn.Module):
        raise SourceError(
            f"{defined_at(source, factory)}: {source.name} returned a "
            f"{type(model).__name__!r}, not a torch.nn.Module."
        )
    return model


@contextlib.contextmanager
def executing(source: Source, doing: str) -> Iterator[None]:
    """Run user code inside: its neighbours importable, its failures in the user's own words.

    Standard output may carry our JSON, so prints go to standard error. The command line is
    ours, so the file sees only its own name, as when it is run without arguments.
    """
    argv, writes_no_bytecode = sys.argv, sys.dont_write_bytecode
    sys.argv, sys.dont_write_bytecode = [str(source.path)], True  # leave no __pycache__ behind
    try:
        with neighbours(source.folder), contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        raise SourceError(failure(source, doing, error)) from error
    finally:
        sys.argv, sys.dont_write_bytecode = argv, writes_no_bytecode


def _real_tensors() -> contextlib.AbstractContextManager[object]:
    """A plan builds models on the meta device; constants in the user's file are still real."""
    on_meta = torch.get_default_device().type == "meta"
    return torch.device("cpu") if on_meta else contextlib.nullcontext()
