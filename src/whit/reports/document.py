"""A report as a value: sections of blocks, rendered as HTML or as Markdown.

All texts are plain: the renderers escape them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["good", "bad", "pending"]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Callout:
    """A highlighted sentence, with further sentences as a list."""

    severity: Severity
    text: str
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of text with a head; the first cell of a row is its header.

    `align` has `l` or `r` for each column. `shades` has a number from 0 to 1 for each cell, None
    for a cell without colour; colour only repeats the text of a cell. `total` is the footer.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    shades: tuple[tuple[float | None, ...], ...] = ()
    total: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A figure (SVG); `name` is the stem of its file, `alt` describes it in one sentence."""

    name: str
    svg: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class Thumbnail:
    """A small image (PNG) with lines of text below it, and an optional mark."""

    png: bytes
    alt: str
    lines: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True)
class Gallery:
    """Small images in order; `more` is a text about those omitted."""

    name: str
    caption: str
    thumbnails: tuple[Thumbnail, ...]
    more: str = ""


@dataclass(frozen=True)
class CodeBlock:
    """Preformatted text: a command, a log, a file."""

    caption: str
    text: str


@dataclass(frozen=True)
class Details:
    """Blocks that are collapsed at first."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; a section among them has a heading one level below."""

    title: str
    blocks: Sequence[Block | Section]


Block = Text | Callout | Table | Picture | Gallery | CodeBlock | Details


@dataclass(frozen=True)
class Document:
    """A complete report; `summary` is its result in one sentence."""

    title: str
    summary: str
    sections: tuple[Section, ...]
