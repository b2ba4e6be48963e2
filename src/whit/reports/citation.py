"""How to cite whit: the facts of CITATION.cff, which a wheel does not contain."""

from __future__ import annotations

from importlib.metadata import version

from whit.reports.document import Block, CodeBlock, Text

TITLE = "whit"
AUTHORS = ("The whit developers",)  # organizations, not persons with a given and a family name
LICENSE = "MIT"
YEAR = 2026  # of the release


def bibtex() -> str:
    """Return the BibTeX entry of the installed version of whit."""
    # The inner braces keep BibTeX from splitting an organization into given and family name.
    authors = " and ".join(f"{{{author}}}" for author in AUTHORS)
    fields = {
        "title": TITLE,
        "author": authors,
        "version": version("whit"),
        "year": str(YEAR),
        "license": LICENSE,
    }
    width = max(map(len, fields))
    lines = [f"  {key:{width}} = {{{value}}}" for key, value in fields.items()]
    return "\n".join([f"@software{{{TITLE},", ",\n".join(lines), "}"])


def citation_blocks() -> list[Block]:
    """Return the section that asks for a citation of whit."""
    return [
        Text("To cite whit with these results, use this BibTeX entry:"),
        CodeBlock("BibTeX", bibtex()),
    ]
