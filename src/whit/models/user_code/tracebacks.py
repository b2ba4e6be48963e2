"""Exceptions in a user's code as one sentence: the user's own file and line, and what failed."""

from __future__ import annotations

import linecache
import re
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path

from whit.models.user_code.reading.source import (
    Source,
    describe_syntax_error,
    format_origin,
    summarize_exception,
)
from whit.models.user_code.stand_ins import find_missing_package


def describe_failure(source: Source, action: str, error: BaseException) -> str:
    """Return one sentence: where in the user's code, what happened, and how to fix it."""
    location, line = _find_innermost_user_line(source, error)
    at, shown = (f" at `{line}`", f": `{line}`") if line else ("", "")
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        path = _display_path(source, error.filename)
        return describe_syntax_error(f"{path}, line {error.lineno}", error)
    if missing := find_missing_package(error):
        advice = "Install it, or remove it from the network."
        return f"{location}: {action} {missing.sentence}{shown}. {advice}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"{location}: {action} needs {error.name!r}, which is neither installed nor beside the "
            f"file{shown}. Install it, or remove it from the network."
        )
    if isinstance(error, ImportError) and "relative import" in str(error):
        return (
            f"{location}: a relative import{at} of more levels than there are folders: write "
            "`from blocks import Block` for a file `blocks.py` in the same folder."
        )
    if isinstance(error, SystemExit):
        advice = 'Put code that is not part of the model under `if __name__ == "__main__":`.'
        if "parse_" in line:
            advice = "The file runs without command line arguments: give these options defaults."
        return f"{location}: {action} ended the program with exit code {error.code!r}{at}. {advice}"
    hint = ""
    if isinstance(error, NameError) and error.name and (module := _find_missing_star(source)):
        return (
            f"{location}: {action} needs {error.name!r}{shown}. It may come from {module!r}, which "
            "is neither installed nor beside the file."
        )
    if isinstance(error, NameError | KeyError | AttributeError) and is_slice(source):
        hint = (
            " Only what the class depends on was executed: if that is too little, add "
            "--run-whole-file."
        )
    return f"{location}: {action} raised {summarize_exception(error)}{at}.{hint}"


def _find_innermost_user_line(source: Source, error: BaseException) -> tuple[str, str]:
    """Return the location and the text of that line of the traceback, or the path and ""."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        filename = frame.f_code.co_filename
        if location := user_location(source, filename, line):
            return location, linecache.getline(filename, line).strip()
    return str(source.path), ""


def _find_missing_star(source: Source) -> str | None:
    """Return a module of `from module import *` that is missing, if there is one."""
    beside = {neighbour.module for neighbour in source.neighbours}
    for module in re.findall(r"^\s*from\s+([\w.]+)\s+import\s+\*", source.text, re.MULTILINE):
        top: str = module.partition(".")[0]
        if module not in beside and top not in sys.modules and find_spec(top) is None:
            return str(module)
    return None


def user_location(source: Source, filename: str, line: int) -> str:
    """Return the location of a line in the user's file or a neighbour of it; "" for other files."""
    if filename == source.filename:
        return source.format_location(line)
    for neighbour in source.neighbours:
        if filename == neighbour.filename:
            path = Path(_display_path(source, filename))
            return format_origin(path, neighbour.origins, line)
    path = Path(filename)
    is_installed = not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    if path.is_relative_to(source.folder) and not is_installed:
        return f"{_display_path(source, filename)}, line {line}"
    return ""


def is_slice(source: Source) -> bool:
    """Whether statements of the file were left out."""
    if source.run_whole_file or source.origins or not source.content:
        return False
    return source.text.encode().strip() != source.content.strip()


def _display_path(source: Source, filename: str) -> str:
    """Return the path of a file, relative where the user gave their own as a relative path."""
    path = Path(filename)
    if path.is_relative_to(source.folder):
        return str(source.path.parent / path.relative_to(source.folder))
    return filename
