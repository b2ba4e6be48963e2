"""The code of one model, and where each of its lines stands in the user's own file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """The code that defines one model, read but not yet run."""

    path: Path  # as the user gave it, for messages
    name: str  # of the class or function
    text: str  # exactly what is executed
    origins: tuple[tuple[int, int], ...] = ()  # of a notebook: (cell, line) of each line of text

    @property
    def target(self) -> str:
        return f"{self.path}:{self.name}"

    @property
    def sha256(self) -> str:
        """SHA-256 of the executed code in UTF-8, as 64 hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def folder(self) -> Path:
        return self.path.absolute().parent

    @property
    def filename(self) -> str:
        """The name under which Python knows the code, as tracebacks show it."""
        path = self.path.absolute()
        return f"{path}:{self.name}" if self.origins else str(path)

    def place(self, line: int) -> str:
        """Return where a line of the executed code stands in the user's own file.

        Cells are counted from 1 at the top of the notebook, cells of text included.
        """
        if not self.origins:
            return f"{self.path}, line {line}"
        cell, line = self.origins[min(line, len(self.origins)) - 1]
        return f"{self.path}, cell {cell}, line {line}" if cell else str(self.path)

    def line_text(self, line: int) -> str:
        lines = self.text.split("\n")
        return lines[line - 1].strip() if 0 < line <= len(lines) else ""
