"""Reports of seeds, and of several recipes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from report_page import checked, train

from harness.forging import reseal
from whit.errors import InputError
from whit.recipes.recipe import Recipe
from whit.reports import render_study_html
from whit.runs.reader import read_run


def test_a_study_shows_its_spread_and_the_commonly_misclassified_images(runs: Path) -> None:
    page = checked(render_study_html(runs))
    records = [read_run(runs / f"seed-{seed}") for seed in range(3)]
    results = [record.result or {} for record in records]
    correct = [result["test"]["correct"] for result in results]
    assert page.headings[0] == (1, "easy over 3 seeds")
    assert f"Mean test accuracy {int(1000 * sum(correct) / 3 + 1e-6) / 1000:.3f} %" in page.text
    median = correct.index(sorted(correct)[1])
    assert f"Median run: seed {median}" in page.sections
    assert "3 of 3 seeds met the budget." in page.text
    wrong = [set(result["test"]["misclassified"]) for result in results]
    most = {i for i in range(100) if sum(i in found for found in wrong) >= 2}
    assert f"{len(most)} test images are misclassified by more than half" in page.text
    alts = [image["alt"] or "" for image in page.named("img")]
    assert {
        int(found[1])
        for alt in alts
        if (found := re.match(r"Test image (\d+), misclassified by", alt))
    } == most
    assert "--seeds 3 --threads 1" in page.text
    assert "whit study" in page.text


def test_a_study_lists_missing_and_altered_runs(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs, tmp_path / "study"))
    shutil.copytree(folder / "seed-0", folder / "seed-3")
    (folder / "seed-0" / "result.json").write_text("{")
    (folder / "seed-1" / "audit.txt").write_text("better")
    (folder / "seed-2" / "result.json").unlink()
    page = checked(render_study_html(folder))
    assert "Runs without a result" in page.text
    assert "seed-0/result.json: damaged" in page.text
    assert "seed 2: stopped" in page.text
    assert "Integrity check failed." in page.text
    assert "audit.txt: altered after the run" in page.text
    assert "seed 1: edited, not included in the results" in page.text
    for seed in (1, 3):
        (folder / f"seed-{seed}" / "result.json").unlink()
    with pytest.raises(InputError, match="no finished run"):
        render_study_html(folder)


def test_several_studies_are_compared(easy: Recipe, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "all" / "easy-study")
    other = easy.with_overrides(["name=wide", "model.widths=[6, 8]", "train.epochs=1"])
    for seed in range(2):
        train(other, tmp_path / "all" / "wide-study" / f"seed-{seed}", seed)
    (tmp_path / "all" / "no-run").mkdir()
    page = checked(render_study_html(tmp_path / "all"))
    assert page.sections == ["Comparison", "easy", "wide", "Citation"]
    assert "wide vs. easy: " in page.text
    assert "model.widths [4, 8] [6, 8]" in page.text
    assert "paired t-test, n = 2" in page.text
    assert "--seeds 2" in page.text


def test_further_recipes_are_listed_in_the_table_only(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whit.reports.study_report._MAX_STUDIES", 1)
    text = (runs / "seed-0" / "recipe.toml").read_text()
    for number in range(3):
        folder = Path(shutil.copytree(runs / "seed-0", tmp_path / "many" / f"r{number}"))
        (folder / "recipe.toml").write_text(text.replace('"easy"', f'"easy{number}"'))
        reseal(folder)
    page = checked(render_study_html(tmp_path / "many"))
    assert "2 more recipes are listed in the table only." in page.text
    assert "easy2" in page.text
