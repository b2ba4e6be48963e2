"""HTML of values for a notebook: tables, texts and lists that fit the width of their output.

Every text is escaped. There are no scripts and no fixed colours: text has the colour of the page,
so it is legible in light and in dark themes. Styles stand in the elements, because viewers of
notebooks remove style sheets.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# In JupyterLab the theme's colour, elsewhere a grey that is visible on white and on black.
RULE_COLOR = "var(--jp-border-color1, rgba(128, 128, 128, 0.5))"
_CELL = "padding:0.2em 0.45em;vertical-align:top;border:0;max-width:none;"
_SIDES = {
    "l": "text-align:left;",
    "L": "text-align:left;overflow-wrap:anywhere;",
    "r": "text-align:right;font-variant-numeric:tabular-nums;",
}
_MIN_NAMES = 42  # characters of long names that stay on one line, in all columns of a table
_TABLE = (
    "table-layout:auto;width:auto;max-width:100%;margin:0.3em 0;border-collapse:collapse;"
    "color:inherit;font-size:inherit;"
)


def html_block(*parts: str, title: str = "") -> str:
    """Return parts of HTML as one output, below an optional title. Empty parts are left out.

    What is wider than the output all the same, such as a table of many columns, scrolls within it.
    """
    heading = f'<div style="font-weight:bold;margin:0.3em 0">{escape(title)}</div>' if title else ""
    return (
        '<div class="whit-output" style="max-width:100%;overflow-x:auto;line-height:1.4">'
        f"{heading}{''.join(parts)}</div>"
    )


def html_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    align: str,
    *,
    footer: Sequence[str] = (),
    caption: str = "",
) -> str:
    """Return a table with the header `head`; `footer` is a last row of totals.

    `align` has one letter a column: `l`, `r` for numbers, or `L` for long names and paths, which
    may break anywhere. Headings break between words, and numbers not at all.
    """
    assert all(len(row) == len(align) for row in (head, *rows, footer or head))
    longest = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    room = _MIN_NAMES // max(align.count("L"), 3)
    styles = [
        _SIDES[side] + (f"min-width:{min(width, room)}ch;" if side == "L" else "")
        for side, width in zip(align, longest, strict=True)
    ]
    parts = [f'<table style="{_TABLE}">']
    if caption:
        style = "caption-side:top;text-align:left;color:inherit;padding:0.2em 0.6em;"
        parts.append(f'<caption style="{style}">{escape(caption)}</caption>')
    if any(head):
        rule = f"border-bottom:1px solid {RULE_COLOR}"
        parts.append(f'<thead style="{rule}">{_row(head, styles, "th")}</thead>')
    parts += ["<tbody>", *(_row(row, styles, "td") for row in rows), "</tbody>"]
    if footer:
        rule = f"border-top:1px solid {RULE_COLOR}"
        parts.append(f'<tfoot style="{rule}">{_row(footer, styles, "th")}</tfoot>')
    return "".join([*parts, "</table>"])


def html_text(text: str, *, bold: bool = False) -> str:
    """Return a paragraph; its lines are kept and wrapped."""
    if not text:
        return ""
    style = "margin:0.3em 0;white-space:pre-line;overflow-wrap:anywhere;"
    return f'<div style="{style}{"font-weight:bold;" * bold}">{escape(text)}</div>'


def html_list(items: Sequence[str]) -> str:
    """Return items as a list; nothing for no items."""
    if not items:
        return ""
    points = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f'<ul style="margin:0.3em 0;padding-left:1.5em;overflow-wrap:anywhere">{points}</ul>'


def html_details(summary: str, *parts: str) -> str:
    """Return parts of HTML that are folded below a line, and scroll when they are long."""
    return (
        f'<details><summary style="cursor:pointer">{escape(summary)}</summary>'
        f'<div style="max-height:24em;overflow:auto">{"".join(parts)}</div></details>'
    )


def html_columns(*parts: str) -> str:
    """Return parts of HTML in a row where there is room, else below each other."""
    cells = "".join(f'<div style="max-width:100%">{part}</div>' for part in parts if part)
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:0 2em;align-items:flex-start">{cells}</div>'
    )


def html_progress(fraction: float, text: str) -> str:
    """Return a bar that is filled to `fraction` in [0, 1], with a line of text below it."""
    filled = 100 * min(max(fraction, 0.0), 1.0)
    outer = f"border:1px solid {RULE_COLOR};height:0.9em;max-width:40em;border-radius:2px;"
    inner = f"width:{filled:.1f}%;height:100%;background:var(--jp-brand-color1, #3b82c4);"
    return (
        f'<div role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{filled:.0f}" style="{outer}"><div style="{inner}"></div></div>'
        f'<div style="font-variant-numeric:tabular-nums">{escape(text)}</div>'
    )


def _row(cells: Sequence[str], styles: Sequence[str], tag: str) -> str:
    weight = "font-weight:bold;" if tag == "th" else ""
    parts = []
    for cell, style in zip(cells, styles, strict=True):
        # A number with its unit, such as "99.41 (9941/10000)", stays on one line.
        wrapping = "nowrap" if tag == "td" and "right" in style else "normal"
        style = f"{_CELL}{style}{weight}white-space:{wrapping};"
        parts.append(f'<{tag} style="{style}">{escape(cell)}</{tag}>')
    return f"<tr>{''.join(parts)}</tr>"
