"""The end of the process, without what torch's libraries do then: a tenth of a second."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def exit_quickly(code: int) -> NoReturn:
    """End the process: `atexit` handlers run, output is flushed, and no object is destroyed.

    The system frees the memory. A file that was never closed may miss what was written last. Python
    ends as usual where another thread must finish first, or under a profiler, which reports
    afterwards.
    """
    others = [t for t in threading.enumerate() if t is not threading.main_thread()]
    if any(not thread.daemon for thread in others) or sys.getprofile() or sys.gettrace():
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # none, gone, or closed
            stream.flush()
    os._exit(code)
