"""Aligned text tables for a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], align: str, width: int | None = None) -> str:
    """Return rows as aligned columns, the first row as the head.

    `align` has one letter a column: `l`, `r`, or `L` for a left-aligned column that is
    shortened with an ellipsis when the table is wider than `width`; without such a column, or
    when shortening does not suffice, lines keep their length.
    """
    assert all(len(row) == len(align) for row in rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    if width is not None and "L" in align:
        flexible = align.index("L")
        over = sum(widths) + 2 * (len(widths) - 1) - width
        if over > 0:
            widths[flexible] = max(12, widths[flexible] - over)
    lines = []
    for row in rows:
        cells = []
        for text, side, room in zip(row, align, widths, strict=True):
            shown = text if len(text) <= room else text[: room - 1] + "…"
            cells.append(shown.rjust(room) if side == "r" else shown.ljust(room))
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)
