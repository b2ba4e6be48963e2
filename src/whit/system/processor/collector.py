"""Python's garbage collector, paused where it finds nothing: while packages are imported.

torch makes two hundred thousand objects that live as long as the process. To look for cycles among
them takes a fifth of the import; of the import of the command line alone, a quarter.
"""

from __future__ import annotations

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
