"""One output of a notebook cell that is updated in place. IPython is imported in a kernel only."""

from __future__ import annotations

import sys
import time
from typing import Any

_REFRESH = 0.25  # seconds between two updates; each is a message to the browser


def in_notebook() -> bool:
    """Return whether this is the kernel of a notebook, which shows HTML."""
    if "IPython" not in sys.modules:  # a kernel has imported it
        return False
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


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
        from IPython.display import HTML, display

        if self._handle is None:
            self._handle = display(HTML(html), display_id=True)
        else:
            self._handle.update(HTML(html))
        self._updated = time.monotonic()
