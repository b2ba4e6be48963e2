"""Messages wrap between words on a terminal, and are one line each in a pipe.

pytest tests/cli/test_cli_wrapping.py
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from calling import Done
from terminal import on_terminal

from whit.system.text_tables import wrap

MESSAGES = {
    "usage": (2, ["train", "sprint", "--batch-size=64"]),
    "input": (2, ["plan", "keys.toml", "--set", "train.epoch=3", "--set", "x"]),
    "budget": (
        1,
        [
            *("train", "sprint", "--set", "budget.params=<1000", "--set", "budget.epochs=<2"),
            *("--set", 'budget.forbid=["linear","maxpool"]'),
        ],
    ),
}


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("kind", MESSAGES)
def test_no_word_of_a_message_is_broken(
    kind: str, width: int, workshop: Path, whit: Callable[..., Done]
) -> None:
    code, arguments = MESSAGES[kind]
    in_pipe = whit(shlex.join(arguments), workshop)
    assert (in_pipe.code, in_pipe.out) == (code, "")
    exit_code, screen = on_terminal(arguments, workshop, width)
    assert exit_code == code
    assert screen.wrapped == []  # by the terminal itself, which breaks words
    assert screen.text.split() == in_pipe.err.split()
    lines = screen.text.splitlines()
    assert len(lines) > len(in_pipe.err.splitlines())
    for line, following in pairwise(lines):
        if following.startswith("  ") and not following.startswith("  - "):
            # Filled as far as the next word allows.
            assert len(line) + 1 + len(following.split()[0]) > width


def test_a_word_longer_than_the_line_is_not_broken() -> None:
    path = "/" + "x" * 90
    assert wrap(f"whit: {path}: no such file.", 40).split("\n") == [
        "whit:",
        f"  {path}:",
        "  no such file.",
    ]
