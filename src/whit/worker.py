"""A worker process: jobs come as lines on standard input, what becomes of them goes out as lines.

    python -m whit.worker

It ends with its driver: when standard input closes, the run under way is saved and left.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from typing import IO

from whit.doing import do
from whit.job import Job, as_message


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to pass on
    replies = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what a user's model prints must not look like a reply
    jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_read, args=(sys.stdin, jobs, busy), daemon=True).start()
    _write(replies, as_message("ready", os.getpid()))
    while (line := jobs.get()) is not None:
        job = Job.from_line(line)
        sys.argv = ["whit", *job.command]
        busy.set()
        outcome = do(job, lambda epochs: _write(replies, as_message("epochs", epochs)))
        busy.clear()
        _write(replies, as_message("outcome", [outcome.state, outcome.said]))


def _write(stream: IO[str], line: str) -> None:
    with suppress(BrokenPipeError):  # the driver is gone; standard input will say so
        stream.write(line)


def _read(stream: IO[str], jobs: queue.SimpleQueue[str | None], busy: threading.Event) -> None:
    for line in stream:
        jobs.put(line)
    jobs.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
