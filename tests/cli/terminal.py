"""Whit as a process on a terminal of its own, and in pipes."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

from screen import Screen

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm"}
WHIT = [sys.executable, "-m", "whit"]


def started(line: str, folder: Path) -> subprocess.Popen[str]:
    """Start whit with its output in pipes."""
    return subprocess.Popen(
        [*WHIT, *line.split()],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def on_terminal(
    arguments: Sequence[str], folder: Path, width: int, stop_after: bytes | None = None
) -> tuple[int, Screen]:
    """Run whit on a terminal of its own, with SIGINT once it has printed `stop_after`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [*WHIT, *arguments],
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    output, stopped = b"", False
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # Linux raises it when the other end is closed
            break
        if not part:
            break
        output += part
        if stop_after and stop_after in output and not stopped:
            process.send_signal(signal.SIGINT)
            stopped = True
    os.close(ours)
    screen = Screen(width)
    screen.write(output.decode())
    return process.wait(), screen
