"""Aligned text tables and wrapped sentences for a terminal of any width."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Sequence

_MIN_COLUMN = 12  # characters to which a cell is shortened at most


def align_columns(
    rows: Sequence[Sequence[str]], align: str, widths: Sequence[int] | None = None
) -> list[str]:
    """Return rows as lines of columns two spaces apart, as wide as their cells or as `widths`.

    `align` has one letter a column: `r` for right-aligned. Longer cells end with an ellipsis.
    """
    widths = widths or [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for text, side, width in zip(row, align, widths, strict=True):
            cell = text if len(text) <= width else text[: width - 1] + "…"
            cells.append(cell.rjust(width) if side == "r" else cell.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return lines


def text_table(rows: Sequence[Sequence[str]], align: str, width: int | None = None) -> str:
    """Return rows as aligned columns, the first row as the header.

    `align` has one letter a column: `l`, `r`, or `L` for a left-aligned column that is
    shortened with an ellipsis when the table is wider than `width`, the widest first; without
    such a column, or when shortening does not suffice, lines keep their length.
    """
    assert all(len(row) == len(align) for row in rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    flexible = [i for i, side in enumerate(align) if side == "L" and widths[i] > _MIN_COLUMN]
    while width is not None and flexible and sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(flexible, key=lambda i: widths[i])
        widths[widest] -= 1
        flexible = [i for i in flexible if widths[i] > _MIN_COLUMN]
    lines = align_columns(rows, align, widths)
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def stacked_table(rows: Sequence[Sequence[str]], align: str, width: int) -> str:
    """As `text_table`; columns that do not fit go into further tables, the first one repeated."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    first = min(widths[0], _MIN_COLUMN) if align[0] == "L" else widths[0]
    groups = split_columns(first, widths[1:], width)
    tables = [[0, *(i + 1 for i in group)] for group in groups]
    return "\n\n".join(
        text_table(
            [[row[i] for i in table] for row in rows], "".join(align[i] for i in table), width
        )
        for table in tables
    )


def split_columns(first: int, widths: Sequence[int], width: int) -> list[list[int]]:
    """Return columns in groups that fit beside one of `first` characters; none is empty."""
    groups: list[list[int]] = [[]]
    for i, own in enumerate(widths):
        if groups[-1] and first + sum(2 + widths[j] for j in groups[-1]) + 2 + own > width:
            groups.append([])
        groups[-1].append(i)
    return groups


def shorten_names(names: Sequence[str], width: int) -> list[str] | None:
    """Return names of at most `width` characters, as distinct as they were; None if impossible.

    What all names begin or end with gives way to an ellipsis first, then their middle.
    """
    if max(map(len, names), default=0) <= width:
        return list(names)
    start, end = _common_start(names), len(_common_end(names))
    middles = [name[len(start) : len(name) - end or None] for name in names]
    for last in (end, 0):
        ends = [name[len(name) - last :] if last else "…" * bool(end) for name in names]
        candidates = [f"{'…' * bool(start)}{m}{e}" for m, e in zip(middles, ends, strict=True)]
        if max(map(len, candidates)) <= width:
            return candidates
    for kept in sorted(range(width), key=lambda kept: abs(width - 1 - 2 * kept)):
        cut = [_cut_middle(name, kept, width) for name in candidates]
        if len(set(cut)) == len(set(names)):
            return cut
    return None


def _cut_middle(name: str, kept: int, width: int) -> str:
    """Return `kept` characters from the start, an ellipsis, and as many from the end as fit."""
    if len(name) <= width:
        return name
    return f"{name[:kept]}…{name[len(name) - (width - 1 - kept) :]}"


def _common_start(names: Sequence[str]) -> str:
    """Return the words that all names begin with, up to a separator; not all of a name."""
    start = _common_prefix([name[:-1] for name in names])
    return re.sub(r"[^/\\_-]*$", "", start)


def _common_end(names: Sequence[str]) -> str:
    start = len(_common_start(names))
    end = _common_prefix([name[start + 1 :][::-1] for name in names])[::-1]
    return re.sub(r"^[^/\\_-]*", "", end)


def _common_prefix(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(a for a, _ in same)


def wrap(text: str, width: int) -> str:
    """Return `text` with lines longer than `width` broken at spaces; no word is ever broken."""
    lines = []
    for line in text.split("\n"):
        indent = "    " if line.startswith("  - ") else "  "
        wrapper = textwrap.TextWrapper(max(width, 20), subsequent_indent=indent)
        wrapper.break_long_words = wrapper.break_on_hyphens = False
        lines += wrapper.wrap(line) or [""]
    return "\n".join(lines)
