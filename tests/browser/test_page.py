"""The page of `whit serve` in a real Chromium: every view, by pointer and by keys."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from browser.chromium import PROGRAM, Watched, new_context
from browser.drawing import draw_a_seven, nameless
from harness.fixtures import RECIPE
from harness.processes import Command
from waiting import wait_until
from web.asking import Server

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
RECORD = Path(__file__).parents[2] / "records" / "fewest-epochs"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a record, one that was stopped, one damaged, one with a hostile name."""
    folder = tmp_path_factory.mktemp("shown")
    (first,) = RECORD.glob("*/seed-0")
    for seed in (0, 1):
        shutil.copytree(first.with_name(f"seed-{seed}"), folder / f"runs/seed-{seed}")
    shutil.copytree(first, folder / "runs" / "stopped")
    (folder / "runs" / "stopped" / "result.json").unlink()
    shutil.copytree(first, folder / "runs" / HOSTILE)
    (folder / "runs" / HOSTILE / "result.json").write_text("{}")
    study = folder / "studies" / "easy-01234567"
    for seed in (2, 3, 4):
        shutil.copytree(first.with_name(f"seed-{seed}"), study / f"seed-{seed}")
    return folder


@pytest.fixture(scope="module")
def server(shown: Path) -> Iterator[Server]:
    started = Server(shown)
    yield started
    started.close()


@pytest.fixture
def workplace(tmp_path: Path, easy_npz: Path) -> Path:
    """A folder with a small recipe and its data, and no run yet."""
    shutil.copy(easy_npz, tmp_path / "easy.npz")
    (tmp_path / "easy.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def page(watched: Watched, server: Server) -> Watched:
    watched.page.goto(f"http://127.0.0.1:{server.port}/")
    return watched


def clean(watched: Watched, server: Server) -> bool:
    here = f"http://127.0.0.1:{server.port}/"
    return watched.said == [] and all(url.startswith(here) for url in watched.asked)


def go(page: Page, view: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=view).click()


def test_draw_for_two_networks_side_by_side(page: Watched, server: Server) -> None:
    first, second = page.page.locator(".networks .card").all()
    expect(first.locator(".verdict")).to_have_text("Nothing drawn yet")
    expect(second.locator(".verdict")).to_be_hidden()
    second.get_by_role("combobox").select_option(index=2)
    expect(second.locator(".verdict")).to_have_text("Nothing drawn yet")
    draw_a_seven(page.page)
    for side in (first, second):
        expect(side.locator(".verdict")).to_contain_text("7: ")
    assert nameless(page.page) == []
    assert clean(page, server)


def test_runs_are_sorted_filtered_and_laid_over_each_other(page: Watched, server: Server) -> None:
    go(page.page, "Runs")
    rows = page.page.locator("#runs .list tbody").first.locator("tr")
    expect(rows).to_have_count(7)
    page.page.get_by_role("button", name="accuracy %").click()
    accuracies = rows.locator("td:nth-child(5)").all_inner_texts()
    assert accuracies == sorted(accuracies, reverse=True)
    page.page.get_by_role("button", name="accuracy %").click()
    known = [text for text in rows.locator("td:nth-child(5)").all_inner_texts() if text]
    assert known == sorted(known)
    page.page.get_by_role("searchbox").fill("stopped")
    expect(rows).to_have_count(1)
    page.page.get_by_role("searchbox").fill("")
    for seed in (0, 1):
        page.page.get_by_role(
            "checkbox", name=f"curves of fewest-epochs, seed {seed}"
        ).first.check()
    lines = page.page.locator(".plots svg")
    expect(lines).to_have_count(4)
    expect(lines.first.locator("polyline")).to_have_count(2)
    label = lines.first.get_attribute("aria-label") or ""
    assert label.startswith("loss on train over 2 epochs: fewest-epochs, seed 0")
    expect(page.page.get_by_role("region", name="Table of studies")).to_contain_text(
        "easy-01234567"
    )
    expect(page.page.get_by_role("img", name="Accuracy against parameters")).to_be_visible()
    assert nameless(page.page) == []
    assert clean(page, server)


def test_hostile_names_are_text(page: Watched, server: Server) -> None:
    go(page.page, "Runs")
    expect(page.page.get_by_text(f"runs/{HOSTILE}", exact=False).first).to_be_visible()
    assert page.page.locator("img").count() == 0
    assert clean(page, server)


def test_an_error_goes_onto_the_sheet(page: Watched, server: Server) -> None:
    go(page.page, "Errors")
    page.page.get_by_role("combobox", name="Run").select_option(
        label="fewest-epochs, seed 0, 99.50 %"
    )
    wrong = page.page.locator(".wrong button")
    expect(wrong).to_have_count(50)
    expect(page.page.locator("#errors [role=status]")).to_contain_text("50 of 10,000 test images")
    (run,) = RECORD.glob("*/seed-0")
    result = json.loads((run / "result.json").read_text())
    said = "\n".join(wrong.all_inner_texts())
    shown = sorted(int(index) for index in re.findall(r"image ([0-9]+)", said))
    assert shown == result["test"]["misclassified"]
    assert nameless(page.page) == []
    taken = wrong.first.locator("span").first.inner_text().rpartition(" ")[2]
    wrong.first.click()
    verdict = page.page.locator(".verdict").first
    expect(verdict).to_contain_text(f"{taken}: ")
    expect(page.page.get_by_role("checkbox")).not_to_be_checked()  # it is read as it stands
    page.page.get_by_role("button", name="Clear").click()
    expect(verdict).to_have_text("Nothing drawn yet")
    assert clean(page, server)


def test_the_report_of_a_run_is_the_one_that_is_written(page: Watched, server: Server) -> None:
    go(page.page, "Runs")
    link = page.page.get_by_role("link", name="report of fewest-epochs, seed 1").first
    link.click()
    expect(page.page.get_by_role("heading", level=1)).to_contain_text("fewest-epochs")
    expect(page.page.get_by_role("heading", name="Calibration")).to_be_visible()
    assert clean(page, server)


def test_by_keyboard_alone(page: Watched, server: Server) -> None:
    press = page.page.keyboard.press
    press("Tab")
    expect(page.page.get_by_role("link", name="To the content")).to_be_focused()
    for view in ("Draw", "Runs"):
        press("Tab")
        expect(page.page.get_by_role("navigation").get_by_role("link", name=view)).to_be_focused()
    press("Enter")
    expect(page.page.get_by_role("heading", name="Runs")).to_be_visible()
    press("Tab")
    expect(page.page.get_by_role("searchbox")).to_be_focused()
    page.page.keyboard.type("seed-1")
    expect(page.page.locator("#runs .list tbody").first.locator("tr")).to_have_count(1)
    for _ in range(30):
        press("Tab")
        if page.page.evaluate("document.activeElement.type") == "checkbox":
            break
    press("Space")
    expect(page.page.locator(".plots svg")).to_have_count(4)
    assert clean(page, server)


def test_a_run_that_trains_shows_up_and_grows(
    watched: Watched, workplace: Path, easy_npz: Path
) -> None:
    """A run that begins while the page is open, its curve while it trains, its verdict."""
    server = Server(workplace)
    try:
        watched.page.goto(f"http://127.0.0.1:{server.port}/#runs")
        expect(watched.page.get_by_text("No runs here yet")).to_be_visible()
        training = Command.start(
            workplace,
            *("train", "easy.toml", "--out", "runs/live", "--threads", "1", "--quiet"),
        )
        log = workplace / "runs/live/log.jsonl"
        wait_until(lambda: log.exists() and log.read_text().endswith("\n"), training)
        training.signal(signal.SIGSTOP)  # until the page has seen it
        row = watched.page.locator("#runs .list tbody").first.locator("tr")
        expect(row).to_contain_text("running")
        watched.page.get_by_role("checkbox", name="curves of easy").check()
        ends = watched.page.locator(".plots svg").first
        expect(ends).to_have_attribute("aria-label", re.compile("^loss on train over [123] epoch"))
        training.signal(signal.SIGCONT)
        assert training.wait() == 0
        expect(row).to_contain_text("met")
        expect(ends).to_have_attribute("aria-label", re.compile("^loss on train over 4 epochs"))
        shutil.rmtree(workplace / "runs" / "live")
        expect(watched.page.get_by_text("No runs here yet")).to_be_visible()
    finally:
        server.close()
    expect(watched.page.locator("#state")).to_contain_text("The server does not answer")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 360)])
def test_light_and_dark_wide_and_narrow(
    browser: Browser, server: Server, scheme: str, width: int
) -> None:
    context = new_context(browser, width, 800, scheme)
    page = context.new_page()
    # A view, and what is in it once the server has answered.
    for view, place, text in (
        ("draw", ".networks .verdict", "Nothing drawn yet"),
        ("runs", "#runs .list tbody", "fewest-epochs"),
        ("errors", "#errors select", "fewest-epochs"),
    ):
        page.goto(f"http://127.0.0.1:{server.port}/#{view}")
        expect(page.locator(place).first).to_contain_text(text)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(245, 245, 242)", "dark": "rgb(19, 21, 24)"}[scheme]
    context.close()
