"""Help, tables, the verdict and the lines of a run, compared with golden files.

On a terminal no line is wider than the terminal; a pipe has no width and gets 100 columns.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
from calling import Done
from masks import without_times
from rich.console import Console

from harness.forging import reseal
from whit.recipes.budget import Budget, Metrics
from whit.recipes.recipe import load_recipe
from whit.runs.result import Evaluation, RunResult

WIDTHS = (60, 80, 100)
DATE = 1_767_225_600  # 2026-01-01 00:00 UTC


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Give standard output a width, as a terminal has."""

    def set_to(width: int) -> None:
        for module in ("whit.cli.train", "whit.system.console"):
            monkeypatch.setattr(f"{module}.make_console", lambda: Console(width=width))

    return set_to


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dates are in local time."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def records(workshop: Path, tmp_path: Path) -> Path:
    """Folders `wide` and `narrow` with runs of invented results, and `odd` with broken ones."""

    def add(place: str, recipe: str, correct: int, seconds: float, seed: int = 0) -> None:
        folder = Path(shutil.copytree(workshop / "runs" / "easy-0", tmp_path / place))
        text = (folder / "recipe.toml").read_text()
        (folder / "recipe.toml").write_text(text.replace("[8, 16]", recipe))
        result = json.loads((folder / "result.json").read_text())
        result["test"] |= {"correct": correct, "misclassified": list(range(100 - correct))}
        result["seconds"]["total"] = seconds
        environment = json.loads((folder / "environment.json").read_text())
        (folder / "environment.json").write_text(json.dumps(environment | {"seed": seed}))
        reseal(folder, result)
        for file in folder.iterdir():
            os.utime(file, (DATE + 3600 * seed, DATE + 3600 * seed))

    for seed, correct in enumerate((97, 98, 99, 98)):
        add(f"narrow/easy-{seed}-20260101T000000Z", "[8, 16]", correct, 1.5, seed)
    for seed, correct in enumerate((99, 100, 100, 100)):
        add(f"wide/easy-{seed}-20260101T000000Z", "[12, 16]", correct, 2.5, seed)
    add("odd/stopped", "[8, 16]", 90, 1.0)
    (tmp_path / "odd/stopped/result.json").unlink()
    add("odd/damaged", "[8, 16]", 90, 1.0)
    (tmp_path / "odd/damaged/log.jsonl").write_text("{")
    os.utime(tmp_path / "odd/damaged/log.jsonl", (DATE, DATE))
    add("odd/edited", "[8, 16]", 90, 1.0)
    file = tmp_path / "odd/edited/result.json"
    file.write_text(file.read_text().replace('"correct": 90', '"correct": 99'))
    os.utime(file, (DATE, DATE))
    return tmp_path


@pytest.mark.parametrize(
    "verb",
    [
        "",
        "recipes",
        "plan",
        "train",
        "audit",
        "runs",
        "compare",
        "study",
        "search",
        "report",
        "export",
        "serve",
        "data",
    ],
)
def test_help(verb: str, whit: Callable[..., Done], golden: Callable[[str, str], None]) -> None:
    done = whit(f"{verb} --help")
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    usage, _, rest = done.out.partition("\n")
    assert usage.startswith(f"Usage: whit {verb}".rstrip())
    # How typer marks arguments and whether it names their types differs between its versions.
    golden(f"help/{verb or 'whit'}", re.sub(r" <\S+>", "", rest))


def test_every_recipe_is_listed_with_what_records_hold(
    whit: Callable[..., Done],
    golden: Callable[[str, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "builtin").mkdir()
    recorded = {
        "sprint": {"params": 18346, "correct": [9945, 9950]},
        "published-16848": {"params": 16848, "correct": [9939]},
    }
    (tmp_path / "builtin" / "recorded.json").write_text(json.dumps(recorded))
    files = SimpleNamespace(files=lambda package: tmp_path)
    monkeypatch.setattr("whit.recipes.listing.resources", files)
    golden("recipes", whit("recipes").out)


def test_a_recipe_is_printed_to_copy(
    whit: Callable[..., Done], golden: Callable[[str, str], None], tmp_path: Path
) -> None:
    done = whit("recipes sprint")
    assert (done.code, done.err) == (0, "")
    golden("recipes-sprint", done.out)
    (tmp_path / "copy.toml").write_text(done.out)
    assert load_recipe(tmp_path / "copy.toml") == load_recipe("sprint")
    value = json.loads(whit("recipes sprint --json").out)
    assert value["train"]["epochs"] == load_recipe("sprint").train.epochs


@pytest.mark.parametrize("width", WIDTHS)
def test_the_reference_of_keys(
    width: int,
    whit: Callable[..., Done],
    golden: Callable[[str, str], None],
    columns: Callable[[int], None],
) -> None:
    columns(width)
    done = whit("recipes --keys")
    assert (done.code, done.err) == (0, "")
    if width == 100:
        assert max(map(len, done.out.splitlines())) <= width
        golden("recipes-keys-100", done.out)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("recipe", "code"), [("sprint", 0), ("published-16848", 1)])
def test_a_plan_fits_the_terminal(
    recipe: str,
    code: int,
    width: int,
    whit: Callable[..., Done],
    golden: Callable[[str, str], None],
    columns: Callable[[int], None],
) -> None:
    columns(width)
    done = whit(f"plan {recipe}")
    assert (done.code, done.err) == (code, "")
    assert max(map(len, done.out.splitlines())) <= width
    golden(f"plan-{recipe}-{width}", done.out)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_run_in_plain_lines(
    width: int,
    workshop: Path,
    whit: Callable[..., Done],
    golden: Callable[[str, str], None],
    columns: Callable[[int], None],
    tmp_path: Path,
) -> None:
    columns(width)
    for name in ("easy.toml", "easy.npz"):
        shutil.copy(workshop / name, tmp_path)
    changes = "--set train.epochs=2 --set budget.accuracy='>= 1' --threads 1 --out run"
    done = whit(f"train easy.toml {changes}", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= width
    golden(f"run-{width}", without_times(done.out))


def test_quiet_prints_the_verdict_only(
    workshop: Path, whit: Callable[..., Done], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = whit(f"train easy.toml --quiet --threads 1 --out {out}", workshop)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("budget ")
    assert "\nVerdict: met.\n" in done.out
    assert done.out.endswith(f"Run folder: {out}\n")
    assert "Epoch" not in done.out


@pytest.mark.parametrize("width", WIDTHS)
def test_a_verdict_as_text(width: int, golden: Callable[[str, str], None]) -> None:
    budget = load_recipe("sprint").budget.to_budget()
    budget = Budget({**budget.limits, "forbid": ("linear",)})
    kinds = frozenset({"conv", "batchnorm", "gap", "linear"})
    metrics = Metrics(20_000, Fraction(20), 9939, 10_000, kinds, leaked=3)
    test = Evaluation("test", 9939, 10_000, 0.0212)
    result = RunResult(
        verdict=budget.verdict(metrics),
        violations=budget.violations(metrics),
        params=20_000,
        epochs=Fraction(20),
        test=test,
        test_evaluations=20,
        best=(17, replace(test, correct=9948)),
        seconds_train=61.25,
        seconds_total=70.5,
        images_seen=1_200_000,
        seed=7,
        weights_sha256="0" * 64,
        notes=("evaluated on test 20 times, after each epoch; no weights were selected on it.",),
        budget=budget,
        metrics=metrics,
        folder=Path("runs/sprint-7-20260101T000000Z"),
    )
    text = result.text(width)
    assert max(map(len, text.splitlines())) <= width
    golden(f"verdict-{width}", text + "\n")


RUN = "easy-0-20260101T000000Z"
TABLES = {
    "runs": ("runs narrow wide odd", (*WIDTHS, 140)),
    "compare-folders": ("compare narrow wide", WIDTHS),
    "compare-runs": (f"compare narrow/{RUN} wide/{RUN}", WIDTHS),
}


@pytest.mark.parametrize(
    ("name", "line", "width"),
    [(name, line, width) for name, (line, widths) in TABLES.items() for width in widths],
)
def test_tables_of_runs(
    name: str,
    line: str,
    width: int,
    records: Path,
    whit: Callable[..., Done],
    golden: Callable[[str, str], None],
    columns: Callable[[int], None],
    utc: None,
) -> None:
    columns(width)
    done = whit(line, records)
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= width
    golden(f"{name}-{width}", done.out)


def test_the_folder_of_a_trial_is_no_run(
    whit: Callable[..., Done], workshop: Path, tmp_path: Path
) -> None:
    """A search makes a folder with a recipe for each candidate; its runs lie in it, if any."""
    for number in ("0000", "0001"):
        (tmp_path / "trials" / number).mkdir(parents=True)
        shutil.copy(workshop / "runs" / "easy-0" / "recipe.toml", tmp_path / "trials" / number)
    for seed in (0, 1):
        run = workshop / "runs" / f"easy-{seed}"
        shutil.copytree(run, tmp_path / "trials" / "0000" / f"seed-{seed}")
    for folders in ("trials/0000 trials/0001", "trials"):
        rows = json.loads(whit(f"runs {folders} --json", tmp_path).out)
        assert [row["run"] for row in rows] == ["trials/0000/seed-0", "trials/0000/seed-1"]
        assert {row["state"] for row in rows} == {"finished"}
    copy = shutil.copytree(tmp_path / "trials" / "0000", tmp_path / "copy")
    assert whit(f"compare trials/0000 {copy}", tmp_path).code == 0


def test_no_runs_yet(whit: Callable[..., Done], tmp_path: Path) -> None:
    assert whit("runs", tmp_path).out == "No runs found. `whit train` creates one.\n"


def test_an_audit_of_a_run_and_of_its_weights(
    workshop: Path, whit: Callable[..., Done], golden: Callable[[str, str], None]
) -> None:
    done = whit("audit runs/easy-0", workshop)
    assert (done.code, done.err) == (0, "Evaluating easy on 100 test images ...\n")
    golden("audit-run", without_times(done.out))
    done = whit("audit models.py:TwelveClasses --recipe source.toml", workshop)
    golden("audit-source", done.out)
