"""The page of `whit serve` for a data set of colour images with class names, in a real Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from browser.chromium import PROGRAM, Watched
from browser.drawing import nameless
from harness.forging import reseal
from harness.processes import whit
from harness.records import KEPT
from waiting import wait_until
from web.asking import Server

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
RECIPE = """\
schema = 2
name = "pets"
[model]
name = "plain"
widths = [4, 8]
[data]
name = "pets"
[train]
epochs = 4
batch_size = 8
precision = "fp32"
[budget]
accuracy = ">= 90"
"""
ROWS, COLUMNS = 12, 20
COLOURS = {"cat": (220, 90, 60), "dog": (60, 90, 220)}


def save_images(root: Path, count: int, rng: np.random.Generator) -> None:
    """Write `count` images of each class, of its colour with noise."""
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.array(colour) + rng.normal(0, 15, (ROWS, COLUMNS, 3))
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(root / name / f"{number:03}.png")


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two classes with a run, two runs of MNIST, and three without their data."""
    folder = tmp_path_factory.mktemp("pets")
    rng = np.random.default_rng(0)
    save_images(folder / "pets/train", 60, rng)
    save_images(folder / "pets/test", 10, rng)
    (folder / "pets.toml").write_text(RECIPE)
    code, output = whit(
        folder, "train", "pets.toml", "--out", "runs/pets", "--threads", "1", "--quiet"
    )
    assert code == 0, output
    first = KEPT / "seed-0"
    for seed in (0, 1):
        shutil.copytree(first.with_name(f"seed-{seed}"), folder / f"runs/seed-{seed}")
    recipe = (folder / "runs/pets/recipe.toml").read_text()
    for number in range(3):
        shutil.copytree(folder / "runs/pets", folder / f"runs/missing-{number}")
        text = recipe.replace('name = "pets"', 'name = "missing"')
        (folder / f"runs/missing-{number}/recipe.toml").write_text(text)
        reseal(folder / f"runs/missing-{number}")
    return folder


@pytest.fixture(scope="module")
def server(pets: Path) -> Iterator[Server]:
    started = Server(pets)
    yield started
    started.close()


@pytest.fixture
def page(watched: Watched, server: Server) -> Watched:
    watched.page.goto(f"http://127.0.0.1:{server.port}/")
    return watched


def choose_pets(page: Watched) -> None:
    network = page.page.get_by_role("combobox", name="Network")
    expect(network.locator("option:checked")).to_contain_text("fewest-epochs")  # whose data is here
    option = network.locator('optgroup[label="pets"] option').inner_text()
    network.select_option(label=option)
    # An image file that comes before its weights is shown to the former network.
    expect(page.page.get_by_role("heading", name="Draw")).to_have_text("Draw one of: cat, dog")


def has_no_script_error(page: Watched) -> bool:
    """Whether the console has nothing but refused requests for the run without data."""
    return all("409 (Conflict)" in message for message in page.said)


def has_shape_of_images(canvas: Locator) -> bool:
    box = canvas.bounding_box()
    return box is not None and box["width"] / box["height"] == pytest.approx(
        COLUMNS / ROWS, rel=0.05
    )


def test_draw_adapts_to_the_data_set(page: Watched) -> None:
    heading = page.page.get_by_role("heading", name="Draw")
    expect(heading).to_have_text("Draw a digit")
    choose_pets(page)
    sheet = page.page.locator("canvas.sheet")
    expect(sheet).to_have_attribute("aria-label", "Draw one of: cat, dog")
    expect(page.page.get_by_role("checkbox", name="Centre and scale")).not_to_be_checked()
    assert "MNIST" not in page.page.locator("#draw .buttons").inner_text()
    for canvas in (sheet, page.page.locator("canvas.input").first):
        wait_until(partial(has_shape_of_images, canvas))
    assert nameless(page.page) == []
    assert has_no_script_error(page)


@pytest.mark.parametrize("name", COLOURS)
def test_colour_files_are_classified_in_colour(page: Watched, pets: Path, name: str) -> None:
    choose_pets(page)
    verdict = page.page.locator(".verdict").first
    expect(verdict).to_have_text("Nothing drawn yet")
    page.page.get_by_label("Image file").set_input_files(pets / f"pets/test/{name}/003.png")
    expect(verdict).to_contain_text(f"{name}: ")
    page.page.get_by_role("button", name="Undo").click()
    expect(verdict).to_have_text("Nothing drawn yet")
    assert has_no_script_error(page)


def test_errors_open_with_a_run_whose_data_is_present(page: Watched) -> None:
    page.page.get_by_role("navigation").get_by_role("link", name="Errors").click()
    expect(page.page.locator(".misclassified button").first).to_be_visible()
    runs = page.page.get_by_role("combobox", name="Run")
    expect(runs.locator("option:checked")).to_contain_text("fewest-epochs")
    runs.select_option(label=runs.locator('optgroup[label="pets"] option').inner_text())
    expect(page.page.locator("#errors [role=status]")).to_have_text(
        "All 20 test images are classified correctly."
    )
    expect(page.page.locator(".detail")).to_be_hidden()


def test_accuracy_against_parameters_is_of_one_data_set(page: Watched) -> None:
    page.page.get_by_role("navigation").get_by_role("link", name="Runs").click()
    plot = page.page.locator("figure.plot")
    data = page.page.get_by_role("combobox", name="Data set")
    data.select_option("mnist")
    expect(plot).to_contain_text("Test accuracy on mnist after the last epoch, with published")
    expect(plot.locator("svg circle + *, svg circle")).not_to_have_count(0)
    expect(plot.locator("svg title", has_text="pets")).to_have_count(0)
    data.select_option("pets")
    expect(plot).to_contain_text("Test accuracy on pets after the last epoch.")
    expect(plot.locator("svg title")).to_have_count(1)
