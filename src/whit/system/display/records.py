"""Rows of values: a plain list of dicts, which a notebook shows as a table."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from whit.errors import InputError
from whit.system.display.html_tables import html_block, html_table, html_text

_MAX_ROWS = 60  # that a notebook shows
_MAX_SHORT = 12  # characters of a text that is not broken


class Records(list[dict[str, Any]]):
    """A list of dicts with equal keys."""

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame. Raises InputError when pandas is not installed."""
        if find_spec("pandas") is None:
            raise InputError("pandas is not installed: pip install pandas.")
        return import_module("pandas").DataFrame(list(self))

    def _repr_html_(self) -> str:
        if not self:
            return html_block(html_text("No rows."))
        keys = list(self[0])
        align = "".join(self._align(key) for key in keys)
        rows = [[_format(row.get(key)) for key in keys] for row in self[:_MAX_ROWS]]
        hidden = len(self) - len(rows)
        more = html_text(f"{hidden:,} more rows." if hidden else "")
        return html_block(html_table(keys, rows, align), more)

    def _align(self, key: str) -> str:
        values = [row.get(key) for row in self]
        if all(map(_is_number, values)):
            return "r"
        return "l" if max(len(str(value)) for value in values) <= _MAX_SHORT else "L"


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _format(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
