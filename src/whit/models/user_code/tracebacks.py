"""Exceptions in a user's code as one sentence: the user's own file and line, and what failed."""

from __future__ import annotations

import linecache
import traceback
from pathlib import Path

from whit.models.user_code.sibling_imports import is_sibling
from whit.models.user_code.source import Source, describe_syntax_error, summarize_exception


def describe_failure(source: Source, action: str, error: BaseException) -> str:
    """Return one sentence: where in the user's code, what happened, and how to fix it."""
    location, line = _find_innermost_user_line(source, error)
    at = f" at `{line}`" if line else ""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        path = _display_path(source, error.filename)
        return describe_syntax_error(f"{path}, line {error.lineno}", error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"{location}: imports {error.name!r}, which is neither installed nor in the folder of "
            f"the file{at}. Install it, or remove the import if the model does not need it."
        )
    if isinstance(error, ImportError) and "relative import" in str(error):
        return (
            f"{location}: a relative import{at}, but the file is not part of a package: "
            "write `from blocks import Block` for a file `blocks.py` in the same folder."
        )
    if isinstance(error, SystemExit):
        return (
            f"{location}: {action} ended the program with exit code {error.code!r}{at}. "
            'Put code that is not part of the model under `if __name__ == "__main__":`.'
        )
    return f"{location}: {action} raised {summarize_exception(error)}{at}."


def _find_innermost_user_line(source: Source, error: BaseException) -> tuple[str, str]:
    """Return the location and the text of that line of the traceback, or the path and ""."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        filename = frame.f_code.co_filename
        if location := user_location(source, filename, line):
            return location, linecache.getline(filename, line).strip()
    return str(source.path), ""


def user_location(source: Source, filename: str, line: int) -> str:
    """Return the location of a line in the user's file or a sibling of it; "" for other files."""
    if filename == source.filename:
        return source.format_location(line)
    if is_sibling(source.folder, Path(filename)):
        return f"{_display_path(source, filename)}, line {line}"
    return ""


def _display_path(source: Source, filename: str) -> str:
    """Return the path of a file, relative where the user gave their own as a relative path."""
    path = Path(filename)
    if path.is_relative_to(source.folder):
        return str(source.path.parent / path.relative_to(source.folder))
    return filename
