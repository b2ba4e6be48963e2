"""whit in a real JupyterLab: progress that updates in place, and values that fit the page.

Screenshots are written to pytest's temporary folder, `jupyter-*/*.png`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

import whit
from browser.chromium import PROGRAM, each
from browser.jupyter_lab import Lab, Notebook, write_notebook
from waiting import wait_until

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(find_spec("jupyterlab") is None, reason="JupyterLab is not installed"),
]

RECIPE = """\
schema = 2
name = "easy"
description = "Stripes by their direction."
[model]
name = "plain"
widths = [8, 16]
pool_after = [1, 2]
[data]
name = "easy.npz"
[train]
epochs = 2
batch_size = 16
[eval]
each_epoch = "test"
[optim]
lr = 0.1
[budget]
params = "< 20000"
epochs = "< 20"
accuracy = ">= 90"
require = ["batchnorm", "dropout", "gap"]
"""
SLOW = """\
import time
import torch
import whit
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 5, 2)
        self.norm = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.05)
        self.last = nn.Conv2d(16, 10, 3)

    def forward(self, x):
        if self.training:
            time.sleep(0.05)
        x = self.drop(torch.relu(self.norm(self.conv(x))))
        return self.last(x).mean((2, 3))

recipe = whit.load_recipe("easy.toml")
recipe"""
# By what each shows, in their order.
CELLS = {
    "recipe": SLOW,
    "plan": "whit.plan(recipe)",
    "training": "result = whit.train(recipe, Net(), out='trained')",
    "result": "result",
    "audit": "run = whit.load_run('trained', Net())\nwhit.audit(run)",
    "study": "wider = recipe.with_overrides(['name=wider', 'model.widths=[12, 16]'])\n"
    "study = whit.study([recipe, wider], seeds=2, jobs=1)\nstudy",
    "comparison": "whit.compare(*(arm.folder for arm in study.arms))",
    "many": "whit.compare(*(f'{arm.folder}/seed-{i}' for arm in study.arms for i in (0, 1)))",
    "runs": "whit.runs(study.arms[0].folder)",
    "frame": "result.history.to_pandas()",
    "completion": "from IPython import get_ipython\n"
    "from IPython.core.completer import provisionalcompleter\n"
    "with provisionalcompleter():\n"
    "    found = list(get_ipython().Completer.completions('whit.', 5))\n"
    "print(sorted(one.text.lstrip('.') for one in found))",
    "interrupted": "whit.train(recipe.with_overrides(['train.epochs=15']), Net(), out='stopped')",
}
INDEX = {name: i for i, name in enumerate(CELLS)}
# What stands in the output of the cell that trains: how many outputs, and the text of the bar.
SAMPLE = """(cell) => {
  window.seen = [];
  window.setInterval(() => {
    const area = document.querySelectorAll('.jp-CodeCell')[cell].querySelector('.jp-OutputArea');
    const outputs = area.querySelectorAll('.jp-OutputArea-child').length;
    const bar = area.querySelector('[role=progressbar]');
    window.seen.push([outputs, bar ? bar.nextElementSibling.textContent : '']);
  }, 20);
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, easy_npz: Path) -> Path:
    folder = tmp_path_factory.mktemp("jupyter-")
    shutil.copy(easy_npz, folder / "easy.npz")
    (folder / "easy.toml").write_text(RECIPE)
    write_notebook(folder / "trial.ipynb", list(CELLS.values()))
    return folder


@pytest.fixture(scope="module")
def page(
    browser: Browser, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """The notebook after all its cells have run, the last of them until it was interrupted."""
    lab = Lab.start(folder, tmp_path_factory.mktemp("jupyter-home"))
    try:
        notebook = Notebook.open(browser, lab, folder / "trial.ipynb")
        page = notebook.page
        page.evaluate(SAMPLE, INDEX["training"])
        notebook.start("notebook:run-all-cells")
        wait_until(lambda: "batch" in text_of(page, "interrupted"), lab)
        output(page, "interrupted").screenshot(path=folder / "running.png")
        notebook.start("notebook:interrupt-kernel")
        wait_until(lambda: "Not finished" in text_of(page, "interrupted"), lab)
        wait_until(lambda: page.locator(".jp-mod-executing").count() == 0, lab)
        yield page
        page.context.close()
    finally:
        lab.close()


def output(page: Page, name: str) -> Any:
    return page.locator(".jp-CodeCell").nth(INDEX[name]).locator(".jp-OutputArea")


def text_of(page: Page, name: str) -> str:
    return str(output(page, name).inner_text())


def test_the_bar_is_updated_in_place_within_an_epoch(page: Page) -> None:
    seen = page.evaluate("() => window.seen")
    assert max(outputs for outputs, _ in seen) == 1
    bars = {text for _, text in seen if re.match(r"epoch 1/2, batch \d+/25: loss \d", text)}
    assert len(bars) > 1, seen
    assert all(re.search(r"images/s, \d+ s left", text) for text in bars)


def test_finished_epochs_are_rows_of_one_table(page: Page) -> None:
    (table,) = each(output(page, "training").locator("table"), 1)
    expect(table.locator("tbody tr td:first-child")).to_have_text(["1", "2"])
    heads = ["epoch", "training loss", "training accuracy %", "test loss", "test accuracy %"]
    expect(table.locator("th")).to_have_text([*heads, "learning rate", "seconds"])
    assert "Test set: Average loss: " in text_of(page, "training")
    expect(output(page, "training").locator("[role=progressbar]")).to_have_count(0)


def test_an_interrupted_training_says_so_in_one_message(page: Page) -> None:
    text = text_of(page, "interrupted")
    assert "Not finished: Interrupted." in text
    assert "Interrupted: stopped by SIGINT in epoch" in text
    assert "Traceback" not in text
    expect(output(page, "interrupted").locator("[role=progressbar]")).to_have_count(0)


def test_values_are_shown_with_their_curves(page: Page) -> None:
    for name in CELLS.keys() - {"interrupted"}:
        errors = output(page, name).locator("[data-mime-type='application/vnd.jupyter.stderr']")
        expect(errors).to_have_text([])
    plots = {"recipe": 1, "result": 2, "study": 1, "comparison": 1, "many": 1}
    for name in CELLS:
        expect(output(page, name).locator("svg[role=img]")).to_have_count(plots.get(name, 0))
    assert "Verdict: " in text_of(page, "plan")
    assert "Verdict: " in text_of(page, "audit")
    assert "wider" in text_of(page, "study")
    expect(output(page, "frame").locator("table.dataframe tbody tr")).to_have_count(2)


def test_completion_shows_the_public_names_only(page: Page) -> None:
    assert text_of(page, "completion").strip() == str(sorted(whit.__all__))


@pytest.mark.parametrize("theme", ["Light", "Dark"])
@pytest.mark.parametrize("width", [1000, 1600])
def test_outputs_fit_the_page_in_both_themes(
    page: Page, folder: Path, theme: str, width: int
) -> None:
    Notebook(page).command("apputils:change-theme", theme=f"JupyterLab {theme}")
    light = str(theme == "Light").lower()
    page.wait_for_selector(f"body[data-jp-theme-light={light}]", state="attached")
    for i, name in enumerate(CELLS):
        page.set_viewport_size({"width": width, "height": 900})
        cell = page.locator(".jp-CodeCell").nth(i)
        height = cell.evaluate("(cell) => cell.offsetHeight")
        page.set_viewport_size({"width": width, "height": int(height) + 200})
        cell.scroll_into_view_if_needed()
        cell.screenshot(path=folder / f"{name}-{theme.lower()}-{width}.png")
    page.set_viewport_size({"width": width, "height": 900})
    for one in each(page.locator(".whit-output"), 11):
        fits = one.evaluate("(e) => [e.scrollWidth, e.clientWidth, e.textContent.slice(0, 60)]")
        # The list of runs has a column for each value, and may scroll in a narrow window.
        assert fits[0] <= fits[1] or (fits[2].startswith("runrecipe") and width == 1000), fits
    for selector in (".whit-output td", ".whit-output svg text"):
        colors = page.locator(selector).first.evaluate(COLORS)
        assert contrast(*colors) >= 7, (selector, colors)


COLORS = """(element) => {
  let behind = element;
  while (/^rgba\\(.*, 0\\)$/.test(getComputedStyle(behind).backgroundColor))
    behind = behind.parentElement;
  const style = getComputedStyle(element);
  const color = element instanceof SVGElement ? style.fill : style.color;
  return [color, getComputedStyle(behind).backgroundColor];
}"""


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours of CSS, as WCAG defines it; text needs 4.5."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
