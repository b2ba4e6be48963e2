"""`whit`, and `python -m whit`: signals are seen to before anything slow is imported."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Windows has no SIGHUP; under nohup it is ignored.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, _leave)
    from whit.system.processor.collector import pause_gc

    with pause_gc():
        from whit.cli import app
        from whit.system.processor.process_exit import exit_quickly

    code = app.main()
    if app.has_run_user_code():
        sys.exit(code)
    exit_quickly(code)


def _leave(number: int, frame: FrameType | None) -> None:
    # Nothing has started, so nothing is lost; an exception could surface within an import.
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"whit: stopped by {signal.Signals(number).name}.\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    main()
