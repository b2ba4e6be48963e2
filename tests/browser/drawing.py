"""Drawing on the sheet as a person does: by pointer and by keys."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import CDPSession, Page
from torch import Tensor

_INK = 100  # a pixel at or above is drawn, all others are paper


def place_on_sheet(page: Page) -> tuple[float, float, float]:
    """Left and top of the sheet, and how many pixels of the screen one of MNIST's has."""
    box = page.locator("canvas.sheet").bounding_box()
    assert box is not None
    return box["x"], box["y"], box["width"] / 28


def strokes_of(image: Tensor) -> list[tuple[int, int, int]]:
    """The rows of ink in an image (28, 28): line, first column, last column."""
    found = []
    for y, line in enumerate((image >= _INK).tolist()):
        x = 0
        while x < 28:
            if line[x]:
                first = x
                while x < 28 and line[x]:
                    x += 1
                found.append((y, first, x - 1))
            x += 1
    return found


def paint(page: Page, pointer: CDPSession, image: Tensor) -> None:
    """Clear the sheet and draw an image on it, a stroke of the mouse for each row of ink."""
    page.get_by_role("button", name="Clear").click()
    left, top, cell = place_on_sheet(page)

    def send(kind: str, x: float, y: float) -> None:
        event: dict[str, Any] = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
        if kind != "mouseReleased":
            event["buttons"] = 1
        pointer.send("Input.dispatchMouseEvent", event)

    for y, first, last in strokes_of(image):
        height = top + (y + 0.5) * cell
        send("mousePressed", left + (first + 0.5) * cell, height)
        if last > first:
            send("mouseMoved", left + (last + 0.5) * cell, height)
        send("mouseReleased", left + (last + 0.5) * cell, height)


def one_frame_later(page: Page) -> None:
    """Wait until what was drawn has been read."""
    page.evaluate(
        "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
    )


def draw_a_seven(page: Page) -> None:
    left, top, cell = place_on_sheet(page)
    corners = [(8, 6), (20, 6), (12, 22)]
    points = [(left + x * cell, top + y * cell) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()
    one_frame_later(page)


NAMED = {
    *("button", "link", "checkbox", "slider", "combobox", "searchbox", "textbox", "application"),
    *("image", "img", "region", "table", "heading", "DisclosureTriangle"),
}


def nameless(page: Page) -> list[str]:
    """The roles of what a screen reader meets and cannot name."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")
    return [
        node["role"]["value"]
        for node in tree["nodes"]
        if not node["ignored"]
        and node["role"]["value"] in NAMED
        and not node.get("name", {}).get("value", "").strip()
    ]
