"""The source of a run's model: the user's own file, or on request its copy in the run folder.

The copy is the file, and the modules beside it that it imports; a notebook is kept as the text of
what was executed of it. Its description, in environment.json, has `file` (the name of the file),
`class`, `is_notebook`, `run_whole_file`, `package` and `modules` (dotted name -> file in the run
folder). It and the files are untrusted input.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whit.errors import InputError, SourceError
from whit.models.user_code import Source, read_source
from whit.models.user_code.loader import slice_file
from whit.models.user_code.neighbours import NeighbourFinder
from whit.models.user_code.reading.python_file import PythonFile
from whit.models.user_code.reading.source import Neighbour
from whit.recipes.model_ref import (
    COPY_FILE,
    COPY_FOLDER,
    MAX_COPY_MODULES,
    is_model_path,
    reject_code_in_run,
)
from whit.recipes.recipe_tables import ModelSpec
from whit.system.untrusted_files import read_untrusted

_DESCRIPTION = "model_source"  # its key in environment.json
_MAX_BYTES = 5_000_000  # of one file


def read_model_source(spec: ModelSpec) -> Source | None:
    """Return the code of a user's model, None for other models. Raises SourceError."""
    if not is_model_path(spec.name):
        return None
    return read_source(spec.name, run_whole_file=bool(spec.run_whole_file))


def find_run_source(
    run: Path, spec: ModelSpec, environment: Mapping[str, Any], *, trust_copy: bool = False
) -> Source | None:
    """Return the code with which to build the network of a run; None if it is not a user's.

    It is that of the file that the recipe names. With `trust_copy` the copy in the run folder takes
    its place, if the file is missing or has changed since the run. Raises SourceError: the file
    cannot be read, and no copy may be executed.
    """
    reject_code_in_run(spec.name, run)
    recorded = environment.get("model_sha256")
    try:
        source = read_model_source(spec)
    except SourceError as error:
        if not has_copy(run, environment):
            raise
        if not trust_copy:
            raise SourceError([*error.problems, explain_copy(run)]) from error
        return read_copy(run, environment)
    is_same = source is None or recorded in (None, source.sha256)
    if is_same or not trust_copy or not has_copy(run, environment):
        return source
    return read_copy(run, environment)


def has_copy(run: Path, environment: Mapping[str, Any]) -> bool:
    """Return whether the folder of a run has a copy of the source of its model."""
    return isinstance(environment.get(_DESCRIPTION), dict) and (run / COPY_FILE).is_file()


def explain_copy(run: Path) -> str:
    """Return a sentence about the copy, and how it is executed."""
    return (
        f"A copy of the source that was trained is in {run / COPY_FILE}. It is executed only on "
        "request: read it, then add --trust-model-files (in Python: trust_model_files=True)."
    )


def explain_misfit(
    error: InputError, run: Path, environment: Mapping[str, Any], source: Source | None
) -> InputError:
    """Return the error of weights that do not fit, with its cause if the source has changed."""
    recorded = environment.get("model_sha256")
    if source is None or recorded in (None, source.sha256):
        return error
    problem = (
        f"{source.target} has changed since the run, and the weights do not fit it any more "
        f"({error.problems[0].rstrip('.')})."
    )
    return InputError([problem, *([explain_copy(run)] if has_copy(run, environment) else [])])


def copy_files(source: Source) -> dict[str, bytes]:
    """Return the files of the copy, by their path in the run folder."""
    return {COPY_FILE: source.content} | {_module_file(n): n.content for n in source.neighbours}


def describe_copy(source: Source) -> dict[str, Any]:
    """Return the entry of environment.json that is needed, besides the files, to load the copy."""
    return {
        _DESCRIPTION: {
            "file": source.path.name,
            "class": source.name,
            "is_notebook": bool(source.origins),
            "run_whole_file": source.run_whole_file,
            "package": source.package,
            "modules": {n.module: _module_file(n) for n in source.neighbours},
        }
    }


def read_copy(run: Path, environment: Mapping[str, Any]) -> Source:
    """Return the code of the copy in a run folder. Runs none of it.

    Raises SourceError: the copy or its description is damaged.
    """
    description = environment.get(_DESCRIPTION)
    values = description if isinstance(description, dict) else {}
    name, package, modules = (values.get(key) for key in ("class", "package", "modules"))
    if (
        not (isinstance(name, str) and isinstance(package, str) and isinstance(modules, dict))
        or not name.isidentifier()
        or len(modules) > MAX_COPY_MODULES
    ):
        raise SourceError(f"{run}: the description of the copy of its model is damaged.")
    files = {}
    for module, file in modules.items():
        stem = "/".join([COPY_FOLDER, *module.split(".")])
        is_package = file == f"{stem}/__init__.py"
        is_name = all(part.isidentifier() for part in module.split("."))
        if not is_name or not (is_package or file == f"{stem}.py"):
            raise SourceError(f"{run}: {module!r} is not a module of the copy of its model.")
        files[module] = PythonFile.decode(run / file, _read(run / file), is_package)
    finder = NeighbourFinder(run, package=package, known=files)
    path, run_whole_file = run / COPY_FILE, values.get("run_whole_file") is True
    content = _read(path)
    if values.get("is_notebook") is not True:
        file = PythonFile.decode(path, content)
        return slice_file(file, name, finder, run_whole_file, is_copy=True)
    text = content.decode("utf-8", "replace")
    neighbours = finder.collect(text, whole=run_whole_file, requested=name)
    return Source(
        path,
        name,
        text,
        content=content,
        neighbours=neighbours,
        run_whole_file=run_whole_file,
        is_copy=True,
    )


def _module_file(neighbour: Neighbour) -> str:
    path = neighbour.module.replace(".", "/")
    return f"{COPY_FOLDER}/{path}{'/__init__.py' if neighbour.is_package else '.py'}"


def _read(path: Path) -> bytes:
    try:
        content = read_untrusted(path, _MAX_BYTES + 1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from error
    if content is None or len(content) > _MAX_BYTES:
        raise SourceError(f"{path}: not a regular file of at most {_MAX_BYTES:,} bytes.")
    return content
