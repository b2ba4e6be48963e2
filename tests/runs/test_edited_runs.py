"""Edited files of a run end in one message, never in a traceback, also with a new manifest.

pytest tests/runs/test_edited_runs.py
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from whit.errors import InputError
from whit.recipes.recipe import load_recipe
from whit.recipes.schema1 import upgrade_recipe
from whit.runs.compatibility import describe_change, diff_environments
from whit.runs.listing import run_fields, run_rows, run_table
from whit.runs.manifest import with_manifest
from whit.runs.reader import read_run
from whit.runs.teacher import load_teacher
from whit.training.plan import make_plan
from whit.training.run import train_run
from whit.verification.verify import audit_run

OLD = Path(__file__).parents[1] / "verification" / "schema1" / "tiniest"
VALUES: tuple[Any, ...] = (None, True, 0, -1, 10**30, 1e308, "x", "", [], [None], {}, {"a": [1]})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, easy_npz: Path) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    recipe = load_recipe("sprint").with_overrides(
        [
            *(
                f"data.name={easy_npz}",
                "data.val_size=100",
                "model.widths=[4]",
                "model.strides=[1]",
                "name=easy",
            ),
            *("model.kernels=[3]", "model.paddings=[1]", "model.pool_after=[1]", "train.epochs=2"),
            *("train.batch_size=50", "eval.each_epoch=val", "model.crop=0"),
        ]
    )
    train_run(make_plan(recipe), out=folder / "run", threads=1)
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def edits(value: Any) -> Iterator[Any]:
    """Every edit of one part of a JSON value: another value in its place, or none."""
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    for key in keys:
        for other in VALUES:
            edited = copy.deepcopy(value)
            edited[key] = other
            yield edited
        edited = copy.deepcopy(value)
        del edited[key]
        yield edited
        if isinstance(value[key], dict | list):
            for inner in edits(value[key]):
                edited = copy.deepcopy(value)
                edited[key] = inner
                yield edited


def use(run: Path) -> bool:
    """Read and list a run, and use it as a teacher; return whether it could be read."""
    (row,) = run_rows([run])
    run_table([row], 100)
    recipe = load_recipe("sprint").with_overrides([f"distill.teacher={run}"])
    try:
        teacher = load_teacher(recipe)
        assert teacher is not None
        assert json.dumps(teacher.to_json())
        assert str(teacher)
    except InputError:
        pass
    try:
        record = read_run(run, allow_edited=True)
    except InputError:
        assert row["state"] == "damaged"
        assert row["problem"]
        return False
    if row["state"] == "edited":  # then only the list, the page and the audit read it
        with pytest.raises(InputError, match="altered after the run"):
            read_run(run)
    assert json.dumps(run_fields(record, on_page=True))
    return True


def write_result(run: Path, result: Any) -> None:
    """Write a result with a manifest that fits, as a forger would."""
    if isinstance(result, dict):
        result.pop("files", None)
        result.pop("digest", None)
        result = with_manifest(result, run)
    (run / "result.json").write_text(json.dumps(result))


def test_every_edit_of_a_result(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    result["test"]["misclassified"] = result["test"]["misclassified"][:2]  # else as many edits
    usable = []
    for edited in edits(result):
        write_result(run, edited)
        usable.append(use(run))
    assert len(usable) > 300
    assert {True, False} == set(usable)


def test_edited_results_are_audited(run: Path) -> None:
    rng = random.Random(1)
    result = json.loads((run / "result.json").read_text())
    chosen = rng.sample(list(edits(result)), 40)
    for edited in chosen:
        write_result(run, edited)
        try:
            audited, _ = audit_run(read_run(run))
        except InputError:
            continue
        assert audited.table(80)
        assert json.dumps(audited.to_json())


@pytest.mark.parametrize("key", ["forward_passes", "macs", "receptive_field", "test", "epochs"])
def test_a_result_without_a_key_is_audited_or_refused(run: Path, key: str) -> None:
    result = json.loads((run / "result.json").read_text())
    del result[key]
    write_result(run, result)
    try:
        audited, _ = audit_run(read_run(run))
    except InputError:
        assert key in ("test", "epochs")
    else:
        # Without the passes it counts as a result of an older version, which had none of three.
        assert {found.rule for found in audited.mismatches} == (
            set() if key == "forward_passes" else {f"record {key}"}
        )


def test_every_edit_of_a_line_of_the_log(run: Path) -> None:
    first, second = (run / "log.jsonl").read_text().splitlines()
    usable = []
    for edited in edits(json.loads(second)):
        (run / "log.jsonl").write_text(f"{first}\n{json.dumps(edited)}\n")
        usable.append(use(run))
    assert {True, False} == set(usable)


@pytest.mark.parametrize(
    "change", [{"total": 0}, {"correct": -1}, {"correct": 10**6}], ids=lambda change: str(change)
)
def test_impossible_counts_in_the_log_are_refused(run: Path, change: dict[str, int]) -> None:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    lines[-1]["evaluations"][0] |= change
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=r"log\.jsonl, line 2: damaged: evaluations"):
        read_run(run)


def test_every_edit_of_the_environment(run: Path) -> None:
    environment = json.loads((run / "environment.json").read_text())
    environment["processor_features"] = environment["processor_features"][:1]
    for edited in edits(environment):
        (run / "environment.json").write_text(json.dumps(edited))
        assert use(run)
        for change in diff_environments(edited, environment):
            assert describe_change(change)


@pytest.mark.parametrize("change", ["eval.test=false", "data.val_size=400", "data.val_size=500"])
def test_a_recipe_that_contradicts_the_result(run: Path, change: str) -> None:
    recipe = read_run(run).recipe.with_overrides([change])
    (run / "recipe.toml").write_text(recipe.to_toml())
    try:
        audited, _ = audit_run(read_run(run, allow_edited=True))
    except InputError:
        return
    assert audited.verdict == "missed"
    assert "record accuracy" in {found.rule for found in audited.mismatches}


def test_every_edit_of_a_recipe_in_schema_1() -> None:
    """Of the translated tables: an error that the reader of runs expects, or a recipe."""
    import tomllib

    tables = tomllib.loads((OLD / "recipe.toml").read_text())
    outcomes = set()
    for edited in edits(tables):
        try:
            upgraded = upgrade_recipe(edited)
        except (ValueError, KeyError, TypeError):
            outcomes.add("refused")
        else:
            assert isinstance(upgraded, dict)
            outcomes.add("translated")
    assert outcomes == {"refused", "translated"}
