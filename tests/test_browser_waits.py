"""What a browser test reads at once may not be drawn yet: it waits, or fails on a busy machine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "browser"
# They return what is there now, and what waits for it instead.
IMMEDIATE = {
    "all": "chromium.each",
    "count": "expect(...).to_have_count",
    "is_visible": "expect(...).to_be_visible",
    "is_hidden": "expect(...).to_be_hidden",
    "is_checked": "expect(...).to_be_checked",
    "query_selector": "page.locator",
    "query_selector_all": "page.locator",
    "wait_for_timeout": "expect",
}


def immediate_reads(source: str) -> list[str]:
    """Return each immediate read that no `wait_until` repeats, with what to write instead."""
    tree = ast.parse(source)
    repeated = {
        id(inner)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "wait_until"
        for inner in ast.walk(call)
    }
    return [
        f"line {call.lineno}: {call.func.attr}() does not wait; use {IMMEDIATE[call.func.attr]}"
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in IMMEDIATE
        and id(call) not in repeated
        # Of text, `count` takes what it counts; of a locator, none of them takes anything.
        and (call.func.attr not in ("all", "count") or not call.args)
    ]


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_browser_tests_wait_for_what_they_read(file: Path) -> None:
    assert immediate_reads(file.read_text()) == []


def test_immediate_reads_are_found() -> None:
    assert immediate_reads("first, second = page.locator('.card').all()") == [
        "line 1: all() does not wait; use chromium.each"
    ]
    assert len(immediate_reads("assert page.locator('img').count() == 0")) == 1
    assert immediate_reads("wait_until(lambda: rows.count() == 2)\n'text'.count('t')") == []
