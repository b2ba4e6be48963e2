"""Load a user's model, named as `path/file.py:Class` or `path/notebook.ipynb:Class`.

    target --read_source--> Source (the code, as text) --load_model_class--> class --> nn.Module
              │                                          │
      python_file, notebook, neighbours          user_imports, stand_ins, tracebacks, factory
        statements, scopes, slicing

A user's file is code that they chose to run, and it runs with all their rights. A target names a
file, never a module on the path. Of a file, a notebook and the files beside it that it imports,
only the statements that the class depends on are executed, so that downloads, training loops and
magics do not run; the whole file is, where the recipe says `model.run_whole_file`. Each is a module
that is not `__main__`. `Source.text` is exactly what is executed.

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
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from whit.errors import SourceError, did_you_mean
from whit.models.user_code import factory
from whit.models.user_code.neighbours import NeighbourFinder, search_paths
from whit.models.user_code.reading.discovery import find_only_model
from whit.models.user_code.reading.notebook import Notebook
from whit.models.user_code.reading.python_file import PythonFile
from whit.models.user_code.reading.slicing import DependencySlicer
from whit.models.user_code.reading.source import Source, describe_syntax_error
from whit.models.user_code.reading.statements import list_classes, unknown_name_error
from whit.models.user_code.stand_ins import MissingPackage, missing_package_of, register_file
from whit.models.user_code.tracebacks import describe_failure
from whit.models.user_code.user_imports import execute, user_imports
from whit.recipes.model_ref import SUFFIXES, USER_MODULE, is_model_path, split_model_path
from whit.system.user_lines import LOCATE


def read_source(target: str, *, run_whole_file: bool = False) -> Source:
    """Return the code that `target` names; runs none of it.

    The class may be omitted where the file has one model. Raises SourceError: no such file, not
    readable, not UTF-8, no class named although it has none or several, a syntax error, no
    such class, or (in a notebook) a name that the class uses but no cell defines.
    """
    path, name = _parse_target(target)
    try:
        if path.suffix.lower() == ".ipynb":
            return _read_notebook(path, name, run_whole_file)
        return _read_file(path, name, run_whole_file)
    except RecursionError as error:
        raise SourceError(f"{path}: its code is nested too deeply.") from error


def resolve_target(target: str, *, run_whole_file: bool = False) -> str:
    """Return `path:Class` for a target whose class may be omitted. Raises as `read_source`."""
    source = read_source(target, run_whole_file=run_whole_file)
    named = target.endswith(f":{source.name}")
    return target if named else f"{target.removesuffix(':')}:{source.name}"


def _read_file(path: Path, name: str, run_whole_file: bool) -> Source:
    file = PythonFile.read(path)
    folder = path.absolute().parent
    finder = NeighbourFinder(folder, file.written, search_paths(file.text, folder))
    finder.join_package(file.tree)
    return slice_file(file, name, finder, run_whole_file)


def slice_file(
    file: PythonFile,
    name: str,
    finder: NeighbourFinder,
    run_whole_file: bool,
    is_copy: bool = False,
) -> Source:
    """Return the code of a class in a file. Raises SourceError: the file does not define it."""
    slicer = DependencySlicer(file.statements, finder.star_names, is_notebook=False)
    if not slicer.add(name) and not slicer.add_star(name):
        raise unknown_name_error(file.path, name, file.statements)
    text = file.text if run_whole_file else file.join(slicer.sort_statements())
    neighbours = finder.collect(text, whole=run_whole_file, requested=name)
    return Source(
        file.path,
        name,
        text,
        content=file.content,
        neighbours=neighbours,
        package=finder.package,
        run_whole_file=run_whole_file,
        lines=file.origins,
        is_copy=is_copy,
    )


def _read_notebook(path: Path, name: str, run_whole_file: bool) -> Source:
    notebook = Notebook.read(path)
    folder = path.absolute().parent
    finder = NeighbourFinder(folder, notebook.written, search_paths(notebook.code, folder))
    text, origins = notebook.slice(name, finder.star_names, whole=run_whole_file)
    neighbours = finder.collect(text, whole=run_whole_file, requested=name)
    return Source(
        path,
        name,
        text,
        origins,
        content=text.encode(),
        neighbours=neighbours,
        run_whole_file=run_whole_file,
    )


def user_model_sha256(name: str, *, run_whole_file: bool = False) -> str | None:
    """Return the SHA-256 of a user's code, None for other models. Raises as `read_source`."""
    if not is_model_path(name):
        return None
    return read_source(name, run_whole_file=run_whole_file).sha256


def _parse_target(target: str) -> tuple[Path, str]:
    path_text, rest = split_model_path(target)
    name = rest.removeprefix(":")
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
    if not name and not problems:
        name = find_only_model(path)
    elif name and not name.isidentifier():
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
        return list_classes(PythonFile.read(path).statements)
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
    module = types.ModuleType(f"{USER_MODULE}{digest}")
    module.__file__ = source.filename
    module.__package__ = source.package
    module.__dict__[LOCATE] = source.format_location
    register_file(source.filename, source.format_location)
    previous = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        with run_user_code(source, "it"), torch.random.fork_rng(devices=[]):
            try:
                execute(source.text, source.filename, module)
            except SyntaxError as error:
                # Found by the compiler only, like `return` outside a function.
                if error.filename != source.filename:
                    raise
                line = error.lineno or 1
                text = linecache.getline(source.filename, line)
                problem = describe_syntax_error(source.format_location(line), error, text)
                raise SourceError(problem) from error
    except BaseException:
        del sys.modules[module.__name__]
        if previous is not None:
            sys.modules[module.__name__] = previous
        raise
    return factory.find_factory(module, source, partial(_list_classes_in, source.path))


def build_user_model(
    target: str | Source, arguments: Mapping[str, object], *, run_whole_file: bool = False
) -> nn.Module:
    """Return the model that `target` names, built with the keywords of a recipe's [model] table.

    Weights are drawn from torch's global generator: seed it before.

    Raises SourceError: as `load_model_class`, or the keywords do not fit (all of them at once),
    the constructor fails, or what it returns is not a module.
    """
    source = target
    if not isinstance(source, Source):
        source = read_source(source, run_whole_file=run_whole_file)
    model_class = load_model_class(source)
    problems = factory.find_argument_problems(source, model_class, arguments)
    if problems:
        raise SourceError(problems)
    with run_user_code(source, f"building {source.name}"):
        model: object = model_class(**arguments)
    if not isinstance(model, nn.Module):
        if package := missing_package_of(model):
            site = factory.definition_site(source, model_class)
            raise SourceError(f"{site}: {source.name} {MissingPackage(package).sentence}.")
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
        with user_imports(source), contextlib.redirect_stdout(sys.stderr):
            yield
    except SourceError:
        raise
    except (Exception, SystemExit) as error:
        raise SourceError(describe_failure(source, action, error)) from error
    finally:
        sys.argv, sys.dont_write_bytecode = argv, dont_write_bytecode
