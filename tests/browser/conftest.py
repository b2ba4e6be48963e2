from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from browser.chromium import Watched, chromium, new_context


@pytest.fixture(scope="module")  # as long as Playwright runs, its event loop holds the thread
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """A new page of its own, wide and light."""
    context = new_context(browser, 1200, 900)
    yield Watched.of(context.new_page())
    context.close()
