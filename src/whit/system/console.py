"""Output to a terminal or a pipe, as text or JSON; broken pipes, and a second Ctrl-C."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stdout,
    suppress,
)
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from whit.system.file_names import printable
from whit.system.standard_streams import discard_descriptor
from whit.system.text_tables import wrap


class Output(Console):
    """A console that continues when nothing can be printed, as on a full disk.

    On the command line standard output is protected; this is for programs that import whit.
    """

    def _check_buffer(self) -> None:  # called by rich to print what was rendered
        try:
            super()._check_buffer()
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        discard_output(sys.stdout)


def make_console() -> Console:
    if sys.stdout is not None and sys.stdout.isatty():
        return Output()
    # A pipe has no width: 100 columns, as many as a usual terminal has.
    return Output(width=100, force_terminal=False)


def stdout_to_stderr(as_json: bool) -> AbstractContextManager[object]:
    """With --json, send what a user's own model prints to standard error."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def show(value: Any, table: Callable[[int], str], as_json: bool) -> None:
    """Print a value as JSON, or as the table that `table(width)` returns."""
    text = json.dumps(value, indent=2) if as_json else printable(table(make_console().width))
    write(text, sys.stdout)


def echo(text: str, stream: TextIO) -> None:
    """Print a message, wrapped between words on a terminal; unchanged in a pipe or a file."""
    width, text = _terminal_width(stream), printable(text)
    write(text if width is None else wrap(text, width), stream)


def write(text: str, stream: TextIO, end: str = "\n") -> None:
    """Print text as it is; nothing where it cannot be printed."""
    try:
        print(text, file=stream, end=end, flush=True)
    except OSError:
        discard_output(stream)


def _terminal_width(stream: TextIO) -> int | None:
    """Return the columns of a terminal; None for a pipe, a file, or an unknown width."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError, AttributeError):  # a stream in memory has no descriptor
        return None


def warn(text: str) -> None:
    """Print a warning to standard error."""
    echo(f"whit: {text}", sys.stderr)


OnStage = Callable[[str], None]  # called with the name of each slow stage as it begins


def ignore_stage(stage: str) -> None:
    """The stages of a command that reports none."""


@contextmanager
def report_stages(quiet: bool = False, as_json: bool = False) -> Iterator[OnStage]:
    """Give a function that takes the name of each stage of a long command as the stage begins.

    It is shown on standard error: on a terminal beside a spinner, which is there from the start,
    since importing torch takes seconds, and disappears at the end; elsewhere as a line, but for
    `as_json`. With `quiet` nothing is shown.
    """
    if quiet:
        yield ignore_stage
    elif sys.stderr is not None and sys.stderr.isatty():
        with Console(stderr=True).status("Loading ...") as status:
            yield lambda stage: status.update(Text(f"{_capitalize(stage)} ...", overflow="fold"))
    elif as_json:
        yield ignore_stage
    else:
        yield lambda stage: echo(f"{_capitalize(stage)} ...", sys.stderr)


def _capitalize(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def discard_output(stream: TextIO) -> None:
    """Discard all further output; Python flushes the stream once more when it exits."""
    with suppress(OSError, ValueError):  # a stream in memory has no descriptor
        discard_descriptor(stream.fileno())


def exit_immediately(number: int, resume_hint: str = "whit train --resume RUN") -> None:
    """On a second signal, exit without saving: every file on disk is valid at any time."""
    with suppress(OSError):  # the terminal may be gone
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")  # the progress bar hides the cursor
    message = (
        f"whit: stopped immediately; the latest checkpoint is kept. Resume with {resume_hint}."
    )
    width = _terminal_width(sys.stderr)
    with suppress(OSError):  # not print, which may be what the signal interrupted
        os.write(2, f"{message if width is None else wrap(message, width)}\n".encode())
    os._exit(128 + number)
