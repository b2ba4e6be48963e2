"""Waiting for an event in another process, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

# Seconds after which a test gives up. It ends tests that hang and measures nothing: no test waits
# a fixed time for something to be ready, or asserts how long something takes.
LIMIT = 300.0


class Running(Protocol):
    """A process under way and what it has printed so far."""

    @property
    def said(self) -> str: ...

    def is_alive(self) -> bool: ...


def wait_until(condition: Callable[[], object], command: Running | None = None) -> None:
    """Wait until a condition holds, and fail if the command ends before."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, command.said if command else "it never came"
        # What the command did last may have come between the condition and its end.
        assert command is None or command.is_alive() or condition(), command.said
        time.sleep(0.002)
