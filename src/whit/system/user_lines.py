"""The line of a user's file at which an exception was raised."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from pathlib import Path
from types import FrameType

# A module of user code may have a function of this name, which returns the location of a line
# where its file has other lines than what is executed, as a notebook has.
LOCATE = "__whit_locate__"
MAX_ERROR_LENGTH = 200

_OWN_PACKAGE = Path(__file__).parents[1]
_STANDARD_LIBRARY = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_TORCHSCRIPT = "The following operation failed in the TorchScript interpreter."


def find_user_line(error: BaseException) -> tuple[str, str]:
    """Return location and text of the innermost line of the user's code; "" without one.

    Lines of the user's own files come before those of installed packages. Those of torch and of
    this package are none.
    """
    walked = list(traceback.walk_tb(error.__traceback__))
    frames = [pair for pair in walked if _is_user_code(pair[0])]
    own = [pair for pair in frames if not _INSTALLED & {*_path(pair[0]).parts}]
    if not frames:
        return "", ""
    frame, line = (own or frames)[-1]
    filename = frame.f_code.co_filename
    locate = frame.f_globals.get(LOCATE)
    location = locate(line) if callable(locate) else f"{_display_path(filename)}, line {line}"
    return location, linecache.getline(filename, line, frame.f_globals).strip()


def describe_error(error: BaseException) -> str:
    """Return type and message of `error`, in one line and shortened."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if lines and lines[0] == _TORCHSCRIPT:
        lines = lines[-1:]
    text = "".join(lines[:1])
    if len(text) > MAX_ERROR_LENGTH:
        text = text[: MAX_ERROR_LENGTH - 1] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _path(frame: FrameType) -> Path:
    return Path(frame.f_code.co_filename)


def _is_user_code(frame: FrameType) -> bool:
    path = _path(frame)
    if path.is_relative_to(_OWN_PACKAGE) or frame.f_code.co_filename.startswith("<frozen "):
        return False
    for number, part in enumerate(path.parts):
        if part in _INSTALLED:  # below the folder of the standard library, and no part of it
            return path.parts[number + 1 : number + 2] != ("torch",)
    return not any(path.is_relative_to(folder) for folder in _STANDARD_LIBRARY)


def _display_path(filename: str) -> str:
    """Return a path relative to the working folder, where the file is below it."""
    path, folder = Path(filename), Path.cwd()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else filename
