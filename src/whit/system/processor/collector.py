"""Python's garbage collector where it finds nothing: while packages are imported, and at the end.

torch makes two hundred thousand objects that live as long as the process. To look for cycles among
them takes a fifth of the import, and as long again when the process ends. For the command line
alone it is a quarter.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pause_gc() -> Iterator[None]:
    """Import large packages without looking for garbage. The body makes none that matters.

    If something is imported, what exists then is excluded from all later collections: the next ones
    would search it, and take the time that was saved.
    """
    was_enabled, num_modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > num_modules:
            gc.freeze()
        if was_enabled:
            gc.enable()


def skip_final_collection() -> None:
    """Let the process end without a last search for cycles; `atexit` handlers run as ever."""
    atexit.register(gc.freeze)
