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


class ProtectedWriter(io.RawIOBase):
    """The bytes of one descriptor. `error` is why writing failed; None as long as it has not."""

    def __init__(
        self,
        descriptor: int,
        on_loss: Callable[[ProtectedWriter], None],
        *,
        is_closed: bool = False,
    ):
        self.descriptor = descriptor
        self.error: OSError | None = None
        self._on_loss = on_loss
        self._is_closed = is_closed  # when the program started

    @property
    def name(self) -> str:
        return f"<{_NAMES[self.descriptor].replace('standard ', 'std').replace('put', '')}>"

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

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)

    def write(self, content: Any, /) -> int:
        """Write bytes; those that cannot be written are discarded."""
        while self.error is None:
            try:
                if self._is_closed:
                    raise OSError(errno.EBADF, "closed")
                return os.write(self.descriptor, content)
            except BlockingIOError:  # another program made the terminal or pipe non-blocking
                select.select([], [self.descriptor], [])
            except OSError as error:
                self.error = error
                _discard(self.descriptor)
                self._on_loss(self)
        return memoryview(content).nbytes


class Protection:
    """The two protected streams."""

    def __init__(self, describe_loss: Callable[[ProtectedWriter], str | None]):
        self._describe_loss = describe_loss
        closed = fill_closed_descriptors()
        self.output, self.error = (
            ProtectedWriter(descriptor, self._report, is_closed=descriptor in closed)
            for descriptor in (1, 2)
        )

    def _report(self, lost: ProtectedWriter) -> None:
        other = self.error if lost is self.output else self.output
        if message := self._describe_loss(lost):
            stream = sys.stderr if lost is self.output else sys.stdout
            with suppress(Exception):  # in its order: what was printed before comes first
                stream.flush()
            other.write(f"whit: {message}\n".encode())


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
            # A character that the terminal cannot show, such as ×, must not raise an error.
            sys.stdout = _wrap(protection.output, sys.stdout, "replace")
        elif isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        if _is_of_process(sys.stderr, 2):
            sys.stderr = _wrap(protection.error, sys.stderr, "backslashreplace")
        yield protection
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
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


def _wrap(raw: ProtectedWriter, before: Any, errors: str) -> io.TextIOWrapper:
    if before is not None:
        with suppress(OSError, ValueError):
            before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", "utf-8"),
        errors=errors,
        line_buffering=getattr(before, "line_buffering", raw.descriptor == 2),
        write_through=getattr(before, "write_through", False),
    )


def _discard(descriptor: int) -> None:
    """Discard also what libraries and child processes write there."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
