"""The page of `whit serve` in a real Chromium: every view, by pointer and by keys."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, expect

from browser.chromium import PROGRAM, Watched, each, new_context
from browser.drawing import draw_a_seven, nameless
from harness.fixtures import RECIPE
from harness.forging import reseal
from harness.processes import Command
from harness.records import KEPT
from waiting import wait_until
from web.asking import Server
from whit.data.datasets import load_dataset
from whit.runs.reader import read_run

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a record, and one stopped, one damaged, one hostile name, one model file."""
    folder = tmp_path_factory.mktemp("shown")
    first = KEPT / "seed-0"
    for seed in (0, 1):
        shutil.copytree(first.with_name(f"seed-{seed}"), folder / f"runs/seed-{seed}")
    shutil.copytree(first, folder / "runs" / "stopped")
    (folder / "runs" / "stopped" / "result.json").unlink()
    shutil.copytree(first, folder / "runs" / HOSTILE)
    (folder / "runs" / HOSTILE / "result.json").write_text("{}")
    shutil.copytree(first, folder / "runs" / "own-model")
    recipe = folder / "runs" / "own-model" / "recipe.toml"
    text = recipe.read_text().replace('name = "plain"', 'name = "mine.py:Net"')
    recipe.write_text(text.replace('name = "fewest-epochs"', 'name = "mine"'))
    reseal(recipe.parent)
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
    first, second = each(page.page.locator(".networks .card"), 2)
    expect(first.locator(".verdict")).to_have_text("Nothing drawn yet")
    expect(second).to_be_hidden()
    page.page.get_by_role("combobox", name="Compare with").select_option(index=2)
    expect(second.locator(".verdict")).to_have_text("Nothing drawn yet")
    draw_a_seven(page.page)
    for side in (first, second):
        expect(side.locator(".verdict")).to_contain_text("7: ")
    assert nameless(page.page) == []
    assert clean(page, server)


def test_runs_are_sorted_filtered_and_overlaid(page: Watched, server: Server) -> None:
    go(page.page, "Runs")
    rows = page.page.locator("#runs .list tbody").first.locator("tr")
    expect(rows).to_have_count(8)
    page.page.get_by_role("button", name="accuracy %").click()
    accuracies = rows.locator("td:nth-child(6)").all_inner_texts()
    assert accuracies == sorted(accuracies, reverse=True)
    page.page.get_by_role("button", name="accuracy %").click()
    known = [text for text in rows.locator("td:nth-child(6)").all_inner_texts() if text]
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
    assert label.startswith("training loss over 2 epochs: fewest-epochs, seed 0")
    expect(page.page.get_by_role("region", name="Table of studies")).to_contain_text(
        "easy-01234567"
    )
    expect(page.page.get_by_role("img", name="Accuracy against parameters")).to_be_visible()
    assert nameless(page.page) == []
    assert clean(page, server)


def test_hostile_names_are_text(page: Watched, server: Server) -> None:
    go(page.page, "Runs")
    shown = page.page.locator("#runs").get_by_text(HOSTILE, exact=False)
    expect(shown.filter(visible=True).first).to_be_visible()
    expect(page.page.locator("img")).to_have_count(0)
    assert clean(page, server)


def test_an_error_opens_in_draw(page: Watched, server: Server) -> None:
    go(page.page, "Errors")
    page.page.get_by_role("combobox", name="Run").select_option(
        label="fewest-epochs, seed 0, 99.50 %"
    )
    wrong = page.page.locator(".misclassified button")
    expect(wrong).to_have_count(50)
    expect(page.page.locator("#errors [role=status]")).to_contain_text(
        "50 of 10,000 test images are misclassified"
    )
    result = read_run(KEPT / "seed-0").result
    assert result is not None
    text = "\n".join(wrong.all_inner_texts())
    listed = sorted(int(index) for index in re.findall(r"image ([0-9]+)", text))
    assert listed == result["test"]["misclassified"]
    assert nameless(page.page) == []
    wrong.nth(1).click()
    text = wrong.nth(1).locator("span").first.inner_text()
    assert re.fullmatch("label [0-9], predicted [0-9]", text)
    expect(page.page.locator(".detail .prediction")).to_have_text(text)
    page.page.get_by_role("button", name="Open in Draw").click()
    verdict = page.page.locator(".verdict").first
    expect(verdict).to_contain_text(f"{text[-1]}: ")
    expect(page.page.get_by_role("checkbox")).not_to_be_checked()  # classified without a change
    page.page.get_by_role("button", name="Clear").click()
    expect(verdict).to_have_text("Nothing drawn yet")
    assert clean(page, server)


def test_the_link_to_the_report_of_a_run(page: Watched, server: Server) -> None:
    go(page.page, "Runs")
    link = page.page.get_by_role("link", name="report of fewest-epochs, seed 1").first
    link.click()
    expect(page.page.get_by_role("heading", level=1)).to_contain_text("fewest-epochs")
    expect(page.page.get_by_role("heading", name="Calibration")).to_be_visible()
    assert clean(page, server)


def test_errors_open_with_the_first_misclassified_image(page: Watched, server: Server) -> None:
    go(page.page, "Errors")
    buttons = page.page.locator(".misclassified button")
    expect(buttons.first).to_have_attribute("aria-pressed", "true")
    expect(page.page.locator('.misclassified [aria-pressed="true"]')).to_have_count(1)
    text = buttons.first.locator("span").first.inner_text()
    expect(page.page.locator(".detail .prediction")).to_have_text(text)
    expect(page.page.locator(".detail li")).to_have_count(5)
    page.page.get_by_role("combobox", name="Label").select_option(label="5")
    expect(page.page.locator("#errors [role=status]")).to_contain_text(
        re.compile(r"Listed with label 5: \d+\.$")
    )
    expect(page.page.locator(".detail .prediction")).to_contain_text("label 5, predicted ")
    assert nameless(page.page) == []
    assert clean(page, server)


def test_the_report_of_an_untrusted_model_file_is_an_error_page(
    page: Watched, server: Server
) -> None:
    go(page.page, "Runs")
    page.page.get_by_role("link", name="report of mine").click()
    expect(page.page.get_by_role("heading", name="403 Forbidden")).to_be_visible()
    expect(page.page.locator("main")).to_contain_text("start whit serve --trust-model-files")
    page.page.get_by_role("link", name="Runs").click()
    expect(page.page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()


def test_low_confidence_is_called_unsure(page: Watched, server: Server) -> None:
    texts = page.page.evaluate(
        """async () => {
          const { formatVerdict } = await import("/page/panel.js");
          return [[0.9, 0.06, 0.04], [0.59, 0.3, 0.11], [0.62, 0.38, 0], [0.2, 0.45, 0.35], [1]]
            .map((probabilities) => formatVerdict(["a", "b", "c"], probabilities));
        }"""
    )
    assert texts == [
        *("a: 90.0 %", "Unsure, a: 59.0 %", "Unsure, a: 62.0 % or b: 38.0 %"),
        *("Unsure, b: 45.0 % or c: 35.0 %", "a: 100.0 %"),
    ]


def test_image_files_are_classified_in_the_browser(
    page: Watched, server: Server, tmp_path: Path
) -> None:
    """One of the data set's size without a change, a photograph centred and scaled, no others."""
    expect(page.page.locator(".verdict").first).to_have_text("Nothing drawn yet")
    verdict, centring = page.page.locator(".verdict").first, page.page.get_by_role("checkbox")
    asked = len(page.asked)
    split = load_dataset("mnist").test
    Image.fromarray(split.images[0, 0].numpy()).save(tmp_path / "seven.png")
    file = page.page.get_by_label("Image file")
    file.set_input_files(tmp_path / "seven.png")
    expect(verdict).to_contain_text("7: ")
    expect(centring).not_to_be_checked()
    page.page.get_by_role("button", name="Clear").click()
    expect(verdict).to_have_text("Nothing drawn yet")
    photograph = Image.new("RGB", (600, 400), (225, 220, 210))
    ImageDraw.Draw(photograph).line([(260, 90), (360, 90), (300, 300)], (20, 25, 60), 24)
    photograph.save(tmp_path / "photograph.jpg")
    file.set_input_files(tmp_path / "photograph.jpg")
    expect(page.page.get_by_text("Image file: photograph.jpg")).to_be_visible()
    expect(verdict).to_contain_text("7: ")
    expect(centring).to_be_checked()
    (tmp_path / "text.png").write_text("no image")
    file.set_input_files(tmp_path / "text.png")
    expect(page.page.get_by_text("text.png: not an image that this")).to_be_visible()
    expect(verdict).to_contain_text("7: ")
    assert clean(page, server)
    assert not any("seven" in url or "photograph" in url for url in page.asked[asked:])


def test_what_a_narrow_page_shows_first(browser: Browser, server: Server) -> None:
    """The result above the keyboard help, no empty card, and each run with all of its values."""
    context = new_context(browser, 360, 800)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/#draw")
    expect(page.locator(".verdict").first).to_have_text("Nothing drawn yet")
    tops = [
        (page.locator(place).first.bounding_box() or {"y": -1})["y"]
        for place in ("canvas.sheet", ".verdict", ".how-to-draw")
    ]
    assert tops == sorted(tops)
    expect(page.locator(".networks .card").nth(1)).to_be_hidden()
    go(page, "Runs")
    row = page.locator("#runs .list tbody").first.locator("tr").filter(has_text="runs/seed-1")
    expect(row).to_contain_text("99.4")
    for cell in each(row.locator("[data-heading], .name, .open a"), 12):
        box = cell.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    assert nameless(page) == []
    context.close()


def test_by_keyboard_alone(page: Watched, server: Server) -> None:
    press = page.page.keyboard.press
    press("Tab")
    expect(page.page.get_by_role("link", name="Skip to content")).to_be_focused()
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
        row = watched.page.locator("#runs .list tbody").first.locator("tr")
        expect(row).to_have_count(2)  # the runs of the package
        training = Command.start(
            workplace,
            *("train", "easy.toml", "--out", "runs/live", "--threads", "1", "--quiet"),
        )
        log = workplace / "runs/live/log.jsonl"
        wait_until(lambda: log.exists() and log.read_text().endswith("\n"), training)
        training.signal(signal.SIGSTOP)  # until the page has seen it
        expect(row).to_have_count(1)
        expect(row).to_contain_text("running")
        watched.page.get_by_role("checkbox", name="curves of easy").check()
        ends = watched.page.locator(".plots svg").first
        expect(ends).to_have_attribute("aria-label", re.compile("^training loss over [123] epoch"))
        training.signal(signal.SIGCONT)
        assert training.wait() == 0
        expect(row).to_contain_text("met")
        expect(ends).to_have_attribute("aria-label", re.compile("^training loss over 4 epochs"))
        shutil.rmtree(workplace / "runs" / "live")
        expect(row).to_have_count(2)
    finally:
        server.close()
    expect(watched.page.locator("#state")).to_contain_text("No response from the server")


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


def test_a_digit_network_is_offered_first(page: Watched) -> None:
    """Not the most accurate one of any data set, nor one of the set with the most runs."""
    found = page.page.evaluate(
        """async () => {
          const { Store } = await import("/page/store.js");
          const store = new Store(() => {});
          const run = (id, data, correct) => ({ id, data, correct, total: 100, has_weights: true });
          store.runs = [run("f0", "fashion", 100), run("f1", "fashion", 99),
            run("f2", "fashion", 98), run("m0", "mnist", 97), run("m1", "mnist", 98),
            run("g0", "gone.npz", 100)];
          return store.firstCandidates();
        }"""
    )
    assert found == ["m1", "f0", "g0", "m0", "f1", "f2"]


@pytest.mark.parametrize(
    ("data", "subject"),
    [
        ("mnist", "a digit"),
        ("", "a digit"),  # of a page that was exported before it held the name
        ("sets/emnist-digits.npz", "a digit"),
        ("sets/fashion-mnist", "one of 10 classes"),
        ("kmnist.npz", "one of 10 classes"),
        ("cells.npz", "one of 10 classes"),
    ],
)
def test_numbered_classes_are_not_always_digits(page: Watched, data: str, subject: str) -> None:
    found = page.page.evaluate(
        """async (data) => {
          const { subjectOf } = await import("/page/sheet.js");
          return subjectOf({ data, classes: [..."0123456789"], imageShape: [1, 28, 28] });
        }""",
        data,
    )
    assert found == subject
