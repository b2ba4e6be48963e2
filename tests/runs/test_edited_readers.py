"""Every reader reports an edited run and counts it in nothing; no run folder breaks a list."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

import whit
from harness.forging import reseal
from harness.processes import Command
from waiting import wait_until
from whit.errors import InputError
from whit.experiments.comparison import compare_runs
from whit.experiments.search.trials import read_trials
from whit.experiments.study import plan_variants, read_study
from whit.recipes.recipe import load_recipe
from whit.reports.study_facts import collect_study_facts, find_groups
from whit.runs import layout
from whit.runs.listing import rows_csv, run_rows, run_table
from whit.runs.reader import read_run, weights_problem
from whit.web.run_index import RunIndex


def edit_result(run: Path) -> None:
    file = run / "result.json"
    result = json.loads(file.read_text())
    result["test"]["correct"] -= 1
    file.write_text(json.dumps(result))


def edit_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new, 1))

    return edit


def remove_key(key: str) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        result = json.loads((run / "result.json").read_text())
        del result[key]
        (run / "result.json").write_text(json.dumps(result))

    return edit


def flip_weights(run: Path) -> None:
    content = bytearray((run / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "weights.safetensors").write_bytes(content)


def huge_weights(run: Path) -> None:
    with (run / "weights.safetensors").open("r+b") as stream:
        stream.truncate(50 << 30)  # a hole, which is not read


def link_weights(run: Path) -> None:
    (run / "weights.safetensors").rename(run.parent / "elsewhere")
    (run / "weights.safetensors").symlink_to(run.parent / "elsewhere")


EDITS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "result": ("result.json", edit_result),
    "digest": ("result.json", remove_key("digest")),
    "digests": ("result.json", remove_key("files")),
    "weights": ("weights.safetensors", flip_weights),
    "huge weights": ("weights.safetensors", huge_weights),
    "linked weights": ("weights.safetensors", link_weights),
    "log": ("log.jsonl", edit_text("log.jsonl", '"epoch": 1', '"epoch":  1')),
    "recipe": ("recipe.toml", edit_text("recipe.toml", "epochs = 4", "epochs = 4 ")),
    "environment": ("environment.json", edit_text("environment.json", '"seed": 0', '"seed": 7')),
    "table": ("audit.txt", edit_text("audit.txt", "layer", "Layer")),
    "no log": ("log.jsonl", lambda run: (run / "log.jsonl").unlink()),
    "no environment": ("environment.json", lambda run: (run / "environment.json").unlink()),
    "result of another run": (
        "environment.json",
        lambda run: (run / "environment.json").write_text("{}"),
    ),
}


@pytest.fixture
def place(undisturbed: Path, tmp_path: Path) -> Path:
    """A folder with two finished runs, `good` and `other`, and their data."""
    shutil.copy(undisturbed.parent / "easy.npz", tmp_path)
    for name in ("good", "other"):
        shutil.copytree(undisturbed, tmp_path / "runs" / name)
    return tmp_path


@pytest.mark.parametrize("name", EDITS)
def test_every_reader_excludes_an_edited_run(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    file, edit = EDITS[name]
    run = Path("runs/other")
    edit(run)
    said = rf"altered after the run: .*{file}".replace(".", r"\.").replace(r"\.*", ".*")

    good, other = run_rows([Path("runs")])
    assert (good["state"], good["verdict"], good["problem"]) == ("finished", "met", None)
    assert (other["state"], other["verdict"], other["correct"]) == ("edited", None, None)
    assert f"altered after the run: {file}" in other["problem"]
    assert "other" in run_table([good, other], 100)
    assert whit.runs("runs")[1] == other

    with pytest.raises(InputError, match=said):
        read_run(run)
    with pytest.raises(InputError, match=said):
        whit.load_run(run)
    with pytest.raises(InputError, match=said):
        whit.export(run, "c")
    with pytest.raises(InputError, match=said):
        whit.compare("runs/good", run)
    teacher = load_recipe("sprint").with_overrides([f"distill.teacher={run}"])
    with pytest.raises(InputError, match=said):
        whit.plan(teacher)

    shutil.copytree("runs/good", "elsewhere/good")
    (group, _) = compare_runs([Path("runs"), Path("elsewhere/good")]).groups
    assert [found.path for found in group.runs] == [Path("runs/good")]
    assert any("not counted: runs/other: altered after the run" in note for note in group.notes)

    page = {row["path"]: row for row in RunIndex().refresh()["runs"]}
    assert page["runs/other"]["state"] == "edited"
    assert page["runs/other"]["correct"] is None
    assert not page["runs/other"]["has_weights"]
    assert file in page["runs/other"]["message"]


def test_a_study_a_search_and_a_report_exclude_an_edited_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    recipe = read_run(Path("runs/good")).recipe
    (arm,) = plan_variants([recipe], Path("studies"))
    for seed in (0, 1):
        shutil.copytree("runs/good", arm.run_folder(seed))
    edit_result(arm.run_folder(1))
    study = read_study([arm], [0, 1], {})
    assert study.comparison
    assert [run.path for run in study.comparison.groups[0].runs] == [arm.run_folder(0)]
    assert len(study.failures) == 1
    assert "seed-1: altered after the run: result.json" in study.failures[0]

    facts = collect_study_facts(find_groups(arm.folder)[0], cache={})
    assert [run.path for run in facts.seeds.runs] == [arm.run_folder(0)]
    assert "result.json: altered after the run" in facts.altered[0]

    from whit.experiments.search.space import Space

    space = Space("s", "s", recipe, ("params", "accuracy"), 100, 1, 0.0, lambda trial: {}, "")
    for number in ("0000", "0001"):
        shutil.copytree("runs/good", f"searches/s/trials/{number}/seed-0")
        shutil.copy("runs/good/recipe.toml", f"searches/s/trials/{number}")
    edit_result(Path("searches/s/trials/0001/seed-0"))
    trials, problems = read_trials(Path("searches/s"), space)
    assert [trial.number for trial in trials] == [0]
    assert "trial 0001: searches/s/trials/0001/seed-0: altered after the run" in problems[0]


def test_missing_weights_are_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No number of the result is read from them, but nobody can recompute it."""
    monkeypatch.chdir(place)
    Path("runs/other/weights.safetensors").unlink()
    rows = run_rows([Path("runs")])
    assert [row["state"] for row in rows] == ["finished", "finished"]
    assert "weights.safetensors is missing" in rows[1]["problem"]
    assert "1 finished run has no weights.safetensors" in run_table(rows, 100)
    (_, group) = compare_runs([Path("runs/good"), Path("runs/other")]).groups
    assert any("1 of 1 runs has no weights.safetensors" in note for note in group.notes)


def test_a_key_that_is_there_twice_is_refused(place: Path) -> None:
    """The digest is of the values that are read; a person sees the first of the two."""
    run = place / "runs" / "other"
    file = run / "result.json"
    file.write_text(file.read_text().replace('"seed":', '"seed": 5, "seed":', 1))
    with pytest.raises(InputError, match="damaged: the key 'seed' is there twice"):
        read_run(run)
    (row,) = run_rows([run])
    assert (row["state"], row["correct"]) == ("damaged", None)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_weights_that_are_no_file_are_not_called_missing(
    make: Callable[[Path], None], place: Path
) -> None:
    run = place / "runs" / "other"
    (run / "weights.safetensors").unlink()
    make(run / "weights.safetensors")
    record = read_run(run, allow_edited=True)
    problem = weights_problem(record, allow_edited=True)
    assert problem == "weights.safetensors is not a regular file"


@pytest.mark.parametrize(
    "change",
    [
        {"test": {"correct": 101, "total": 100, "misclassified": []}},
        {"test": {"correct": -1, "total": 100, "misclassified": []}},
        {"test": {"correct": 10**30, "total": 10**30, "misclassified": []}},
        {"test": {"correct": 1.5, "total": 100, "misclassified": []}},
        {"test": {"correct": True, "total": 100, "misclassified": []}},
        {"test": {"correct": 99, "total": 100, "misclassified": [-1]}},
        {"test": {"correct": 99, "total": 100, "misclassified": [1], "accuracy": 150.0}},
        {"params": -5},
        {"params": 10**40},
        {"params": "few"},
        {"epochs": math.nan},
        {"epochs": math.inf},
        {"epochs": -1},
        {"seconds": {"train": -1.0, "total": 1.0}},
        {"seconds": {"train": 1.0, "total": math.nan}},
        {"verdict": "excellent"},
        {"state": "won"},
    ],
    ids=str,
)
def test_values_outside_their_range_are_refused(change: dict[str, object], place: Path) -> None:
    run = place / "runs" / "other"
    reseal(run, json.loads((run / "result.json").read_text()) | change)
    with pytest.raises(InputError, match=r"result\.json: damaged"):
        read_run(run)
    (row,) = run_rows([run])
    assert (row["state"], row["correct"], row["params"]) == ("damaged", None, None)


def test_a_folder_copied_half_breaks_no_list(undisturbed: Path, tmp_path: Path) -> None:
    """Copied in any of several orders, up to any file, the last one cut anywhere."""
    sizes = {name: (undisturbed / name).stat().st_size for name in layout.FILES}
    orders = (sorted(sizes), sorted(sizes, reverse=True), list(layout.FILES))
    states = set()
    for order, count, part in product(orders, range(1, 7), (0, 1, 2, 3)):
        run = tmp_path / "runs" / "half"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        for name in order[:count]:
            shutil.copy(undisturbed / name, run)
        with (run / order[count - 1]).open("r+b") as stream:
            stream.truncate(sizes[order[count - 1]] * part // 4)
        rows = run_rows([tmp_path / "runs"])
        run_table(rows, 60)
        rows_csv(rows)
        assert len(rows) == (1 if count > 1 or order[0] == "recipe.toml" else 0), (order, count)
        assert all(row["state"] in ("stopped", "edited", "damaged") for row in rows)
        assert all(row["verdict"] is None for row in rows)
        states |= {row["state"] for row in rows}
    assert states == {"stopped", "edited", "damaged"}


def test_a_killed_run_is_listed_as_stopped(workplace: Path) -> None:
    command = Command.start(workplace, "train", "easy.toml", "--out", "runs/one", "--threads", "1")
    wait_until((workplace / "runs/one/log.jsonl").exists, command)
    command.signal(signal.SIGKILL)
    command.wait()
    log = workplace / "runs/one/log.jsonl"
    content = log.read_bytes()
    for size in range(0, len(content), 7):
        log.write_bytes(content[:size])  # the last line as it was being written
        (row,) = run_rows([workplace / "runs"])
        assert (row["state"], row["verdict"]) == ("stopped", None)
        assert row["epochs"] == content[:size].count(b"\n")


def test_the_lists_of_a_search_and_of_parents(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for number, seed in product(("0000", "0001"), (0, 1)):
        shutil.copytree("runs/good", f"searches/s/trials/{number}/seed-{seed}")
        shutil.copy("runs/good/recipe.toml", f"searches/s/trials/{number}")
    for folder in ("searches/s", "searches", "searches/s/trials"):
        rows = run_rows([Path(folder)])
        assert [row["run"].removeprefix("searches/s/trials/") for row in rows] == [
            *("0000/seed-0", "0000/seed-1", "0001/seed-0", "0001/seed-1"),
        ]
    assert len(run_rows([Path()])) == 6
    assert len(run_rows([Path("searches"), Path("searches/s")])) == 4
