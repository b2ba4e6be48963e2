"""A terminal just good enough for what rich writes: lines, returns, erasing, moving up."""

from __future__ import annotations

import re

_PARTS = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Screen:
    """The lines on a terminal that never scrolls away; wraps at `width` as terminals do.

    `wrapped` holds every text that did not fit, `bars` every line on which a bar was seen.
    """

    def __init__(self, width: int):
        self.width = width
        self.lines = [""]
        self.row = self.column = 0
        self.cursor_shown = True
        self.wrapped: list[str] = []
        self.bars: list[str] = []

    def write(self, text: str) -> None:
        at = 0
        while at < len(text):
            part = _PARTS.match(text, at)
            assert part, f"unknown control sequence: {text[at : at + 10]!r}"
            at = part.end()
            arguments, command, back, down, plain = part.groups()
            if plain:
                self._put(plain)
            elif back:
                self.column = 0
            elif down:
                self._to_row(self.row + 1)
            elif command == "A":
                self.row -= int(arguments or 1)
            elif command == "K":
                self.lines[self.row] = ""
            elif arguments == "?25":
                self.cursor_shown = command == "h"
            else:
                assert command == "m", f"unknown command {arguments}{command}"

    def _put(self, text: str) -> None:
        if self.column + len(text) > self.width:
            self.wrapped.append(text)
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + text + line[self.column + len(text) :]
        self.column += len(text)
        if "━" in self.lines[self.row]:
            self.bars.append(self.lines[self.row])

    def _to_row(self, row: int) -> None:
        self.row, self.column = row, 0
        while len(self.lines) <= row:
            self.lines.append("")

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip()
