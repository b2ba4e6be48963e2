"""A whole run on a small data set: the folder, the counts, the verdict, the second judgement."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import whit
from whit.errors import DataError, InputError, ModelError, RunFailed
from whit.recipes.budget import BudgetInfeasible
from whit.recipes.recipe import load_recipe
from whit.runs.folder import import_run
from whit.runs.layout import find_runs
from whit.runs.reader import read_run
from whit.training.plan import make_plan
from whit.training.run import train_run
from whit.verification.verify import audit

FILES = {
    "recipe.toml",
    "environment.json",
    "log.jsonl",
    "result.json",
    "weights.safetensors",
    "audit.txt",
}
RESULT_KEYS = {
    "state",
    "optimizer_sha256",
    "accepted_changes",
    "files",
    "digest",
    "verdict",
    "violations",
    "params",
    "forward_passes",
    "macs",
    "receptive_field",
    "epochs",
    "test",
    "best_epoch",
    "seconds",
    "images_seen",
    "seed",
    "weights_sha256",
    "notes",
}


@pytest.fixture
def finished(easy_recipe: Path, tmp_path: Path) -> Path:
    out = tmp_path / "run"
    whit.train(easy_recipe, out=out, seed=3, quiet=True)
    return out


def result_of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return value


def test_the_folder_is_complete(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == FILES
    result = result_of(finished)
    assert set(result) == RESULT_KEYS
    assert result["verdict"] == "met"
    assert result["seed"] == 3
    assert result["images_seen"] == 1200
    assert result["epochs"] == 3
    assert result["test"]["total"] == 100
    assert result["test"]["evaluations"] == 1
    assert len(result["test"]["misclassified"]) == 100 - result["test"]["correct"]
    content = (finished / "weights.safetensors").read_bytes()
    assert result["weights_sha256"] == hashlib.sha256(content).hexdigest()
    record = read_run(finished)
    assert record.recipe == whit.load_recipe(finished)
    assert [epoch.images_seen for epoch in record.log] == [400, 800, 1200]
    assert [len(epoch.evaluations) for epoch in record.log] == [0, 0, 1]
    assert find_runs([finished.parent]) == [finished]


def test_the_second_judgement_agrees(finished: Path) -> None:
    judgement = whit.audit(finished)
    assert judgement.verdict == "met"
    assert judgement.metrics.correct == result_of(finished)["test"]["correct"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda r: r["test"].update(correct=100, misclassified=[]), "record accuracy"),
        (lambda r: r.update(params=100), "record params"),
        (lambda r: r.update(epochs=1), "record epochs"),
        (lambda r: r.update(images_seen=400), "record images"),
        (lambda r: r["test"].update(evaluations=0), "record evaluations"),
        (lambda r: r.update(verdict="pending"), "record verdict"),
        (lambda r: r["test"].update(accuracy=100.0), "record rounding"),
    ],
)
def test_a_result_that_says_more_than_the_weights_is_found(
    finished: Path, change: Any, rule: str
) -> None:
    result = result_of(finished)
    if rule in ("record accuracy", "record rounding") and result["test"]["correct"] == 100:
        spoil_weights(finished)
        result["weights_sha256"] = hashlib.sha256(
            (finished / "weights.safetensors").read_bytes()
        ).hexdigest()
    change(result)
    (finished / "result.json").write_text(json.dumps(result))
    judgement = audit(finished)
    assert judgement.verdict == "missed"
    assert rule in [violation.rule for violation in judgement.violations]


def spoil_weights(folder: Path) -> None:
    from safetensors.torch import load, save

    file = folder / "weights.safetensors"
    tensors = load(file.read_bytes())
    tensors["linear1.weight"] = -tensors["linear1.weight"]
    file.write_bytes(save(tensors))


def test_altered_weights_are_found(finished: Path) -> None:
    spoil_weights(finished)
    rules = [violation.rule for violation in audit(finished).violations]
    assert "record weights" in rules
    assert "record accuracy" in rules


def test_an_over_budget_model_is_refused_before_data_is_read(
    easy_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ["budget.params=< 100", 'budget.forbid=["linear"]', "model.dropout=0.0",
               "budget.epochs=< 1"]  # fmt: skip
    planned = make_plan(whit.load_recipe(easy_recipe).with_overrides(changes))

    def no_data(*_: object, **__: object) -> None:
        raise AssertionError("data was read")

    monkeypatch.setattr("whit.training.setup.load_kept_dataset", no_data)
    with pytest.raises(BudgetInfeasible) as caught:
        train_run(planned, out=tmp_path / "run")
    rules = [violation.rule for violation in caught.value.violations]
    assert rules == ["params", "epochs", "require dropout", "forbid linear"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("limit", ["budget.epochs=< 1", "budget.params=< 100"])
def test_a_run_over_its_budget_is_trained_on_request_and_missed(
    limit: str, easy_recipe: Path, tmp_path: Path
) -> None:
    recipe = whit.load_recipe(easy_recipe).with_overrides([limit, "train.epochs=1"])
    with pytest.raises(BudgetInfeasible):
        whit.train(recipe, out=tmp_path / "run", quiet=True)
    with pytest.raises(BudgetInfeasible):
        whit.study(recipe, seeds=1, out=tmp_path / "study", quiet=True)
    assert not any(
        path.is_dir() for path in tmp_path.iterdir() if path.name != easy_recipe.parent.name
    )
    result = whit.train(recipe, out=tmp_path / "run", quiet=True, over_budget=True)
    assert result.verdict == "missed"
    assert whit.audit(tmp_path / "run").verdict == "missed"


def test_val_is_read_each_epoch_and_test_left_alone(easy_recipe: Path, tmp_path: Path) -> None:
    recipe = whit.load_recipe(easy_recipe).with_overrides(
        ["data.val_size=50", "eval.each_epoch=val", "eval.test=false"]
    )
    result = whit.train(recipe, out=tmp_path / "run", quiet=True)
    assert result.verdict == "pending"
    assert result.test is None
    assert result.to_json()["test"]["evaluations"] == 0
    judgement = whit.audit(tmp_path / "run")
    assert judgement.verdict == "pending"
    assert judgement.metrics.correct is None
    for value in (result, judgement):
        for text in (str(value), value._repr_html_()):
            assert text.count("Verdict:") == 1
            assert "Verdict: pending (not evaluated on test)." in text
    log = read_run(tmp_path / "run").log
    assert [e.split for epoch in log for e in epoch.evaluations] == ["val"] * 3
    assert {e.total for epoch in log for e in epoch.evaluations} == {50}
    assert log[-1].images_seen == 3 * 350


def test_evaluations_on_test_after_each_epoch_are_noted(easy_recipe: Path, tmp_path: Path) -> None:
    recipe = whit.load_recipe(easy_recipe).with_overrides(["eval.each_epoch=test"])
    result = whit.train(recipe, out=tmp_path / "run", quiet=True)
    assert result.to_json()["test"]["evaluations"] == 3
    assert any("evaluated on test 3 times" in note for note in result.notes)


def small_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1),
        nn.Conv2d(8, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def test_a_model_given_in_python(easy_recipe: Path, tmp_path: Path) -> None:
    result = whit.train(easy_recipe, small_net(), out=tmp_path / "run", quiet=True)
    assert result.params == sum(p.numel() for p in small_net().parameters())
    with pytest.raises(ModelError, match="passed in Python"):
        whit.audit(tmp_path / "run")
    judgement = whit.audit(tmp_path / "run", model=small_net())
    assert result.test is not None
    assert judgement.metrics.correct == result.test.correct


def test_nothing_is_left_when_something_is_wrong(easy_recipe: Path, tmp_path: Path) -> None:
    recipe = whit.load_recipe(easy_recipe)
    out = tmp_path / "run"
    with pytest.raises(InputError, match="--threads 0"):
        whit.train(recipe, out=out, threads=0, quiet=True)
    with pytest.raises(InputError, match="not a device"):
        whit.train(recipe, out=out, device="gpu", quiet=True)
    frozen = small_net().requires_grad_(False)
    with pytest.raises(ModelError, match="no trainable parameters"):
        whit.train(recipe, frozen, out=out, quiet=True)
    with pytest.raises((DataError, InputError)):
        whit.train(recipe.with_overrides(["data.name=/nowhere.npz"]), out=out, quiet=True)
    assert not out.exists()
    out.mkdir()
    with pytest.raises(InputError, match="never overwrites"):
        whit.train(recipe, out=out, quiet=True)
    assert list(out.iterdir()) == []


def test_fresh_processes_give_the_same_bytes(easy_recipe: Path, tmp_path: Path) -> None:
    sums = []
    for name in ("a", "b"):
        out = tmp_path / name
        command = [sys.executable, "-m", "whit", "train", str(easy_recipe), "--seed", "7"]
        command += ["--threads", "1", "--json", "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        sums.append(json.loads(done.stdout)["weights_sha256"])
    assert sums[0] == sums[1]


def test_a_moved_folder_still_judges(finished: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(finished, moved)
    assert audit(moved).verdict == "met"


def test_the_random_state_outside_is_untouched_by_plans(easy_recipe: Path) -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    make_plan(whit.load_recipe(easy_recipe))
    assert torch.equal(torch.rand(3), wanted)


def test_threads_and_random_state_outside_are_left_alone(easy_recipe: Path, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    whit.train(easy_recipe, out=tmp_path / "run", threads=1, quiet=True)
    assert torch.equal(torch.rand(3), wanted)
    assert torch.get_num_threads() == 2


def test_a_lazy_model_given_in_python(easy_recipe: Path, tmp_path: Path) -> None:
    lazy = nn.Sequential(
        nn.LazyConv2d(8, 5, 2), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Dropout(0.1),
        nn.LazyConv2d(10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    assert whit.train(easy_recipe, lazy, out=tmp_path / "run", quiet=True).params == 954


def test_a_model_that_fails_while_training_is_named(easy_recipe: Path, tmp_path: Path) -> None:
    class Picky(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 2:
                raise ValueError("only two images, please")
            out: torch.Tensor = super().forward(x)
            return out

    with pytest.raises(RunFailed, match="Picky failed while training: ValueError: only two"):
        whit.train(easy_recipe, Picky(*small_net()), out=tmp_path / "run", quiet=True)


def test_a_run_from_elsewhere_takes_the_place_of_one_that_was_left(
    easy_recipe: Path, tmp_path: Path
) -> None:
    whole = train_run(make_plan(load_recipe(easy_recipe)), out=tmp_path / "whole").folder
    assert whole is not None
    files = {path.name: path.read_bytes() for path in whole.iterdir()}
    left = tmp_path / "left"
    shutil.copytree(whole, left)
    (left / "result.json").unlink()
    import_run(left, files)
    assert {path.name: path.read_bytes() for path in left.iterdir()} == files
    (left / "log.jsonl").write_text("kept")
    import_run(left, files)  # a finished one is never replaced
    assert (left / "log.jsonl").read_text() == "kept"
    for name in ("../outside", "sub/weights.safetensors", "result.json.exe"):
        with pytest.raises(RunFailed, match="unexpected files in a run"):
            import_run(tmp_path / "strange", {**files, name: b""})
    assert not (tmp_path / "strange").exists()
