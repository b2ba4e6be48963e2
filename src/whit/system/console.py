"""Output to a terminal or a pipe, as text or JSON; broken pipes, and a second Ctrl-C."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout, suppress
from typing import Any, TextIO

from rich.console import Console


class Output(Console):
    """A console whose reader may close it, as `whit train | head` does: the work continues."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        discard_output(sys.stdout)


def make_console() -> Console:
    if sys.stdout.isatty():
        return Output()
    # A pipe has no width: tables there are as wide as they are on a usual terminal.
    return Output(width=100, force_terminal=False)


def stdout_to_stderr(as_json: bool) -> AbstractContextManager[object]:
    """With --json, send what a user's own model prints to standard error."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def show(value: Any, table: Callable[[int], str], as_json: bool) -> None:
    echo(json.dumps(value, indent=2) if as_json else table(make_console().width), sys.stdout)


def echo(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        discard_output(stream)


def warn(text: str) -> None:
    """Print a warning to standard error."""
    echo(f"whit: {text}", sys.stderr)


def discard_output(stream: TextIO) -> None:
    """Discard everything that is still printed; Python flushes once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def exit_immediately(
    number: int, resume_hint: str = "Resume with: whit train --resume RUN"
) -> None:
    """On a second signal, exit without saving: every file on disk is valid at any time."""
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # the bar had hidden the cursor
    message = f"whit: stopped immediately; the latest checkpoint is kept. {resume_hint}\n"
    with suppress(OSError):
        os.write(2, message.encode())
    os._exit(128 + number)
