"""Which Python functions a forward pass executes, and which of their lines call torch."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np
import torch

# Code of these is not the model's: torch, numpy, the standard library, and this analysis.
_LIBRARIES = tuple(
    os.path.realpath(path) + os.sep
    for path in (
        *(os.path.dirname(package.__file__) for package in (torch, np) if package.__file__),
        os.path.dirname(os.path.dirname(__file__)),
    )
)
_ANALYSIS = os.path.dirname(os.path.dirname(__file__))
_ENTRIES = ("record_forward", "run")  # functions of the analysis that call a model
_STANDARD_LIBRARY = tuple(
    os.path.realpath(sysconfig.get_paths()[key]) + os.sep for key in ("stdlib", "platstdlib")
)


class CodeLine(NamedTuple):
    """A line of the model's own code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}, line {self.line}, in {self.function}"


@lru_cache(maxsize=4096)
def is_model_code(file: str) -> bool:
    """Return whether code in `file` belongs to a model, rather than to a library under it."""
    if file.startswith("<frozen"):
        return False  # importlib
    path = os.path.realpath(file)
    if path.startswith(_LIBRARIES):
        return False
    standard = path.startswith(_STANDARD_LIBRARY)
    return not standard or "site-packages" in path or "dist-packages" in path


def _is_model_frame(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if file == "<string>":  # generated, as the methods of dataclasses are
        package = str(frame.f_globals.get("__name__", ""))
        top = package.partition(".")[0]
        own = package.startswith("whit.analysis.") or top in ("torch", "numpy")
        return not own and top not in sys.stdlib_module_names
    return is_model_code(file)


def find_code_line() -> CodeLine | None:
    """Return the innermost line of the model's own code that is being executed."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name in _ENTRIES and code.co_filename.startswith(_ANALYSIS):
            return None  # the model has no code of its own here
        if _is_model_frame(frame):
            return CodeLine(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    return None


@dataclass
class ExecutedCode:
    """The functions that were executed: code, globals, and arguments at the first call."""

    functions: dict[CodeType, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)


@contextmanager
def watch_code(executed: ExecutedCode) -> Iterator[None]:
    """Add every function of the model that this thread calls to `executed`."""
    thread = threading.get_ident()

    seen: dict[int, CodeType] = {}
    before = sys.gettrace()  # of a debugger, or what measures the coverage of tests

    def on_call(frame: FrameType, event: Any, argument: Any) -> Any:
        code = frame.f_code
        if id(code) not in seen and threading.get_ident() == thread:
            seen[id(code)] = code  # by id: the hash of a code object reads all of it
            if _is_model_frame(frame):
                executed.functions[code] = frame.f_globals, dict(frame.f_locals)
        return before(frame, event, argument) if before else None

    sys.settrace(on_call)  # cheaper than a profile function, which C functions call too
    try:
        yield
    finally:
        sys.settrace(before)
