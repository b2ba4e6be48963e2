"""The path of a written report, which a notebook shows as a link."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from whit.system.display.html_tables import html_block


class ReportPath(type(Path())):  # type: ignore[misc]  # Path itself has no subclasses before 3.12
    """A path like any other."""

    def _repr_html_(self) -> str:
        # A notebook serves the files below its own folder; others are opened from disk.
        relative = os.path.relpath(self)
        is_outside = relative.startswith(os.pardir) or os.path.isabs(relative)
        address = Path(self).absolute().as_uri() if is_outside else quote(Path(relative).as_posix())
        link = f'<a href="{escape(address)}" target="_blank" rel="noopener">{escape(str(self))}</a>'
        return html_block(f"<div>Report: {link}</div>")
