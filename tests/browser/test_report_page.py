"""A report as an HTML page in a real Chromium, narrow and wide, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from browser.chromium import PROGRAM, new_context
from whit.reports import write_report

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
RECORD = Path(__file__).parents[2] / "records" / "sprint"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    (study,) = RECORD.glob("sprint-*")
    return write_report(study, tmp_path_factory.mktemp("report") / "report.html")


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1600, "light")])
def test_no_table_of_results_is_cut_at_any_width(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    context = new_context(browser, width, 800, scheme)
    page = context.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    budget = page.get_by_role("region", name="Budget")
    assert budget.locator("thead th").all_inner_texts() == ["rule", "limit", "value", "status"]
    for name in ("Budget", "Accuracy after", "Recorded result", "Recipe", "Environment"):
        region = page.locator(f'.scroll[aria-label^="{name}"]')
        sizes = region.evaluate("(region) => [region.scrollWidth, region.clientWidth]")
        assert sizes[0] <= sizes[1], name
    assert messages == []
    context.close()
