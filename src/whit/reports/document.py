"""A report as a value: sections of blocks, which HTML and Markdown each write in their own way.

All texts are plain: escaping is done by whoever writes them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Mood = Literal["good", "bad", "open"]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Notice:
    """What must not be overlooked: a sentence, and more of them as a list."""

    mood: Mood
    text: str
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; the first cell of a row names it.

    `align` has `l` or `r` for each column. `shades` has a number from 0 to 1 for each cell, None
    for a cell without colour; the text of a cell says the same.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    shades: tuple[tuple[float | None, ...], ...] = ()
    total: tuple[str, ...] = ()  # a last row, set apart


@dataclass(frozen=True)
class Picture:
    """A drawing (SVG); `name` is that of its file, `alt` says what it shows in a sentence."""

    name: str
    svg: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class Tile:
    """A small image (PNG) with lines below it, and a mark for what is special about it."""

    png: bytes
    alt: str
    lines: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True)
class Gallery:
    """Small images in their order; `more` says how many were left out."""

    name: str
    caption: str
    tiles: tuple[Tile, ...]
    more: str = ""


@dataclass(frozen=True)
class Lines:
    """Text whose line breaks count: a command, a log, a file."""

    caption: str
    text: str


@dataclass(frozen=True)
class Folded:
    """Blocks that only some readers want to see."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; a section among them has a heading one level below."""

    title: str
    blocks: Sequence[Block]


Block = Text | Notice | Table | Picture | Gallery | Lines | Folded | Section


@dataclass(frozen=True)
class Document:
    """A whole report; `lead` is what it comes to, in a sentence."""

    title: str
    lead: str
    sections: tuple[Section, ...]
