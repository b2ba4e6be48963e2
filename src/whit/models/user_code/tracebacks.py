"""A failure of the user's code in words: where in their own files, what happened, what to do."""

from __future__ import annotations

import linecache
import traceback
from pathlib import Path

from whit.models.user_code.pyfile import said, syntax_problem
from whit.models.user_code.sibling_imports import is_neighbour
from whit.models.user_code.source import Source


def failure(source: Source, doing: str, error: BaseException) -> str:
    """Return one sentence: where in the user's own code, what happened, what to do."""
    place, line = _deepest_own_line(source, error)
    at = f" at `{line}`" if line else ""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return syntax_problem(f"{_shown(source, error.filename)}, line {error.lineno}", error)
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
    return f"{place}: {doing} raised {said(error)}{at}."


def _deepest_own_line(source: Source, error: BaseException) -> tuple[str, str]:
    """Return the place and the text of the innermost line of the user's code in a traceback."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        filename = frame.f_code.co_filename
        if place := own_place(source, filename, line):
            # What ran is source.text; the file on disk may have changed since.
            own = filename == source.filename
            text = source.line_text(line) if own else linecache.getline(filename, line).strip()
            return place, text
    return str(source.path), ""


def own_place(source: Source, filename: str, line: int) -> str:
    """Return where a line of the user's file or of one beside it stands; of others, nothing."""
    if filename == source.filename:
        return source.place(line)
    if is_neighbour(source.folder, Path(filename)):
        return f"{_shown(source, filename)}, line {line}"
    return ""


def _shown(source: Source, filename: str) -> str:
    """Return a file's name the way the user named their own."""
    path = Path(filename)
    if path.is_relative_to(source.folder):
        return str(source.path.parent / path.relative_to(source.folder))
    return filename
