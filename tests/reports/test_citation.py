"""The citation in a report, and CITATION.cff for those who read the repository."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

from whit.reports import citation, render_study_html

FILE = Path(__file__).parents[2] / "CITATION.cff"


def test_the_bibtex_entry() -> None:
    assert citation.bibtex() == (
        "@software{whit,\n"
        "  title   = {whit},\n"
        "  author  = {{The whit developers}},\n"
        f"  version = {{{version('whit')}}},\n"
        "  year    = {2026},\n"
        "  license = {MIT}\n"
        "}"
    )


def test_the_package_and_the_file_have_the_same_facts() -> None:
    text = FILE.read_text(encoding="utf-8")
    fields = dict(re.findall(r'^([a-z-]+): "?([^">\n]+)"?$', text, re.MULTILINE))
    assert fields["title"] == citation.TITLE
    assert fields["version"] == version("whit")
    assert fields["license"] == citation.LICENSE
    assert fields.get("date-released", f"{citation.YEAR}-").startswith(f"{citation.YEAR}-")
    authors = text.partition("\nauthors:\n")[2]
    assert tuple(re.findall(r'^  - name: "?([^"\n]+)"?$', authors, re.MULTILINE)) == (
        citation.AUTHORS
    )


def test_the_report_of_a_study_has_it(runs: Path) -> None:
    assert "author  = {{The whit developers}}" in render_study_html(runs)
