"""A page taken apart and held to what every page must be; and a run to make one of."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

from torch import nn

from whit.recipes.recipe import Recipe
from whit.runs.reader import RunRecord, read_run
from whit.training.plan import make_plan
from whit.training.run import train_run

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """A page taken apart; raises on tags that do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.parts: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h\d", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            return
        self.parts.append(data)
        if self.open and re.fullmatch(r"h\d", self.open[-1]):
            level, said = self.headings[-1]
            self.headings[-1] = (level, said + data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.parts).split())

    @property
    def sections(self) -> list[str]:
        return [said for level, said in self.headings if level == 2]

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def checked(text: str) -> Page:
    """Take a page apart and hold it to what every page must be."""
    page = Page(text)
    assert len(text.encode()) < 3_000_000
    assert page.named("html") == [{"lang": "en"}]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert {"http-equiv": "Content-Security-Policy", "content": policy} in page.named("meta")
    assert not {name for name, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    levels = [level for level, _ in page.headings]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(names)) == len(names)
    for attributes in page.named("a"):
        assert (attributes["href"] or "")[1:] in names
    assert all(attributes.get("alt") for attributes in page.named("img"))
    assert all("scope" in attributes for attributes in page.named("th"))
    assert len(page.named("caption")) == len(page.named("table"))
    return page


def train(recipe: Recipe, out: Path, seed: int = 0, model: nn.Module | None = None) -> RunRecord:
    train_run(make_plan(recipe, model), model=model, seed=seed, threads=1, out=out)
    return read_run(out)
