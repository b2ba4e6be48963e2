"""Exceptions in a forward pass as one sentence: the line of the user's file, and what failed."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from pathlib import Path
from types import FrameType

import torch

from whit.analysis.tracing.trace import Trace

# A module of user code may have a function of this name, which returns the location of a line
# where its file has other lines than what is executed, as a notebook has.
LOCATE = "__whit_locate__"

_PACKAGE = Path(__file__).parents[2]
_LIBRARIES = (
    *(Path(torch.__file__).parent, _PACKAGE),
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")),
)
_TORCHSCRIPT = "The following operation failed in the TorchScript interpreter."
MAX_ERROR_LENGTH = 200


def describe_failure(error: BaseException, trace: Trace | None = None, mode: str = "") -> str:
    """Return where in the user's code the forward pass failed, then the error.

    Without a line of the user's, as in a model of torch's own modules, the layer is named first.
    `mode` says which pass failed, such as " in training mode".
    """
    layer = _find_layer(trace) if trace else ""
    location, statement = _find_user_line(error)
    at = f" at `{statement}`" if statement else ""
    inside = f", in layer {layer}" if layer and location else ""
    start = location or (f"layer {layer}" if layer else "")
    problem = f"the forward pass fails{mode}{at}{inside}: {describe_error(error)}"
    return f"{start}: {problem}" if start else problem


def describe_error(error: BaseException) -> str:
    """Return type and message of `error`, in one line and shortened."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if lines and lines[0] == _TORCHSCRIPT:
        lines = lines[-1:]
    text = "".join(lines[:1])
    if len(text) > MAX_ERROR_LENGTH:
        text = text[: MAX_ERROR_LENGTH - 1] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _find_layer(trace: Trace) -> str:
    """Return the innermost module that was called and did not return."""
    unfinished = [call for call in trace.module_calls if not call.returned and call.path]
    return unfinished[-1].path if unfinished else ""


def _find_user_line(error: BaseException) -> tuple[str, str]:
    """Return location and text of the innermost line that is neither torch's nor whit's.

    Lines of the user's own files come before those of installed packages.
    """
    frames = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not _is_in(frame, _LIBRARIES) and frame.f_code.co_filename[:8] != "<frozen "
    ]
    own = [pair for pair in frames if not _is_installed(pair[0])]
    if not own and not frames:
        return "", ""
    frame, line = (own or frames)[-1]
    filename = frame.f_code.co_filename
    locate = frame.f_globals.get(LOCATE)
    location = locate(line) if callable(locate) else f"{_display_path(filename)}, line {line}"
    return location, linecache.getline(filename, line, frame.f_globals).strip()


def _is_in(frame: FrameType, folders: tuple[Path, ...]) -> bool:
    path = Path(frame.f_code.co_filename)
    inside = any(path.is_relative_to(folder) for folder in folders)
    return inside and (path.is_relative_to(_PACKAGE) or not _is_installed_elsewhere(path))


def _is_installed_elsewhere(path: Path) -> bool:
    """Return whether a file below the folder of the standard library is of another package."""
    return "site-packages" in path.parts and not path.is_relative_to(_LIBRARIES[0])


def _is_installed(frame: FrameType) -> bool:
    return bool({"site-packages", "dist-packages"} & {*Path(frame.f_code.co_filename).parts})


def _display_path(filename: str) -> str:
    """Return a path relative to the working folder, where the file is below it."""
    path = Path(filename)
    folder = Path.cwd()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else filename
