"""A document as one HTML page: no script, nothing from outside, every text escaped."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from importlib import resources

from whit.reports.document import (
    Block,
    Document,
    Folded,
    Gallery,
    Lines,
    Notice,
    Picture,
    Section,
    Table,
    Text,
)

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SIGNS = {"good": "✔", "bad": "✘", "open": "…"}


def html_page(document: Document) -> str:
    """Return the page as text; the same document gives the same page."""
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    links = "".join(
        f'<li><a href="#part-{number}">{escape(section.title)}</a></li>'
        for number, section in enumerate(document.sections, start=1)
    )
    body = "".join(
        _section(section, f"part-{number}", 2)
        for number, section in enumerate(document.sections, start=1)
    )
    title = escape(document.title)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} – whit report</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the report</a>
<header>
<h1>{title}</h1>
<p class="lead">{escape(document.lead)}</p>
<nav aria-label="Contents"><ol>{links}</ol></nav>
</header>
<main id="content" tabindex="-1">
{body}</main>
</body>
</html>
"""


def _section(section: Section, name: str, level: int) -> str:
    heading = f'<h{level} id="{name}">{escape(section.title)}</h{level}>'
    inner = []
    for number, block in enumerate(section.blocks, start=1):
        below = isinstance(block, Section)
        inner.append(
            _section(block, f"{name}-{number}", level + 1)
            if below and isinstance(block, Section)
            else _block(block)
        )
    return f'<section aria-labelledby="{name}">\n{heading}\n{"".join(inner)}</section>\n'


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{escape(text)}</p>\n"
        case Notice(mood, text, more):
            items = "".join(f"<li>{escape(item)}</li>" for item in more)
            rest = f"<ul>{items}</ul>" if items else ""
            sign = f'<span aria-hidden="true">{_SIGNS[mood]}</span> '
            return f'<div class="notice {mood}"><p>{sign}{escape(text)}</p>{rest}</div>\n'
        case Table():
            return _table(block)
        case Picture(_, svg, alt, caption):
            address = f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
            return (
                f'<figure class="chart"><img src="{address}" alt="{escape(alt)}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>\n"
            )
        case Gallery():
            return _gallery(block)
        case Lines(caption, text):
            said = escape(caption)
            return (
                f'<figure class="lines"><figcaption>{said}</figcaption>'
                f'<pre tabindex="0" role="region" aria-label="{said}">{escape(text)}</pre>'
                "</figure>\n"
            )
        case Folded(title, blocks):
            inner = "".join(map(_block, blocks))
            return f"<details><summary>{escape(title)}</summary>\n{inner}</details>\n"
        case Section():  # only among the blocks of a section
            raise AssertionError(block.title)


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col" class="{side}">{escape(text)}</th>'
        for text, side in zip(table.head, table.align, strict=True)
    )
    body = "".join(
        _row(row, table.align, table.shades[place] if table.shades else ())
        for place, row in enumerate(table.rows)
    )
    foot = f"<tfoot>{_row(table.total, table.align, ())}</tfoot>" if table.total else ""
    caption = escape(table.caption)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody>{foot}</table></div>\n"
    )


def _row(row: tuple[str, ...], align: str, shades: tuple[float | None, ...]) -> str:
    cells = [f'<th scope="row" class="{align[0]}">{escape(row[0])}</th>']
    for place in range(1, len(row)):
        shade = shades[place] if shades else None
        colour = f' style="{_colour(shade)}"' if shade is not None else ""
        muted = " zero" if shades and row[place] == "0" else ""
        cells.append(f'<td class="{align[place]}{muted}"{colour}>{escape(row[place])}</td>')
    return f"<tr>{''.join(cells)}</tr>\n"


def _colour(shade: float) -> str:
    """Return a background of the cividis scale, pale for 0, and the words' colour on it.

    Of black and white, the one of more contrast by WCAG 2: at least 4.5 to 1 on any background.
    """
    from matplotlib import colormaps

    red, green, blue, _ = colormaps["cividis"](1 - shade)
    light = 0.2126 * _linear(red) + 0.7152 * _linear(green) + 0.0722 * _linear(blue) > 0.179
    paint = "".join(f"{round(255 * part):02x}" for part in (red, green, blue))
    return f"background:#{paint};color:{'#000' if light else '#fff'}"


def _linear(part: float) -> float:
    """Return the light of a part of an sRGB colour, both from 0 to 1."""
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def _gallery(gallery: Gallery) -> str:
    tiles = []
    for tile in gallery.tiles:
        address = f"data:image/png;base64,{b64encode(tile.png).decode()}"
        first, *others = tile.lines
        lines = f"<b>{escape(first)}</b>" + "".join(f"<span>{escape(x)}</span>" for x in others)
        mark = f"<em>{escape(tile.mark)}</em>" if tile.mark else ""
        tiles.append(
            f'<li{" class=marked" if mark else ""}><figure><img src="{address}" '
            f'alt="{escape(tile.alt)}"><figcaption>{lines}{mark}</figcaption></figure></li>\n'
        )
    more = f"<p>{escape(gallery.more)}</p>\n" if gallery.more else ""
    return f'<p>{escape(gallery.caption)}</p>\n<ol class="gallery">\n{"".join(tiles)}</ol>\n{more}'
