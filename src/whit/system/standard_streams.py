"""Standard output and error that may fail: a full disk, a reader or a terminal that is gone.

Losing the place that a program prints to must not end hours of work. So while `protect` is active
a write to standard output or error never raises: the first one that fails is reported once on the
other stream, and what follows is discarded.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_NAMES = {1: "standard output", 2: "standard error"}


class ProtectedWriter(io.TextIOWrapper):
    """Text to one descriptor. `error` is why writing failed; None as long as it has not.

    The bytes are written by Python's own classes, so a signal handler that raises an exception
    within a write neither loses nor repeats any.
    """

    def __init__(
        self,
        descriptor: int,
        on_loss: Callable[[ProtectedWriter], None],
        *,
        is_closed: bool = False,
        **options: Any,
    ):
        """`is_closed`: the descriptor was, when the program started; `options` of TextIOWrapper."""
        with suppress(OSError):  # another program may have made the terminal or pipe non-blocking
            os.set_blocking(descriptor, True)
        raw = io.FileIO(descriptor, "wb", closefd=False)
        super().__init__(io.BufferedWriter(raw), **options)
        self.descriptor = descriptor
        self.error: OSError | None = None
        self._on_loss = on_loss
        self._is_closed = is_closed

    @property
    def has_failed(self) -> bool:
        """Whether output is missing, for another reason than a reader who has read enough."""
        return self.error is not None and self.error.errno != errno.EPIPE

    @property
    def loss(self) -> str:
        """What was lost, and why, as the start of a sentence."""
        assert self.error is not None
        reason = "its reader has ended" if self.error.errno == errno.EPIPE else self.error.strerror
        return f"{_NAMES[self.descriptor]} cannot be written ({reason})"

    def write(self, text: str, /) -> int:
        """Write text; what cannot be written is discarded."""
        if self._is_closed and text:
            self._lose(OSError(errno.EBADF, "closed"))
        try:
            return super().write(text)
        except BlockingIOError:
            self.flush()
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        while True:
            try:
                return super().flush()
            except BlockingIOError:  # made non-blocking since
                select.select([], [self.descriptor], [])
            except OSError as error:
                self._lose(error)
                return None

    def _lose(self, error: OSError) -> None:
        if self.error is None:
            self.error = error
            discard_descriptor(self.descriptor)  # which takes what is still in the buffers
            self._on_loss(self)


class Protection:
    """The two protected streams."""

    def __init__(self, describe_loss: Callable[[ProtectedWriter], str | None]):
        self._describe_loss = describe_loss
        closed = fill_closed_descriptors()
        # A character that the terminal cannot show, such as ×, must not raise an error.
        self.output, self.error = (
            ProtectedWriter(
                descriptor,
                self._report,
                is_closed=descriptor in closed,
                encoding=getattr(before, "encoding", "utf-8"),
                errors=errors,
                line_buffering=getattr(before, "line_buffering", descriptor == 2),
                write_through=getattr(before, "write_through", False),
            )
            for descriptor, before, errors in (
                (1, sys.stdout, "replace"),
                (2, sys.stderr, "backslashreplace"),
            )
        )

    def _report(self, lost: ProtectedWriter) -> None:
        other = self.error if lost is self.output else self.output
        if message := self._describe_loss(lost):
            other.write(f"whit: {message}\n")
            other.flush()


@contextmanager
def protect(describe_loss: Callable[[ProtectedWriter], str | None]) -> Iterator[Protection]:
    """Replace `sys.stdout` and `sys.stderr` by streams that never raise OSError.

    `describe_loss` returns what is printed on the other stream about a loss; None for nothing.
    Streams that are not those of the process, as in a notebook or a test, remain.
    """
    before = sys.stdout, sys.stderr
    protection = Protection(describe_loss)
    try:
        if _is_of_process(sys.stdout, 1):
            _flush(sys.stdout)
            sys.stdout = protection.output
        elif isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        if _is_of_process(sys.stderr, 2):
            _flush(sys.stderr)
            sys.stderr = protection.error
        yield protection
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        sys.stdout, sys.stderr = before


def fill_closed_descriptors() -> set[int]:
    """Open /dev/null as each of the descriptors 0, 1 and 2 that is closed; return these.

    Otherwise the next file that is opened would get the number, and what a library prints would
    be written into it.
    """
    closed = set()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    closed |= {number for number, stream in ((1, sys.stdout), (2, sys.stderr)) if stream is None}
    return closed


def _is_of_process(stream: Any, descriptor: int) -> bool:
    if os.name != "posix":  # a Windows console takes no bytes
        return False
    if stream is None:
        return True
    try:
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() == descriptor
    except (OSError, ValueError):  # in memory, or closed
        return False


def _flush(stream: Any) -> None:
    if stream is not None:
        with suppress(OSError, ValueError):
            stream.flush()


def discard_descriptor(descriptor: int) -> None:
    """Discard also what libraries and child processes write there."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
