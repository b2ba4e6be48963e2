"""Load a user's model, named as `path/file.py:Class` or `path/notebook.ipynb:Class`.

    target --read_source--> Source (the code, as text) --load_model_class--> class --> nn.Module
              │                                          │
              source, notebook, slicing, scopes          sibling_imports, tracebacks, factory

A user's file is code that they chose to run, and it runs with all their rights. A target names a
file, never a module on the path. A `.py` file is executed completely, as a module that is not
`__main__`; of a notebook only the statements that the class depends on, so that downloads, training
loops and magics do not run. `Source.text` is exactly what is executed.

Invalid targets and errors in the user's code raise `SourceError` with the user's own file and
line. KeyboardInterrupt passes through.
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
from whit.models.user_code import factory
from whit.models.user_code.notebook import Notebook
from whit.models.user_code.scopes import analyze_statement, list_classes, unknown_name_error
from whit.models.user_code.sibling_imports import sibling_imports
from whit.models.user_code.slicing import slice_notebook
from whit.models.user_code.source import Source, describe_syntax_error, parse, read_python
from whit.models.user_code.tracebacks import describe_failure
from whit.recipes.model_ref import SUFFIXES, is_model_path
from whit.system.user_lines import LOCATE


def read_source(target: str) -> Source:
    """Return the code that `target` names; runs none of it.

    Raises SourceError: no such file, not readable, not UTF-8, no class named, a syntax error, no
    such class, or (in a notebook) a name that the class uses but no cell defines.
    """
    path, name = _parse_target(target)
    try:
        if path.suffix.lower() == ".ipynb":
            return Source(path, name, *slice_notebook(Notebook.read(path), name))
        text = read_python(path)
        statements = [analyze_statement(node) for node in parse(text, path).body]
        # The names that a star import binds are known only once it has run.
        if not any(name in statement.binds or statement.stars for statement in statements):
            raise unknown_name_error(path, name, statements)
        return Source(path, name, text)
    except RecursionError as error:
        raise SourceError(f"{path}: its code is nested too deeply.") from error


def user_model_sha256(name: str) -> str | None:
    """Return the SHA-256 of a user's code, None for other models. Raises as `read_source`."""
    return read_source(name).sha256 if is_model_path(name) else None


def _parse_target(target: str) -> tuple[Path, str]:
    path_text, name = target, ""
    if not target.lower().endswith(SUFFIXES):
        path_text, _, name = target.rpartition(":")
    path = Path(os.path.expanduser(path_text))
    if not path_text:
        raise SourceError(f"{target!r} is not of the form 'path/file.py:Class'.")
    problems = []
    if not os.path.isfile(path):
        problems.append(_describe_missing_file(path))
    elif path.suffix.lower() not in SUFFIXES:
        problems.append(
            f"{path}: the file of a model must end in .py or .ipynb, not in {path.suffix!r}."
        )
    if not name:
        classes = "" if problems else _list_classes_in(path)
        problems.append(f"{path} names a file without a class: write '{path}:Class'.{classes}")
    elif not name.isidentifier():
        problems.append(f"{target}: {name!r} is not the name of a class at the top of the file.")
    if problems:
        raise SourceError(problems)
    return path, name


def _describe_missing_file(path: Path) -> str:
    if os.path.isdir(path):
        return f"{path} is a folder, not a file."
    try:
        if os.path.exists(path):
            return f"{path} is not a regular file."
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix in SUFFIXES]
    except (OSError, ValueError):  # no such folder, or an invalid file name
        names = []
    return f"{path}: no such file.{did_you_mean(path.name, names)}"


def _list_classes_in(path: Path) -> str:
    """Return a sentence with the classes in a file, or an empty string where it cannot be read."""
    try:
        if path.suffix.lower() == ".ipynb":
            return list_classes(Notebook.read(path).statements)
        tree = parse(read_python(path), path)
        return list_classes(analyze_statement(node) for node in tree.body)
    except (SourceError, RecursionError):
        return ""


def load_model_class(target: str | Source) -> factory.ModelFactory:
    """Run the code that `target` names and return its class or function.

    The code runs as a module with a private name, which stays in `sys.modules` so that `inspect`,
    dataclasses and torch find it. torch's global generator is restored: a `torch.manual_seed(1)`
    in a user's file must not make all seeds the same.

    Raises SourceError: as `read_source`, or the code fails, exits, or defines no such class.
    """
    source = target if isinstance(target, Source) else read_source(target)
    digest = hashlib.sha256(f"{source.filename}\n{source.text}".encode()).hexdigest()[:16]
    module = types.ModuleType(f"_whit_user_{digest}")
    module.__file__ = source.filename
    module.__dict__[LOCATE] = source.format_location
    module.__package__ = ""  # so that a relative import fails with Python's clear message
    # For tracebacks and inspect.getsource: a file may change, and notebook cells are in none.
    lines = [f"{line}\n" for line in source.text.split("\n")]
    linecache.cache[source.filename] = (len(source.text), None, lines, source.filename)
    code = _compile(source)
    previous = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        with run_user_code(source, "it"), torch.random.fork_rng(devices=[]), _default_to_cpu():
            exec(code, module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        if previous is not None:
            sys.modules[module.__name__] = previous
        raise
    return factory.find_factory(module, source)


def _compile(source: Source) -> types.CodeType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(source.text, source.filename, "exec", dont_inherit=True)
    except RecursionError as error:
        raise SourceError(f"{source.path}: an expression is nested too deeply.") from error
    except SyntaxError as error:  # found by the compiler only, like `return` outside a function
        line = error.lineno or 1
        text = linecache.getline(source.filename, line)
        problem = describe_syntax_error(source.format_location(line), error, text)
        raise SourceError(problem) from error


def build_user_model(target: str | Source, arguments: Mapping[str, object]) -> nn.Module:
    """Return the model that `target` names, built with the keywords of a recipe's [model] table.

    Weights are drawn from torch's global generator: seed it before.

    Raises SourceError: as `load_model_class`, or the keywords do not fit (all of them at once),
    the constructor fails, or what it returns is not a module.
    """
    source = target if isinstance(target, Source) else read_source(target)
    model_class = load_model_class(source)
    problems = factory.find_argument_problems(source, model_class, arguments)
    if problems:
        raise SourceError(problems)
    with run_user_code(source, f"building {source.name}"):
        model: object = model_class(**arguments)
    if not isinstance(model, nn.Module):
        raise SourceError(
            f"{factory.definition_site(source, model_class)}: {source.name} returned a "
            f"{type(model).__name__!r}, not a torch.nn.Module."
        )
    return model


@contextlib.contextmanager
def run_user_code(source: Source, action: str) -> Iterator[None]:
    """Run user code inside: its siblings are importable, its failures become SourceError.

    Prints go to standard error, as standard output may carry JSON. `sys.argv` holds only the
    file's name, as when it is run without arguments.
    """
    argv, dont_write_bytecode = sys.argv, sys.dont_write_bytecode
    sys.argv, sys.dont_write_bytecode = [str(source.path)], True  # write no __pycache__
    try:
        with sibling_imports(source.folder), contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        raise SourceError(describe_failure(source, action, error)) from error
    finally:
        sys.argv, sys.dont_write_bytecode = argv, dont_write_bytecode


def _default_to_cpu() -> contextlib.AbstractContextManager[object]:
    """Make constants in a user's file real tensors, even where models are built on "meta"."""
    on_meta = torch.get_default_device().type == "meta"
    return torch.device("cpu") if on_meta else contextlib.nullcontext()
