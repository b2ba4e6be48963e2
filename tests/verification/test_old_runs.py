"""Runs in schema 1 stay readable: listed, compared, audited on the full test set.

pytest tests/verification/test_old_runs.py
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.records import first_runs
from whit.errors import InputError
from whit.experiments.comparison import compare_runs
from whit.recipes.recipe import parse_recipe
from whit.runs.listing import run_rows, run_table
from whit.runs.manifest import verify_manifest
from whit.runs.reader import RunRecord, read_run
from whit.verification.restore import load_run_model
from whit.verification.verify import audit_run, find_tampering

OLD = Path(__file__).parent / "schema1"
# Of the first runs, whose results do not say their state, one is kept beside the records.
SEEDS = [*first_runs(), OLD / "published-17098"]
WITH_WEIGHTS = [path for path in SEEDS if (path / "weights.safetensors").exists()]
CORRECT = {"sharpest": 9962, "tiniest": 9944}


def name_of(path: Path) -> str:
    return path.name if path.parent == OLD else path.parent.name


@pytest.fixture(params=CORRECT)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD / request.param, tmp_path / request.param))


@pytest.mark.parametrize("path", SEEDS, ids=name_of)
def test_every_record_is_read_and_listed(path: Path) -> None:
    run = read_run(path)
    assert run.state == "finished"
    assert run.result is not None
    assert run.result["verdict"] in ("met", "missed")
    assert run.result["test"]["evaluations"] >= 1
    evaluation = run.final_evaluation
    assert evaluation is not None
    assert len(evaluation.misclassified) == evaluation.total - evaluation.correct
    assert parse_recipe(run.recipe.to_toml(), "again") == run.recipe
    (row,) = run_rows([path])
    assert (row["state"], row["verdict"]) == ("finished", run.result["verdict"])
    assert (row["correct"], row["total"]) == (evaluation.correct, 10_000)
    assert run.recipe.name in run_table([row], 200)


@pytest.mark.parametrize("path", WITH_WEIGHTS, ids=name_of)
def test_the_weights_of_every_record_fit_its_network(path: Path) -> None:
    run = read_run(path)
    loaded = load_run_model(run)
    assert list(find_tampering(run)) == []
    assert run.result is not None
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) <= 20_000


def test_records_are_compared() -> None:
    folders = [path.parent for path in SEEDS if path.parts[-3] in ("sprint", "sharpest")]
    assert len(folders) == 2
    comparison = compare_runs(folders)
    names = [run["name"].partition("-")[0] for run in comparison.to_json()["runs"]]
    assert sorted(names) == ["sharpest", "sprint"]
    assert "sharpest" in comparison.table(100)
    two = compare_runs([OLD / "sharpest", OLD / "tiniest"]).to_json()["runs"]
    assert [run["correct"] for run in two] == [[correct] for correct in CORRECT.values()]


def test_an_old_run_is_audited_on_the_full_test_set(old: Path) -> None:
    """Translated recipe, renamed tensors, and test-time augmentation outside the network."""
    run = read_run(old)
    stored = json.loads((old / "result.json").read_text())
    assert "seal" in stored
    assert "schema" not in (old / "recipe.toml").read_text()
    assert run.recipe.eval.tta_shifts == 8
    if old.name == "sharpest":
        assert run.recipe.model.arguments["columns"] == ["raw", "deskewed"]
    else:
        assert run.recipe.qat is not None
        assert run.recipe.qat.bits == 4
    result, evaluated = audit_run(run)
    assert result.mismatches == ()
    assert result.verdict == "met"
    assert evaluated is not None
    assert evaluated.test.total == 10_000
    # Another processor may decide a near tie otherwise, which the audit notes.
    assert result.metrics.correct == stored["test"]["correct"] == CORRECT[old.name]
    assert set(evaluated.test.misclassified) == set(stored["test"]["wrong"]) or result.notes


@pytest.mark.parametrize(
    "change",
    [
        lambda result: result["test"].update(correct=9999),
        lambda result: result["test"].update(wrong=[1, 2]),
        lambda result: result.update(verdict="open"),
        lambda result: result.update(seal="0" * 64),
        lambda result: result.pop("seal"),
        lambda result: result.update(digest=result["seal"]),
        lambda result: result["files"].pop("weights.safetensors"),
    ],
    ids=["correct", "wrong", "verdict", "digest", "no digest", "new digest", "files"],
)
def test_an_edited_old_result_is_found(old: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = old / "result.json"
    result = json.loads(file.read_text())
    change(result)
    file.write_text(json.dumps(result))
    run = read_run(old, allow_edited=True)
    assert "result.json" in run.edited
    assert run.stored_result is not None
    assert "result.json" in {name for name, _, _ in verify_manifest(run.stored_result, old)}


def test_an_edited_number_of_an_old_result_fails_the_audit(tmp_path: Path) -> None:
    """Also when the manifest is written again: the weights do not have that accuracy."""
    old = Path(shutil.copytree(OLD / "tiniest", tmp_path / "tiniest"))
    file = old / "result.json"
    result = json.loads(file.read_text())
    result["test"]["correct"] = 9950
    result["test"]["wrong"] = result["test"]["wrong"][6:]
    file.write_text(json.dumps(result))
    audited, _ = audit_run(read_run(old, allow_edited=True))
    rules = {mismatch.rule for mismatch in audited.mismatches}
    assert {"altered result.json", "record accuracy", "record last epoch"} <= rules
    assert audited.verdict == "missed"


def edit(old: Path, file: str, replace: Callable[[str], str]) -> RunRecord:
    path = old / file
    text = path.read_text()
    path.write_text(replace(text))
    assert path.read_text() != text
    return read_run(old)


@pytest.mark.parametrize(
    ("file", "replace"),
    [
        # Half upgraded by hand: one file, or one key, in the other schema.
        ("recipe.toml", lambda text: f"schema = 2\n{text}"),
        ("recipe.toml", lambda text: f"schema = 3\n{text}"),
        ("recipe.toml", lambda text: f'schema = "1"\n{text}'),
        ("recipe.toml", lambda text: f"schema = [1]\n{text}"),
        ("recipe.toml", lambda text: text.replace("views = 9", "views = 7")),
        ("recipe.toml", lambda text: text.replace("views = 9", "views = [9]")),
        ("recipe.toml", lambda text: text.replace("views = 9", 'views = {a = "b"}')),
        ("recipe.toml", lambda text: f"{text}\n[eval]\ntta_shifts = 3\n"),
        ("recipe.toml", lambda text: f"average = 3\n{text.replace('[average]', '[other]')}"),
        ("recipe.toml", lambda text: f"eval = 3\n{text}"),
        ("recipe.toml", lambda text: f"qat = 3\n{text}"),
        ("recipe.toml", lambda text: f'base = "sprint"\n{text}'),
        ("recipe.toml", lambda text: text.replace('name = "plain"', "name = 3")),
        ("recipe.toml", lambda text: text.replace("[model]", "[[model]]")),
        ("recipe.toml", lambda text: text.replace("[schedule]", '[schedule]\nname = "cosine"')),
        ("result.json", lambda text: text.replace('"wrong"', '"misses"')),
        ("result.json", lambda text: text.replace('"wrong": [', '"misclassified": 3, "w": [')),
        ("result.json", lambda text: text.replace('"changes": []', '"changes": [3]')),
        ("result.json", lambda text: text.replace('"changes": []', '"accepted_changes": 3')),
        ("result.json", lambda text: text.replace('"verdict": "met"', '"verdict": "open?"')),
        ("result.json", lambda text: text.replace('"verdict": "met"', '"verdict": ["open"]')),
        ("result.json", lambda text: text.replace('"test": {', '"test": [], "t": {')),
    ],
)
def test_a_half_upgraded_file_is_refused_in_one_message(
    old: Path, file: str, replace: Callable[[str], str]
) -> None:
    with pytest.raises(InputError) as caught:
        edit(old, file, replace)
    assert all(str(old / file) in problem for problem in caught.value.problems)
    (row,) = run_rows([old])
    assert row["state"] == "damaged"


def test_both_spellings_of_a_key_are_refused(old: Path) -> None:
    with pytest.raises(InputError, match=r"both model\.views and eval\.tta_shifts"):
        edit(old, "recipe.toml", lambda text: f"{text}\n[eval]\ntta_shifts = 8\n")


@pytest.mark.parametrize("schema", ["", "schema = 1\n"])
def test_without_a_schema_it_is_schema_1(old: Path, schema: str) -> None:
    recipe = read_run(old).recipe
    path = old / "recipe.toml"
    path.write_text(schema + path.read_text())
    assert read_run(old, allow_edited=True).recipe == recipe


def test_a_run_in_schema_2_is_read_as_it_is(old: Path) -> None:
    recipe = read_run(old).recipe
    (old / "recipe.toml").write_text(recipe.to_toml())
    assert read_run(old, allow_edited=True).recipe == recipe
