"""A document as Markdown for a README, and its pictures as files next to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

from whit.reports import document
from whit.reports.figures.thumbnails import build_contact_sheet

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_LINE_START = re.compile(r"^([#+=-]|\d+[.)](?=\s|$))")
_MAX_THUMBNAILS = 30


class Markdown:
    """A rendered document: its text, and the bytes of each picture by file name."""

    def __init__(self, report: document.Document, folder: str):
        """`folder` is the path of the pictures, relative to the Markdown file."""
        self.pictures: dict[str, bytes] = {}
        self._folder = quote(folder)
        parts = [f"## {escape(report.title)}", escape(report.summary)]
        for section in report.sections:
            parts += self._section(section, 3)
        self.text = "\n\n".join(parts) + "\n"

    def _section(self, section: document.Section, level: int) -> Iterator[str]:
        yield f"{'#' * level} {escape(section.title)}"
        for block in section.blocks:
            if isinstance(block, document.Section):
                yield from self._section(block, level + 1)
            else:
                yield from self._block(block)

    def _block(self, block: document.Block) -> Iterator[str]:
        match block:
            case document.Text(text):
                yield escape(text)
            case document.Callout(_, text, items):
                lines = [f"**{escape(text)}**", *(f"- {escape(item)}" for item in items)]
                yield "\n".join(f"> {line}" for line in lines)
            case document.Table():
                yield _table(block)
            case document.Picture(name, svg, alt, caption):
                yield self._image(f"{name}.svg", svg, alt)
                yield escape(caption)
            case document.Gallery():
                yield from self._gallery(block)
            case document.CodeBlock(caption, text):
                fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
                yield f"{escape(caption)}:"
                yield f"{fence}\n{text.rstrip()}\n{fence}"
            case document.Details(title, blocks):
                yield f"<details><summary>{escape(title)}</summary>"
                for inner in blocks:
                    yield from self._block(inner)
                yield "</details>"

    def _gallery(self, gallery: document.Gallery) -> Iterator[str]:
        thumbnails = gallery.thumbnails[:_MAX_THUMBNAILS]
        yield escape(gallery.caption)
        alt = f"The first {len(thumbnails)} images of the table below, in rows of ten."
        sheet = build_contact_sheet([thumbnail.png for thumbnail in thumbnails])
        yield self._image(f"{gallery.name}.png", sheet, alt)
        rows = tuple((t.lines[0], ", ".join(t.lines[1:]), t.mark) for t in thumbnails)
        yield _table(document.Table("", ("image", "prediction", ""), rows, "lll"))
        if len(gallery.thumbnails) > len(thumbnails) or gallery.more:
            yield escape("More are shown in the HTML report.")

    def _image(self, name: str, content: bytes, alt: str) -> str:
        stem, _, suffix = name.rpartition(".")
        number = 1
        while name in self.pictures and self.pictures[name] != content:
            number += 1
            name = f"{stem}-{number}.{suffix}"
        self.pictures[name] = content
        return f"![{escape(alt)}]({self._folder}/{name})"


def escape(text: str) -> str:
    """Return a text in one line, escaped so that Markdown renders it literally."""
    escaped = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        escaped = escaped.replace(sign, entity)
    return _LINE_START.sub(lambda match: f"{match[0][:-1]}\\{match[0][-1]}", escaped)


def _table(table: document.Table) -> str:
    rule = " | ".join({"l": ":--", "r": "--:"}[side] for side in table.align)
    head, *body = (
        " | ".join(map(escape, row))
        for row in (table.head, *table.rows, *([table.total] if table.total else []))
    )
    caption = [f"{escape(table.caption)}:", ""] if table.caption else []
    return "\n".join([*caption, *(f"| {row} |" for row in (head, rule, *body))])
