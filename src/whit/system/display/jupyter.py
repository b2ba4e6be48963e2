"""One output of a notebook cell that is updated in place. IPython is imported in a kernel only."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import Any

_REFRESH = 0.25  # seconds between two updates; each is a message to the browser


def in_notebook() -> bool:
    """Return whether this is the kernel of a notebook, which shows HTML."""
    ipython: Any = sys.modules.get("IPython")  # a kernel has imported it
    shell = ipython.get_ipython() if ipython else None
    # Others, such as Colab, derive their shell from that of ipykernel.
    return any(base.__name__ == "ZMQInteractiveShell" for base in type(shell).__mro__)


class LiveOutput:
    """An output that is made by the first update and replaced by each later one."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._updated = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the last update is long enough ago for the next."""
        return time.monotonic() - self._updated >= _REFRESH

    def update(self, html: str) -> None:
        """Show `html` now, in place of what was shown before."""
        ipython = import_module("IPython.display")
        if self._handle is None:
            self._handle = ipython.display(ipython.HTML(html), display_id=True)
        else:
            self._handle.update(ipython.HTML(html))
        self._updated = time.monotonic()
