"""Python's garbage collector where it finds nothing: while torch is imported, and at the end.

torch makes two hundred thousand objects that live as long as the process. To look for cycles among
them takes a fifth of the import, and as long again when the process ends.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pause_gc() -> Iterator[None]:
    """Import large packages without looking for garbage. The body makes none that matters."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def skip_final_collection() -> None:
    """Let the process end without a last search for cycles; `atexit` handlers run as ever."""
    atexit.register(gc.freeze)
