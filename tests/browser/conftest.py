from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from browser.chromium import Watched, chromium


@pytest.fixture(scope="module")  # as long as Playwright runs, its event loop holds the thread
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """A new page of its own, wide and light."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
    yield Watched.of(context.new_page())
    context.close()
