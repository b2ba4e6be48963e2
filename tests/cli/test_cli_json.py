"""With `--json` standard output is exactly one JSON value, whatever a user's own model prints."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calling import Done

AUDIT = {
    *("params", "macs", "forward_passes", "receptive_field", "layers"),
    *("recipe", "budget", "violations", "verdict", "notes"),
}
PARAMS = {"total", "trainable", "frozen", "buffers", "unused"}
LAYER = {"name", "kind", "output_shape", "params", "macs", "receptive_field", "jump"}
VIOLATION = {"rule", "limit", "value", "message"}
TALKS = "source.toml --set model.name=models.py:Talks"


def parsed(done: Done) -> Any:
    """The value on standard output; NaN and Infinity are no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(done.out, parse_constant=refuse)


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("plan sprint", {"steps", "images"}),
        ("plan published-17098", {"steps", "images"}),
        ("plan published-16848", {"steps", "images"}),  # missed
        (f"plan {TALKS}", {"steps", "images"}),
        ("audit sprint", {"target"}),
        ("audit models.py:Talks", {"target"}),
        ("audit models.py:BadForward", {"target"}),
        ("audit runs/easy-0", {"target"}),
        ("audit runs/easy-0/weights.safetensors --recipe easy.toml", {"target"}),
    ],
)
def test_plan_and_audit(
    line: str, more: set[str], workshop: Path, whit: Callable[..., Done]
) -> None:
    done = whit(f"{line} --json", workshop)
    value = parsed(done)
    assert set(value) == AUDIT | more
    assert set(value["params"]) == PARAMS
    assert all(set(layer) == LAYER for layer in value["layers"])
    assert all(set(row) == {"rule", "limit", "value", "status"} for row in value["budget"])
    assert {row["status"] for row in value["budget"]} <= {"pass", "FAIL", "pending"}
    assert all(set(violation) == VIOLATION for violation in value["violations"])
    assert done.code == (value["verdict"] == "missed")
    assert bool(value["violations"]) == (value["verdict"] == "missed")


def test_train(workshop: Path, whit: Callable[..., Done], tmp_path: Path) -> None:
    done = whit(f"train {TALKS} --set train.epochs=1 --json --out {tmp_path / 'r'}", workshop)
    assert "built" in done.err
    assert "called" in done.err
    value = parsed(done)
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert value == {"folder": str(tmp_path / "r"), **result}
    wanted = {"verdict", "violations", "params", "epochs", "test", "best_epoch", "seconds"}
    assert wanted | {"images_seen", "seed", "weights_sha256"} <= set(value)
    assert {"correct", "total", "accuracy", "loss", "evaluations"} <= set(value["test"])
    assert {"epoch", "correct"} <= set(value["best_epoch"])
    assert set(value["seconds"]) == {"train", "total"}


def test_what_a_model_prints_is_seen_without_json(
    workshop: Path, whit: Callable[..., Done]
) -> None:
    assert "called\n" in whit(f"plan {TALKS}", workshop).out


def test_runs_of_studies_lie_one_folder_deeper(
    workshop: Path, tmp_path: Path, whit: Callable[..., Done]
) -> None:
    shutil.copytree(workshop / "runs", tmp_path / "studies" / "easy-1234")
    rows = parsed(whit("runs studies --json", tmp_path))
    names = [path.name for path in sorted((workshop / "runs").iterdir())]
    assert [row["run"] for row in rows] == [f"studies/easy-1234/{name}" for name in names]


def test_lists(workshop: Path, whit: Callable[..., Done]) -> None:
    rows = parsed(whit("recipes --json", workshop))
    assert rows[0]["name"] == "sprint"
    assert {"name", "params", "epochs", "accuracy"} <= set(rows[0])
    rows = parsed(whit("runs runs spoilt --json", workshop))
    found = {row["run"]: (row["state"], row["verdict"]) for row in rows}
    assert found["runs/easy-0"] == ("finished", "met")
    assert found["spoilt/unfinished"] == ("stopped", None)
    assert found["spoilt/typed-result"] == ("damaged", None)
    assert parsed(whit("runs a-folder --json", workshop)) == []
    value = parsed(whit("compare runs/easy-0 runs/easy-1 --json", workshop))
    assert set(value) == {"runs", "differences", "evidence", "correction", "notes"}
    assert {"name", "seeds", "params", "accuracy", "correct", "total"} <= set(value["runs"][0])
    facts = parsed(whit("data easy.npz --json", workshop))
    assert (facts["train"], facts["val"], facts["test"]) == (400, 0, 100)


def test_runs_as_csv(whit: Callable[..., Done], workshop: Path) -> None:
    rows = parsed(whit("runs runs spoilt --json", workshop))
    done = whit("runs runs spoilt --csv", workshop)
    assert (done.code, done.err) == (0, "")
    read = list(csv.DictReader(io.StringIO(done.out, newline="")))
    differs = [row.pop("differs") for row in rows]
    assert [row.pop("differs").count("=") for row in read] == [*map(len, differs)]
    assert read == [
        {key: "" if value is None else str(value) for key, value in row.items()} for row in rows
    ]
    assert done.out.count("\r\n") == len(rows) + 1
    assert whit("runs a-folder --csv", workshop).out.startswith("run,recipe,seed,")
    refused = whit("runs --csv --json", workshop)
    assert (refused.code, refused.out) == (2, "")


@pytest.mark.parametrize("command", ["train", "study --seeds 2"])
def test_what_is_refused_before_training(
    command: str, workshop: Path, whit: Callable[..., Done]
) -> None:
    done = whit(f"{command} easy.toml --json --set budget.epochs='< 3'", workshop)
    assert done.code == 1
    value = parsed(Done(0, done.out, done.err))
    assert value["verdict"] == "missed"
    assert [violation["rule"] for violation in value["violations"]] == ["epochs"]
