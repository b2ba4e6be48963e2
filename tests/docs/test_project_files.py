"""What describes the project to others: CITATION.cff, the metadata of the package, the site."""

from __future__ import annotations

import re
import tomllib

from doc_blocks import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"(?m)^([a-z-]+): (.+)$", text))
    assert fields["cff-version"] == "1.2.0"
    assert (fields["title"], fields["version"]) == (PROJECT["name"], PROJECT["version"])
    assert fields["license"] == PROJECT["license"]


def test_the_package_has_keywords_and_classifiers() -> None:
    assert PROJECT["keywords"]
    assert all(" :: " in classifier for classifier in PROJECT["classifiers"])


def test_the_test_extra_does_not_pull_the_site() -> None:
    extras = PROJECT["optional-dependencies"]
    assert not any("mkdocs" in part for name in extras.keys() - {"docs"} for part in extras[name])
    assert "docs" not in re.findall(r"\w+", " ".join(p for p in extras["test"] if "whit[" in p))


def test_the_site_asks_for_nothing_from_elsewhere() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in text
    assert "://" not in text.replace("http://127.0.0.1", "")


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f": {page.relative_to(ROOT / 'docs').as_posix()}\n" in text, page
