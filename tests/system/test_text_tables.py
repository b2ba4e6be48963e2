"""Wrapping and tables: no word is broken, on a terminal of any width; pipes get whole lines."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import sys
import termios

import pytest

from whit.system.console import echo
from whit.system.text_tables import stacked_table, wrap

TEXT = (
    "whit: study: --seeds 0: expected an integer from 1 to 10,000; a well-known/path-with-hyphens\n"
    "  - one problem, with a sentence that is long enough to be wrapped on a narrow terminal\n"
    "\n"
    "end"
)


@pytest.mark.parametrize("width", [10, 20, 31, 40, 60, 79, 80, 100, 200])
def test_no_word_is_broken_and_none_is_lost(width: int) -> None:
    lines = wrap(TEXT, width).split("\n")
    assert " ".join(lines).split() == TEXT.split()
    longest = max(map(len, TEXT.split()))
    assert max(map(len, lines)) <= max(width, 20, longest + 4)  # 4 of an indent
    assert "" in lines  # an empty line stays


def test_lines_that_fit_are_unchanged() -> None:
    assert wrap(TEXT, 200) == TEXT


@pytest.mark.parametrize("width", [30, 47, 80])
def test_messages_on_a_terminal_are_wrapped_between_words(width: int) -> None:
    primary, secondary = pty.openpty()
    try:
        fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        with os.fdopen(os.dup(secondary), "w") as stream:
            echo(TEXT, stream)
        lines = os.read(primary, 1 << 16).decode().replace("\r\n", "\n").split("\n")
    finally:
        os.close(primary)
        os.close(secondary)
    assert " ".join(lines).split() == TEXT.split()
    assert max(map(len, lines)) <= width


def test_messages_in_a_pipe_keep_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    echo(TEXT, stream)
    echo(TEXT, sys.stdout)
    assert stream.getvalue() == capsys.readouterr().out == f"{TEXT}\n"


def test_a_stacked_table_repeats_its_first_column() -> None:
    rows = [("name", "one", "two"), ("a", "1" * 20, "2" * 20)]
    tables = stacked_table(rows, "lrr", 30).split("\n\n")
    assert [table.split()[0] for table in tables] == ["name", "name"]
    assert stacked_table(rows, "lrr", 80).count("\n\n") == 0
