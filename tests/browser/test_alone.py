"""The self-contained HTML export, opened as a local file in Chromium."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from torch import Tensor

from browser.chromium import PROGRAM, Watched, new_context
from browser.drawing import draw_a_seven, nameless, one_frame_later, paint
from harness.processes import whit
from harness.records import KEPT
from whit.data.datasets import load_dataset

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = KEPT / "seed-0"
    folder = tmp_path_factory.mktemp("html")
    code, output = whit(folder, "export", str(run), "--format", "html", "--out", "page.html")
    assert code == 0, output
    assert "10,000 of 10,000 test images: same class as the model" in " ".join(output.split())
    return folder / "page.html"


@pytest.fixture
def page(watched: Watched, file: Path) -> Watched:
    watched.page.goto(file.as_uri())
    return watched


def clean(watched: Watched) -> bool:
    """Whether the page logged nothing to the console and requested no other resource."""
    return watched.said == [] and all(url.startswith("file:") for url in watched.asked)


def test_a_drawing_is_classified_while_it_is_made(page: Watched) -> None:
    verdict = page.page.locator(".verdict")
    expect(verdict).to_have_text("Nothing drawn yet")
    draw_a_seven(page.page)
    expect(verdict).to_contain_text("7: ")
    page.page.locator("summary").click()
    expect(page.page.locator(".maps canvas").nth(9)).to_be_visible()
    page.page.get_by_role("button", name="Undo").click()
    expect(verdict).to_have_text("Nothing drawn yet")
    assert clean(page)


def test_the_occlusion_map_follows(page: Watched) -> None:
    draw_a_seven(page.page)
    occlusion_map = page.page.locator(".occlusion")
    expect(occlusion_map).to_have_attribute("aria-label", re.compile(r"around .* column \d+$"))
    assert clean(page)


def test_all_by_keyboard(page: Watched) -> None:
    """Drawing and every control work without a pointer."""
    press = page.page.keyboard.press
    reached = []
    for _ in range(8):
        press("Tab")
        reached.append(
            page.page.evaluate(
                "document.activeElement.textContent.trim() || document.activeElement.type"
                " || document.activeElement.getAttribute('aria-label')"
            )
        )
        if page.page.evaluate("document.activeElement.matches('canvas.sheet')"):
            for _ in range(8):
                press("ArrowUp")
            press("Space")
            for _ in range(16):
                press("ArrowDown")
            press("Space")
            expect(page.page.locator(".verdict")).to_contain_text("1: ")
            press("Backspace")
            expect(page.page.locator(".verdict")).to_have_text("Nothing drawn yet")
    assert reached[0].startswith("Draw")
    maps = page.page.locator("summary").inner_text()
    assert {"Clear", "Undo", "Eraser", "range", "checkbox", maps} <= set(reached)
    page.page.locator("summary").press("Enter")
    expect(page.page.locator("details")).to_have_attribute("open", "")
    assert clean(page)


def test_every_control_has_a_name(page: Watched) -> None:
    page.page.locator("summary").click()
    draw_a_seven(page.page)
    assert nameless(page.page) == []


def test_light_and_dark_narrow_and_wide(browser: Browser, file: Path) -> None:
    backgrounds = []
    for scheme, width in (("light", 1200), ("dark", 360)):
        context = new_context(browser, width, 800, scheme)
        page = context.new_page()
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        context.close()
    assert backgrounds[0] != backgrounds[1]


def test_the_policy_blocks_requests(page: Watched) -> None:
    outcome = page.page.evaluate(
        "() => fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'blocked')"
    )
    assert outcome == "blocked"
    assert "Content Security Policy" in " ".join(page.said)


def count_correct(page: Watched, images: Tensor, labels: Tensor) -> int:
    """Paint images with the mouse; return how many are classified correctly."""
    pointer = page.page.context.new_cdp_session(page.page)
    page.page.get_by_role("slider").fill("10")  # a pen as wide as one pixel of MNIST
    correct = 0
    for image, label in zip(images, labels.tolist(), strict=True):
        paint(page.page, pointer, image[0])
        one_frame_later(page.page)
        prediction = page.page.locator(".verdict").inner_text()
        correct += prediction.startswith(f"{label}: ")
    return correct


def test_painted_digits_are_classified_correctly(page: Watched) -> None:
    test = load_dataset("mnist").test
    assert count_correct(page, test.images[:12], test.labels[:12]) == 12
    assert clean(page)


@pytest.mark.slow
def test_five_hundred_painted_digits(page: Watched) -> None:
    test = load_dataset("mnist").test
    assert count_correct(page, test.images[:500], test.labels[:500]) >= 490
    assert clean(page)
