"""What a forward pass reads from outside the process: files, sockets, other programs.

Python reports such events to audit hooks (PEP 578). A hook cannot be removed, so one is installed
at the first use and does nothing while nobody watches.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from whit.analysis.sources.executed_code import find_code_line

# Events by how their name begins, with what they do.
_EVENTS = {
    "open": "reads the file",
    "mmap.__new__": "maps a file into memory",
    "sqlite3.connect": "opens the database",
    "dbm.": "opens the database",
    "socket.connect": "connects to",
    "socket.getaddrinfo": "connects to",
    "socket.sendto": "connects to",
    "urllib.Request": "connects to",
    "http.client.connect": "connects to",
    "subprocess.Popen": "runs the program",
    "os.system": "runs the program",
    "os.exec": "runs the program",
    "os.posix_spawn": "runs the program",
    "os.spawn": "runs the program",
    "os.fork": "runs another process",
    "ctypes.dlopen": "loads the library",
    "ctypes.cdata": "reads memory by address",
    "shelve.": "opens the database",
    "os.listdir": "lists the folder",
    "os.scandir": "lists the folder",
    "os.getxattr": "reads attributes of",
}
_WRITE_ONLY = os.O_WRONLY
# These open files for Python itself: modules, and source lines for tracebacks and warnings.
_OPENED_BY = frozenset({"linecache", "tokenize", "traceback", "warnings", "inspect"})

_local = threading.local()
_installed = False


def _on_event(event: str, args: tuple[Any, ...]) -> None:
    found = getattr(_local, "found", None)
    if found is None:
        return
    action = next((text for name, text in _EVENTS.items() if event.startswith(name)), None)
    if action is None or (event == "open" and _is_write(args)) or _is_by_python():
        return
    _local.found = None  # what follows reads files itself
    try:
        line = find_code_line()
        target = "" if not args or isinstance(args[0], int) else f" {_format(args[0])!r}"
        found.setdefault(f"{action}{target}", line)
    finally:
        _local.found = found


def _format(target: Any) -> str:
    if isinstance(target, (str, bytes, os.PathLike)):
        return os.path.basename(os.fsdecode(target)) or os.fsdecode(target)
    return str(target)[:60]


def _is_write(args: tuple[Any, ...]) -> bool:
    """Return whether an `open` event is of a file that is only written."""
    mode, flags = (*args, None, None)[1:3]
    if isinstance(mode, str):
        return "r" not in mode and "+" not in mode
    return isinstance(flags, int) and bool(flags & _WRITE_ONLY)


def _is_by_python() -> bool:
    """Return whether Python itself opens the file: to import, or to show a line of source."""
    frame: FrameType | None = sys._getframe(2)
    modules, functions = [], []
    while frame is not None:
        modules.append(frame.f_globals.get("__name__", ""))
        functions.append(frame.f_code.co_name)
        frame = frame.f_back
    opened_by = modules[0] if modules else ""
    if opened_by.startswith("importlib."):
        return "_find_and_load" in functions  # not `get_data`, which reads any file
    return opened_by in _OPENED_BY and bool({"traceback", "warnings"} & {*modules})


@contextmanager
def watch_files(found: dict[str, Any]) -> Iterator[None]:
    """Add what this thread reads to `found`: a sentence's end, and the line of the model's code."""
    global _installed
    if not _installed:
        sys.addaudithook(_on_event)
        _installed = True
    before = getattr(_local, "found", None)
    _local.found = found
    try:
        yield
    finally:
        _local.found = before
