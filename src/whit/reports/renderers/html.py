"""A document as one HTML page: no scripts, no external resources, every text escaped."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from importlib import resources

from whit.reports import document
from whit.system.file_names import encodable

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SIGNS = {"good": "✔", "bad": "✘", "pending": "…"}


def render_html(report: document.Document) -> str:
    """Return the page as text; the same document gives the same page."""
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    title = escape(report.title)
    links, body = "", ""
    for number, section in enumerate(report.sections, start=1):
        links += f'<li><a href="#section-{number}">{escape(section.title)}</a></li>'
        body += _section(section, f"section-{number}", 2)
    page = f"""<!DOCTYPE html>
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
<p class="summary">{escape(report.summary)}</p>
<nav aria-label="Contents"><ol>{links}</ol></nav>
</header>
<main id="content" tabindex="-1">
{body}</main>
</body>
</html>
"""
    return encodable(page)


def _section(section: document.Section, id: str, level: int) -> str:
    heading = f'<h{level} id="{id}">{escape(section.title)}</h{level}>'
    inner = "".join(
        _section(block, f"{id}-{number}", level + 1)
        if isinstance(block, document.Section)
        else _block(block)
        for number, block in enumerate(section.blocks, start=1)
    )
    return f'<section aria-labelledby="{id}">\n{heading}\n{inner}</section>\n'


def _block(block: document.Block) -> str:
    match block:
        case document.Text(text):
            return f"<p>{escape(text)}</p>\n"
        case document.Callout(severity, text, items):
            list_items = "".join(f"<li>{escape(item)}</li>" for item in items)
            rest = f"<ul>{list_items}</ul>" if items else ""
            sign = f'<span aria-hidden="true">{_SIGNS[severity]}</span> '
            return f'<div class="callout {severity}"><p>{sign}{escape(text)}</p>{rest}</div>\n'
        case document.Table():
            return _table(block)
        case document.Picture(_, svg, alt, caption):
            url = f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
            image = (
                f'<img src="{url}" alt="{escape(alt)}"><figcaption>{escape(caption)}</figcaption>'
            )
            return f'<figure class="chart">{image}</figure>\n'
        case document.Gallery():
            return _gallery(block)
        case document.CodeBlock(caption, text):
            label = escape(caption)
            pre = f'<pre tabindex="0" role="region" aria-label="{label}">{escape(text)}</pre>'
            return f'<figure class="code"><figcaption>{label}</figcaption>{pre}</figure>\n'
        case document.Details(title, blocks):
            inner = "".join(map(_block, blocks))
            return f"<details><summary>{escape(title)}</summary>\n{inner}</details>\n"


def _table(table: document.Table) -> str:
    head = "".join(
        f'<th scope="col" class="{side}">{escape(text)}</th>'
        for text, side in zip(table.head, table.align, strict=True)
    )
    body = "".join(
        _row(row, table.align, table.shades[i] if table.shades else ())
        for i, row in enumerate(table.rows)
    )
    foot = f"<tfoot>{_row(table.total, table.align, ())}</tfoot>" if table.total else ""
    caption = escape(table.caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody>{foot}</table></div>\n"
    )


def _row(row: tuple[str, ...], align: str, shades: tuple[float | None, ...]) -> str:
    cells = [f'<th scope="row" class="{align[0]}">{escape(row[0])}</th>']
    for i in range(1, len(row)):
        shade = shades[i] if shades else None
        style = f' style="{_shade_style(shade)}"' if shade is not None else ""
        muted = " muted" if shades and row[i] == "0" else ""
        cells.append(f'<td class="{align[i]}{muted}"{style}>{escape(row[i])}</td>')
    return f"<tr>{''.join(cells)}</tr>\n"


def _shade_style(shade: float) -> str:
    """Return a background of the cividis scale, pale for 0, and the text colour on it.

    The text is black or white, whichever has more contrast by WCAG 2: at least 4.5 to 1 on any
    background.
    """
    from matplotlib import colormaps

    red, green, blue, _ = colormaps["cividis"](1 - shade)
    luminance = 0.2126 * _linearize(red) + 0.7152 * _linearize(green) + 0.0722 * _linearize(blue)
    background = "".join(f"{round(255 * channel):02x}" for channel in (red, green, blue))
    return f"background:#{background};color:{'#000' if luminance > 0.179 else '#fff'}"


def _linearize(channel: float) -> float:
    """Return the linear light of an sRGB channel, both from 0 to 1."""
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def _gallery(gallery: document.Gallery) -> str:
    items = []
    for thumbnail in gallery.thumbnails:
        url = f"data:image/png;base64,{b64encode(thumbnail.png).decode()}"
        first, *others = thumbnail.lines
        lines = f"<b>{escape(first)}</b>" + "".join(f"<span>{escape(x)}</span>" for x in others)
        mark = f"<em>{escape(thumbnail.mark)}</em>" if thumbnail.mark else ""
        items.append(
            f'<li{" class=marked" if mark else ""}><figure><img src="{url}" '
            f'alt="{escape(thumbnail.alt)}"><figcaption>{lines}{mark}</figcaption></figure></li>\n'
        )
    more = f"<p>{escape(gallery.more)}</p>\n" if gallery.more else ""
    return f'<p>{escape(gallery.caption)}</p>\n<ol class="gallery">\n{"".join(items)}</ol>\n{more}'
