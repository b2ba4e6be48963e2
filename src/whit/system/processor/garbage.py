"""Python's garbage collector, which has nothing to collect while torch is imported."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def import_torch() -> Iterator[None]:
    """Import torch in this context, in three quarters of the time: no collection takes place.

    Its modules are half a million objects that live as long as the process, and 480 collections
    search them for garbage while they are made. They are excluded from later collections. Where
    torch is imported already, the context does nothing.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def skip_last_collection() -> None:
    """Leave every object to the operating system when the process ends.

    Python's last collection takes apart torch's modules one by one, which takes half as long as to
    import them. What has to be closed or written is so before.
    """
    gc.freeze()
