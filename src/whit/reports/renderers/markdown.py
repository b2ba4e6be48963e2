"""A document as Markdown for a README, and its pictures as files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

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
from whit.reports.figures.thumbnails import sheet_of

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_AT_THE_START = re.compile(r"^([#+=-]|\d+[.)](?=\s|$))")
_MOST_TILES = 30


class Markdown:
    """Writes a document; `pictures` has each file that the text names, by its name."""

    def __init__(self, document: Document, folder: str):
        """`folder` is how the text names the folder of its pictures."""
        self.pictures: dict[str, bytes] = {}
        self._folder = quote(folder)
        parts = [f"## {plain(document.title)}", plain(document.lead)]
        for section in document.sections:
            parts += self._section(section, 3)
        self.text = "\n\n".join(parts) + "\n"

    def _section(self, section: Section, level: int) -> Iterator[str]:
        yield f"{'#' * level} {plain(section.title)}"
        for block in section.blocks:
            if isinstance(block, Section):
                yield from self._section(block, level + 1)
            else:
                yield from self._block(block)

    def _block(self, block: Block) -> Iterator[str]:
        match block:
            case Text(text):
                yield plain(text)
            case Notice(_, text, more):
                lines = [f"**{plain(text)}**", *(f"- {plain(item)}" for item in more)]
                yield "\n".join(f"> {line}" for line in lines)
            case Table():
                yield _table(block)
            case Picture(name, svg, alt, caption):
                yield self._image(f"{name}.svg", svg, alt)
                yield plain(caption)
            case Gallery():
                yield from self._gallery(block)
            case Lines(caption, text):
                fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
                yield f"{plain(caption)}:"
                yield f"{fence}\n{text.rstrip()}\n{fence}"
            case Folded(title, blocks):
                inner = [part for found in blocks for part in self._block(found)]
                yield f"<details><summary>{plain(title)}</summary>"
                yield from inner
                yield "</details>"
            case Section():
                raise AssertionError(block.title)

    def _gallery(self, gallery: Gallery) -> Iterator[str]:
        tiles = gallery.tiles[:_MOST_TILES]
        yield plain(gallery.caption)
        alt = f"The first {len(tiles)} images of the table below, in rows of ten."
        yield self._image(f"{gallery.name}.png", sheet_of([tile.png for tile in tiles]), alt)
        rows = tuple((tile.lines[0], ", ".join(tile.lines[1:]), tile.mark) for tile in tiles)
        yield _table(Table("", ("image", "what", ""), rows, "lll"))
        if len(gallery.tiles) > len(tiles) or gallery.more:
            yield plain("The page shows more of them.")

    def _image(self, name: str, content: bytes, alt: str) -> str:
        stem, _, suffix = name.rpartition(".")
        number = 1
        while name in self.pictures and self.pictures[name] != content:
            number += 1
            name = f"{stem}-{number}.{suffix}"
        self.pictures[name] = content
        return f"![{plain(alt)}]({self._folder}/{name})"


def plain(text: str) -> str:
    """Return a text in one line that Markdown shows as it stands."""
    one_line = " ".join(text.split())
    escaped = _SPECIAL.sub(r"\\\1", one_line)
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        escaped = escaped.replace(sign, entity)
    return _AT_THE_START.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", escaped)


def _table(table: Table) -> str:
    marks = {"l": ":--", "r": "--:"}
    lines = [table.head, tuple(marks[side] for side in table.align), *table.rows]
    if table.total:
        lines.append(table.total)
    body = [
        "| " + " | ".join(row if place == 1 else map(plain, row)) + " |"
        for place, row in enumerate(lines)
    ]
    caption = [f"{plain(table.caption)}:", ""] if table.caption else []
    return "\n".join([*caption, *body])
