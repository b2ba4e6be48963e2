"""A real Chromium, and whit's JavaScript in it."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)
from torch import Tensor

from waiting import LIMIT
from whit.export.html.graph_json import graph_json
from whit.export.html.page import static_file
from whit.export.ir.graph import Graph

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")


_LIMIT = 1000 * LIMIT  # in milliseconds, as Playwright counts


def new_context(browser: Browser, width: int, height: int, scheme: str = "light") -> BrowserContext:
    """A profile of its own, with pages of a size in pixels, which waits as long as it takes."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    context.set_default_timeout(_LIMIT)
    return context


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root, in a container, it cannot build its own sandbox.
        browser = playwright.chromium.launch(
            executable_path=PROGRAM, args=["--no-sandbox"], timeout=_LIMIT
        )
        expect.set_options(timeout=_LIMIT)
        yield browser
        browser.close()


def each(locator: Locator, count: int) -> list[Locator]:
    """Return the elements of a locator, once there are `count`; its `all` does not wait."""
    expect(locator).to_have_count(count)
    return [locator.nth(index) for index in range(count)]


@dataclass
class Watched:
    """A page, and everything it said or asked for that it should not have."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, page: Page) -> Watched:
        watched = cls(page)
        page.on("console", lambda message: watched.said.append(message.text))
        page.on("pageerror", lambda error: watched.said.append(str(error)))
        page.on("request", watched._asked)
        return watched

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(("data:", "blob:")):
            self.asked.append(request.url)


def module(page: Page, name: str) -> None:
    """Load one of the browser's files without imports; what it exports stands in `whit`."""
    code = base64.b64encode(static_file(name).encode()).decode()
    page.evaluate(
        "async (code) => Object.assign((window.whit ??= {}),"
        " await import(`data:text/javascript;base64,${code}`))",
        code,
    )


def logits_in(page: Page, graph: Graph, images: Tensor) -> Tensor:
    """Return the logits (N, K) that network.js gives for uint8 images (N, C, H, W)."""
    module(page, "network.js")
    pixels = base64.b64encode(images.numpy().tobytes()).decode()
    found: list[Any] = page.evaluate(
        """([given, pixels]) => {
          const network = new whit.Network(given);
          const bytes = Uint8Array.from(atob(pixels), (c) => c.charCodeAt(0));
          const size = network.imageShape.reduce((a, b) => a * b);
          const rows = [];
          for (let at = 0; at < bytes.length; at += size)
            rows.push(Array.from(network.logits(bytes.subarray(at, at + size))));
          return rows;
        }""",
        [graph_json(graph), pixels],
    )
    return torch.tensor(found)
