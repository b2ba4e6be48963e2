"""A child process that answers requests; requests and replies are lines of JSON.

The parent holds a `JsonWorker`; the child, `python -m MODULE`, calls `serve_requests`. Nothing is
pickled. A child whose parent is killed sees its standard input close, and ends.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from whit.system.standard_streams import protect

_MAX_STDERR = 2000  # characters of what a dead child printed

Send = Callable[[Any], None]  # writes a value that JSON can hold


class JsonWorker:
    """The parent's side of one child process. `messages` are its replies that are not yet taken."""

    def __init__(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str] | None = None,
        capture_stderr: bool = False,
    ):
        """Start Python with `arguments`; `env` is added to this process's environment.

        Standard error is this process's, or captured for `describe_exit`. Raises OSError when the
        system cannot start one more process.
        """
        self.messages: list[Any] = []
        self._buffer = bytearray()
        self._stderr = tempfile.TemporaryFile() if capture_stderr else None  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                env={**os.environ, **(env or {})},
                process_group=0,  # Ctrl-C in a terminal reaches the parent alone
            )
        except OSError:
            if self._stderr:
                self._stderr.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the child replies or ends."""
        return self._stdout.fileno()

    def send(self, line: str) -> None:
        """Send a request, a line of JSON. A child that has ended is noticed by `read`."""
        with suppress(BrokenPipeError):
            self._stdin.write(line.encode() + b"\n")

    def read(self) -> bool:
        """Wait for output and add complete replies to `messages`; False when the child has ended.

        Raises ValueError for a reply that is not JSON.
        """
        chunk = os.read(self.fileno(), 1 << 16)
        self._buffer += chunk
        if b"\n" in chunk:
            *lines, rest = bytes(self._buffer).split(b"\n")
            self._buffer = bytearray(rest)
            self.messages += map(json.loads, lines)
        return bool(chunk)

    def request(self, line: str, timeout: float, max_bytes: int) -> Any:
        """Send a request and return its reply; the child is killed when that fails.

        Raises TimeoutError after `timeout` seconds, ValueError for a reply of more than
        `max_bytes` or one that is not JSON, EOFError when the child ends without a reply.
        """
        deadline = time.monotonic() + timeout
        timer = threading.Timer(timeout, self.kill)
        timer.daemon = True
        timer.start()
        try:
            self.send(line)
            while not self.messages:
                if not self.read():
                    raise TimeoutError if time.monotonic() >= deadline else EOFError
                if len(self._buffer) > max_bytes:
                    raise ValueError
            return self.messages.pop(0)
        except (ValueError, EOFError, TimeoutError):
            self.stop(0)
            raise
        finally:
            timer.cancel()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """Kill the child, from any thread, if it is running."""
        self._process.kill()

    def disconnect(self) -> None:
        """Close the child's standard input, which asks it to end."""
        self._stdin.close()

    def stop(self, timeout: float) -> None:
        """Ask the child to end, kill it after `timeout` seconds, and close the pipes to it."""
        self.disconnect()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        for stream in (self._stdout, self._stderr):
            if stream:
                stream.close()

    def describe_exit(self) -> str:
        """Return how the child has ended, and the end of what it printed to standard error."""
        code = self._process.wait()
        text = ""
        if self._stderr:
            self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, self._stderr.tell() - _MAX_STDERR))
            text = self._stderr.read().decode(errors="replace").strip()
        if code == -signal.SIGKILL:
            cause = "was killed by SIGKILL, as the system does when memory runs out"
        elif code < 0:
            cause = f"was killed by {signal.Signals(-code).name}"
        else:
            cause = f"ended with exit code {code}"
        return f"{cause}{': ' if text else '.'}{text}"


def serve_requests(
    handle: Callable[[str, Send], None],
    interrupt: Callable[[], None],
    greeting: Any = None,
) -> None:
    """Call `handle(line, send)` for each line of standard input, one at a time, until it closes.

    `send` writes a reply, the `greeting` first if there is one. Standard output carries replies
    alone: what else is printed there, as by a user's model, goes to standard error. SIGINT and
    SIGHUP are ignored, since a terminal's signals are the parent's to handle. When standard input
    closes while a request is being handled, `interrupt` is called in another thread.
    """
    for name in ("SIGINT", "SIGHUP"):
        if number := getattr(signal, name, None):  # Windows has no SIGHUP
            signal.signal(number, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    is_busy = threading.Event()

    def send(message: Any) -> None:
        with suppress(BrokenPipeError):  # the parent has ended; standard input closes too
            replies.write(json.dumps(message) + "\n")

    def read_requests() -> None:
        for line in sys.stdin:
            requests.put(line)
        requests.put(None)
        if is_busy.is_set():
            interrupt()

    threading.Thread(target=read_requests, daemon=True).start()
    if greeting is not None:
        send(greeting)
    with protect(lambda lost: None):  # what a model prints must not end its run
        while (line := requests.get()) is not None:
            is_busy.set()
            handle(line, send)
            is_busy.clear()
