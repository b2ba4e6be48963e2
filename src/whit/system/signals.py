"""SIGINT, SIGTERM and SIGHUP, handled between two training steps, where the state can be saved.

The first signal is only recorded; `check` raises at the next point where the training state is
consistent. An evaluation, which changes no state, is interrupted immediately. A second signal exits
without saving: the files on disk are valid at any time. SIGHUP is never such a second signal: when
a terminal is closed, the kernel and the shell may each send one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from whit.errors import Interrupted

# Seconds that a step may continue after a signal; saving must fit into the rest of five.
_STEP_TIMEOUT = 3.0


# Signals of this command so far. The exception that one raises may be swallowed, as by an import of
# numpy inside torch: the command is stopped by it nevertheless.
received: list[int] = []


def stop_signals() -> list[int]:
    """Return the signals that stop the work; SIGHUP not where it is ignored, as under nohup."""
    numbers: list[int] = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


def is_hangup(number: int) -> bool:
    """Whether the terminal of this process was closed."""
    return number == getattr(signal, "SIGHUP", None)


class StopRequested(BaseException):
    """A signal asked the run to stop; no `except Exception` of a user's model delays it."""

    def __init__(self, number: int, *, is_consistent: bool):
        self.number = number
        self.is_consistent = is_consistent  # whether the training state may be saved
        super().__init__(number)

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name

    def to_error(self, details: str) -> Interrupted:
        """Return the error that ends the work; `details` follow what stopped it."""
        return Interrupted(f"stopped by {self.name}{details}", 128 + self.number)


def raise_keyboard_interrupt(number: int) -> None:
    """What a second signal does in a program that uses whit as a library."""
    raise KeyboardInterrupt


class SignalHandler:
    """A context in which signals are recorded. Outside the main thread it records none."""

    def __init__(self, on_second_signal: Callable[[int], None] = raise_keyboard_interrupt):
        self.on_second_signal = on_second_signal
        self.requested: int | None = None
        self._is_interruptible = False
        self._is_finished = False
        self._previous: dict[int, Any] = {}  # handlers by signal

    def __enter__(self) -> SignalHandler:
        if threading.current_thread() is threading.main_thread():
            self.requested = received[0] if received else None
            self._previous = {n: signal.signal(n, self._on_signal) for n in stop_signals()}
        return self

    def __exit__(self, *error: object) -> None:
        self._cancel_timer()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def check(self) -> None:
        """Raise StopRequested if a signal came. Call it where the training state is consistent."""
        if self.requested is not None:
            self._cancel_timer()
            raise StopRequested(self.requested, is_consistent=True)

    def final_check(self) -> None:
        """The last `check`: a later signal finds nothing left to stop."""
        self.check()
        self._is_finished = True

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Stop without waiting for a `check`: the body changes no state."""
        self.check()
        self._is_interruptible = True
        try:
            yield
        finally:
            self._is_interruptible = False
        self.check()  # in case an `except` in the body swallowed it

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            if is_hangup(number):
                return
            self.on_second_signal(number)
        self.requested = number
        if self._is_interruptible:
            raise StopRequested(number, is_consistent=True)
        if hasattr(signal, "setitimer") and not self._is_finished:
            self._previous.setdefault(
                signal.SIGALRM, signal.signal(signal.SIGALRM, self._on_timeout)
            )
            signal.setitimer(signal.ITIMER_REAL, _STEP_TIMEOUT)

    def _on_timeout(self, number: int, frame: FrameType | None) -> None:
        assert self.requested is not None
        raise StopRequested(self.requested, is_consistent=False)

    def _cancel_timer(self) -> None:
        if signal.SIGALRM in self._previous:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def catch_signals(
    resume_hint: str, on_second_signal: Callable[[int], None] = raise_keyboard_interrupt
) -> Iterator[SignalHandler]:
    """Record signals; one that stops the body becomes Interrupted, with how to resume."""
    try:
        with SignalHandler(on_second_signal) as signals:
            yield signals
    except StopRequested as stop:
        raise stop.to_error(f". {resume_hint}") from None
