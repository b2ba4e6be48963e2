"""An audit as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

import textwrap
from html import escape
from typing import TYPE_CHECKING

from whit.analysis.rows import Extent

if TYPE_CHECKING:
    from whit.analysis.summary import Audit

HEADINGS = ("layer", "kind", "output", "params", "MACs", "field", "jump")
LEFT = 3  # the first columns are aligned left, numbers right
GAP = "  "
NAME_FLOOR = 12  # a name is never cut shorter than this while a column can be dropped instead
DROPPED_FIRST = ("jump", "MACs", "field", "kind", "output")


def shape_text(shape: tuple[int, ...] | None) -> str:
    """Return `16×26×26`, `?` for an unknown shape."""
    if shape is None:
        return "?"
    return "×".join(map(str, shape)) or "scalar"


def number_text(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def extent_text(extent: Extent) -> str:
    if extent is None:
        return "?"
    if isinstance(extent, tuple):
        return "×".join(f"{value:g}" for value in extent)
    return f"{extent:g}"


def cells(audit: Audit) -> list[tuple[str, ...]]:
    """Return the table's rows as text, one cell for each of `HEADINGS`."""
    rows: list[tuple[str, ...]] = []
    for layer in audit.layers:
        never = layer.kind in ("unused", "parameter", "constant") and layer.output_shape is None
        unknown = "" if never else "?"
        rows.append(
            (
                layer.name,
                layer.kind,
                shape_text(layer.output_shape) if layer.output_shape is not None else unknown,
                number_text(layer.params),
                number_text(layer.macs) if not never else "",
                extent_text(layer.receptive_field) if not never else "",
                extent_text(layer.jump) if not never else "",
            )
        )
    return rows


def totals(audit: Audit) -> tuple[str, ...]:
    return (
        "total",
        "",
        shape_text(audit.output_shape),
        number_text(audit.params.total),
        number_text(audit.macs),
        extent_text(audit.receptive_field),
        "",
    )


def plain_text(audit: Audit, width: int) -> str:
    """Return the table in at most `width` columns: columns are dropped, rows never wrapped."""
    rows = [HEADINGS, *cells(audit), totals(audit)]
    keep = list(range(len(HEADINGS)))
    for dropped in DROPPED_FIRST:
        if _needed(rows, keep) <= width:
            break
        keep.remove(HEADINGS.index(dropped))
    room = width - (_needed(rows, keep) - _name_width(rows))
    widths = {at: max(len(row[at]) for row in rows) for at in keep}
    widths[0] = max(min(widths[0], max(len(row[0]) for row in rows)), 1)
    longest = max(len(row[0]) for row in rows)
    widths[0] = min(longest, max(room, 1)) if room < longest else longest
    lines = [_line(row, keep, widths) for row in rows]
    rule = "-" * min(max(map(len, lines)), width)
    text = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    if audit.name:
        text.insert(0, shortened(audit.name, width))
    text += _wrapped(_counts_text(audit), width, "")
    for note in audit.notes:
        text += _wrapped(f"- {note}", width, "  ")
    return "\n".join(line.rstrip() for line in text)


def _name_width(rows: list[tuple[str, ...]]) -> int:
    return min(NAME_FLOOR, max(len(row[0]) for row in rows))


def _needed(rows: list[tuple[str, ...]], keep: list[int]) -> int:
    """Return the columns needed when names are cut as far as they may be."""
    others = sum(max(len(row[at]) for row in rows) for at in keep if at)
    return _name_width(rows) + others + len(GAP) * (len(keep) - 1)


def _line(row: tuple[str, ...], keep: list[int], widths: dict[int, int]) -> str:
    parts = [shortened(row[0], widths[0]).ljust(widths[0])]
    for at in keep[1:]:
        parts.append(row[at].ljust(widths[at]) if at < LEFT else row[at].rjust(widths[at]))
    return GAP.join(parts).rstrip()


def shortened(text: str, width: int) -> str:
    """Return `text` cut to `width`: the beginning goes, since the end tells modules apart."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _counts_text(audit: Audit) -> str:
    params = audit.params
    parts = [f"{params.trainable:,} trainable", f"{params.frozen:,} frozen"]
    parts += [f"{params.buffers:,} in buffers", f"{params.unused:,} never used"]
    return f"parameters: {params.total:,} = " + " + ".join(parts[:3]) + f"; {parts[3]}"


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    wrapped = textwrap.wrap(text, max(width, 10), subsequent_indent=indent, break_on_hyphens=False)
    return wrapped or [""]


def html(audit: Audit) -> str:
    """Return the table as HTML; every text in it is escaped."""
    head = "".join(f"<th>{escape(text)}</th>" for text in HEADINGS)
    body = "".join(_html_row(row, "td") for row in cells(audit))
    title = f"<caption>{escape(audit.name)}</caption>" if audit.name else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in audit.notes)
    return (
        f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        f"<tfoot>{_html_row(totals(audit), 'th')}</tfoot></table>"
        f"<p>{escape(_counts_text(audit))}</p>" + (f"<ul>{notes}</ul>" if notes else "")
    )


def _html_row(row: tuple[str, ...], tag: str) -> str:
    aligned = (
        f'<{tag} style="text-align:{"left" if at < LEFT else "right"}">{escape(text)}</{tag}>'
        for at, text in enumerate(row)
    )
    return f"<tr>{''.join(aligned)}</tr>"
