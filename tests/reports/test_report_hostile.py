"""Nothing that somebody wrote into a run becomes markup, in HTML or in Markdown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_page import checked

from harness.forging import reseal
from whit.reports import render_run_html, render_study_html, write_report
from whit.reports.renderers.markdown import escape
from whit.runs.reader import read_run

HOSTILE = '</script></pre><img src="http://x.y/z" onerror=alert(1)>`|a|b|` [x](http://x.y) &lt; # *'


@pytest.fixture
def hostile(finished: Path) -> Path:
    """A run in whose every text somebody wrote what would be markup."""
    quoted = json.dumps(HOSTILE + "\n\n# more\n| a | b |")
    recipe = (finished / "recipe.toml").read_text()
    recipe = re.sub(r'description = ".*"', lambda _: f"description = {quoted}", recipe)
    (finished / "recipe.toml").write_text(recipe)
    file = finished / "environment.json"
    environment = json.loads(file.read_text())
    environment |= dict.fromkeys(("torch", "processor", "threads", "device", "whit"), HOSTILE)
    environment["code"] = {"commit": HOSTILE, "dirty": True}
    file.write_text(json.dumps(environment))
    file = finished / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "notes": [HOSTILE]}))
    return Path(finished.rename(finished.with_name("<b onclick=x> $(touch x) `y`")))


def test_nothing_of_a_run_becomes_markup(hostile: Path) -> None:
    page = checked(render_run_html(read_run(hostile, allow_edited=True)))
    assert HOSTILE in page.text
    assert "Integrity check failed" in page.text
    command = re.search(r"whit train (.*?) --seed", page.text)
    assert command is not None
    assert command[1].startswith("'")
    reseal(hostile)  # a study counts only runs that nobody altered
    checked(render_study_html(hostile.parent))


def test_nothing_of_a_run_becomes_markdown(hostile: Path, tmp_path: Path) -> None:
    written = write_report(hostile, tmp_path / "out" / "r.md", markdown=True)
    text = outside_code(written.read_text())
    assert "<img" not in text
    assert "</script" not in text
    assert not re.search(r"(?<!\\)\]\(http", text)
    assert not re.search(r"^# ", text, re.MULTILINE)
    columns = [re.findall(r"(?<!\\)\|", line) for line in text.splitlines() if line[:1] == "|"]
    assert {len(found) for found in columns} <= {4, 3, 5, 6, 8, 12}
    for part in ("a|b", "*", "`", "<b>", "# x", "1. x", "- x", "a\nb", "_", "&amp;"):
        assert not re.search(r"(?<!\\)[|*`_]|<|^#|^- |^\d+\. |\n", escape(part))


@pytest.mark.parametrize("seed", [HOSTILE, [1], {"a": HOSTILE}, 1e308, True, -1])
def test_a_seed_may_be_anything(seed: Any, finished: Path) -> None:
    file = finished / "environment.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "seed": seed}))
    reseal(finished)
    checked(render_run_html(read_run(finished, allow_edited=True)))
    checked(render_study_html(finished.parent))


def outside_code(text: str) -> str:
    return re.sub(r"^(`{3,})\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
