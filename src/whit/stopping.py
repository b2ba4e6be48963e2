"""SIGINT and SIGTERM, turned into a stop between two steps, where everything can be saved.

The first signal is only noted; `check` raises at the next place where the training state is
whole. In an evaluation, which changes nothing, it acts at once. A second signal leaves without
saving: what is on the disk is whole at any time.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Seconds that a step may go on after a signal; saving must fit into the rest of five.
_PATIENCE = 3.0


class Stop(BaseException):
    """A signal asked the run to stop; no `except Exception` of a user's model holds it up."""

    def __init__(self, number: int, *, state_is_whole: bool):
        self.number = number
        self.state_is_whole = state_is_whole
        super().__init__(number)

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name


def interrupt(number: int) -> None:
    """What a second signal does in somebody's own program, which is not ours to end."""
    raise KeyboardInterrupt


class Stopping:
    """A context in which signals are noted. Outside the main thread it notes none."""

    def __init__(self, on_second: Callable[[int], None] = interrupt):
        self.on_second = on_second
        self.requested: int | None = None
        self._at_once = False
        self._too_late = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT, signal.SIGTERM]
            self._before = {n: signal.signal(n, self._note) for n in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        self._stop_waiting()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def check(self) -> None:
        """Raise Stop if a signal came. To be called where the training state is whole."""
        if self.requested is not None:
            self._stop_waiting()
            raise Stop(self.requested, state_is_whole=True)

    def last_check(self) -> None:
        """The last `check`: a signal after it finds nothing left to stop."""
        self.check()
        self._too_late = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Stop without waiting for a `check`: what goes on inside changes no state."""
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False
        self.check()  # in case that somebody's `except` swallowed it

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            self.on_second(number)
        self.requested = number
        if self._at_once:
            raise Stop(number, state_is_whole=True)
        if hasattr(signal, "setitimer") and not self._too_late:
            self._before.setdefault(
                signal.SIGALRM, signal.signal(signal.SIGALRM, self._out_of_patience)
            )
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE)

    def _out_of_patience(self, number: int, frame: FrameType | None) -> None:
        assert self.requested is not None
        raise Stop(self.requested, state_is_whole=False)

    def _stop_waiting(self) -> None:
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
