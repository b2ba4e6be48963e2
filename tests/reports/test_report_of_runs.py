"""The report of a run in any state."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from report_page import checked, train
from torch import nn

from harness.forging import reseal
from whit.data.datasets import load_dataset
from whit.recipes.recipe import Recipe, load_recipe
from whit.reports import collect_run_facts, render_run_html, render_study_html
from whit.runs.reader import read_run
from whit.system.numbers import percent
from whit.verification.error_analysis import KNOWN_LABEL_ERRORS, analyze_logits

SECTIONS = [
    "Verdict",
    "Recipe and environment",
    "Layers",
    "Training",
    "Confusion matrix",
    "Accuracy per class",
    "Misclassified test images",
    "Calibration",
    "Reproduce",
]


def test_a_run_has_every_part(runs: Path) -> None:
    record = read_run(runs / "seed-0", allow_edited=True)
    page = checked(render_run_html(record))
    assert page.sections == SECTIONS
    assert record.result is not None
    test = record.result["test"]
    shown = f"{percent(test['correct'], test['total'])} ({test['correct']}/{test['total']})"
    assert f"accuracy >= 10 {shown} pass" in page.text
    assert "Verdict: met (recomputed from the saved weights)." in page.text
    assert re.search(r"5 forward passes per decision, [\d,]+ MACs each", page.text)
    assert "conv1 conv 4×28×28" in page.text  # the network, without test-time augmentation
    assert re.search(r"Epoch 2/2: loss \d\.\d{4}", page.text)
    assert re.search(r"Test set: Average loss: \d\.\d{4}, Accuracy: \d+/100 \(", page.text)
    assert f"whit train {record.path / 'recipe.toml'} --seed 0 --threads 1" in page.text
    alts = " ".join(image["alt"] or "" for image in page.named("img"))
    first, last = record.log[0].loss, record.log[-1].loss
    assert f"Training loss falls from {first:.3g} to {last:.3g} over 2 epochs" in alts
    images = [image for image in page.named("img") if "image/png" in (image["src"] or "")]
    assert len(images) == len(test["misclassified"])
    assert "disputed" not in page.text


def test_the_same_folder_gives_the_same_bytes(runs: Path) -> None:
    record = read_run(runs / "seed-0", allow_edited=True)
    assert render_run_html(record) == render_run_html(record)
    assert render_study_html(runs) == render_study_html(runs)


def test_a_builtin_recipe_is_named_in_the_command(runs: Path) -> None:
    record = read_run(runs / "seed-0", allow_edited=True)
    sprint = replace(record, recipe=load_recipe("sprint"), environment={"seed": 3}, result=None)
    page = checked(render_run_html(sprint))
    assert "whit train sprint --seed 3 Trained with whit of unknown version" in page.text
    assert "(installed package, commit unknown)" in page.text


def test_altered_weights_fail_the_integrity_check(finished: Path) -> None:
    from safetensors.torch import load, save

    file = finished / "weights.safetensors"
    tensors = load(file.read_bytes())
    tensors["linear1.weight"] = -tensors["linear1.weight"]
    file.write_bytes(save(tensors))
    record = read_run(finished, allow_edited=True)
    page = checked(render_run_html(record))
    assert "Integrity check failed (verdict: missed)." in page.text
    assert "weights.safetensors: altered after the run" in page.text
    assert re.search(r"correct[^.]*: result\.json has .*, recomputed ", page.text)
    assert "Verdict: missed (recomputed from the saved weights)." in page.text
    assert record.result is not None
    assert collect_run_facts(record).analysis.correct != record.result["test"]["correct"]  # type: ignore[union-attr]


def test_a_run_without_weights_shows_its_recorded_result(finished: Path) -> None:
    (finished / "weights.safetensors").unlink()
    record = read_run(finished, allow_edited=True)
    page = checked(render_run_html(record))
    assert "Verdict: met (as recorded)." in page.text
    assert "Not recomputed:" in page.text
    assert "weights.safetensors is missing" in page.text
    assert record.result is not None
    tiles = [i for i in page.named("img") if "image/png" in (i["src"] or "")]
    assert len(tiles) == len(record.result["test"]["misclassified"])
    result = json.loads((finished / "result.json").read_text())
    result["verdict"] = "met"
    result["params"] = 3
    (finished / "result.json").write_text(json.dumps(result))
    page = checked(render_run_html(read_run(finished, allow_edited=True)))
    assert "Integrity check failed (verdict: missed)." in page.text
    assert "Verdict: missed (as recorded)." in page.text


def test_an_unfinished_run(finished: Path) -> None:
    (finished / "result.json").unlink()
    page = checked(render_run_html(read_run(finished, allow_edited=True)))
    assert page.sections == [*SECTIONS[:4], SECTIONS[-1]]
    assert "The run is not finished (stopped): 2 of 2 epochs done." in page.text
    assert "Verdict: pending. The run is not finished: stopped." in page.text
    (finished / "log.jsonl").write_text("")
    page = checked(render_run_html(read_run(finished, allow_edited=True)))
    assert "No epoch was completed." in page.text


def test_a_diverged_run_has_no_result(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    result |= {"state": "diverged", "verdict": "missed", "test": {"correct": None, "total": None}}
    result["diverged"] = {"epoch": 2, "step": 7, "loss": None, "lr": 0.1}
    (finished / "result.json").write_text(json.dumps(result))
    page = checked(render_run_html(read_run(finished, allow_edited=True)))
    assert "Verdict: missed. The run diverged at epoch 2, step 7." in page.text
    assert "It has no result." in page.text
    assert page.sections == [*SECTIONS[:4], SECTIONS[-1]]


def test_a_run_evaluated_on_val_only(easy: Recipe, tmp_path: Path) -> None:
    changes = ["data.val_size=100", "eval.each_epoch=val", "eval.test=false", "train.epochs=1"]
    record = train(easy.with_overrides(changes), tmp_path / "study" / "seed-0")
    found = collect_run_facts(record).analysis
    assert found is not None
    assert (found.split, found.total) == ("val", 100)
    assert found.correct == record.log[-1].evaluations[0].correct
    page = checked(render_run_html(record))
    assert "Misclassified val images" in page.sections
    assert "not evaluated on test" in page.text
    assert "Verdict: pending" in page.text
    assert "test image" not in page.text.lower()
    log = tmp_path / "study" / "seed-0" / "log.jsonl"
    log.write_text(log.read_text().replace(f'"correct": {found.correct}', '"correct": 100'))
    reseal(record.path)
    assert (
        "The log has 100/100 correct on val"
        in checked(render_run_html(read_run(record.path, allow_edited=True))).text
    )
    page = checked(render_study_html(tmp_path / "study"))
    assert "do not record which val images were misclassified." in page.text


def test_a_run_judged_on_nothing(easy: Recipe, tmp_path: Path) -> None:
    record = train(easy.with_overrides(["eval.test=false", "train.epochs=1"]), tmp_path / "run")
    page = checked(render_run_html(record))
    assert "evaluated on neither test nor val" in page.text


def test_a_model_given_in_python(easy: Recipe, tmp_path: Path) -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 10, 5, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    record = train(
        easy.with_overrides(["train.epochs=1", "budget.require=[]"]), tmp_path / "run", 0, net()
    )
    page = checked(render_run_html(record))
    assert "this model was passed in Python" in page.text
    assert "The network cannot be built here" in page.text
    assert "Verdict: " in page.text
    assert checked(render_run_html(record, net())).sections == SECTIONS


def test_code_in_a_run_folder_is_not_executed(finished: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (finished / "net.py").write_text(f"class Net: open({str(ran)!r}, 'w')\n")
    recipe = read_run(finished, allow_edited=True).recipe.with_overrides(
        [f"model.name={finished / 'net.py'}:Net"]
    )
    (finished / "recipe.toml").write_text(recipe.to_toml())
    page = checked(render_run_html(read_run(finished, allow_edited=True)))
    assert "code in a run folder is never executed" in page.text
    assert not ran.exists()


def test_colour_and_many_classes(tmp_path: Path) -> None:
    """40 classes, 3 channels, 12x20 pixels, and more than a thousand images wrong."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2400, 12, 20, 3), dtype=np.uint8)
    labels = np.arange(2400) % 40
    np.savez(tmp_path / "c.npz", x_train=images[:800], y_train=labels[:800],
             x_test=images[800:], y_test=labels[800:])  # fmt: skip
    recipe = load_recipe("sprint").with_overrides(
        [f"data.name={tmp_path / 'c.npz'}", "train.epochs=1", "model.name=plain",
         "model.widths=[4, 4]", "train.batch_size=100", "name=many"]
    )  # fmt: skip
    record = train(recipe, tmp_path / "run")
    found = collect_run_facts(record).analysis
    assert found is not None
    assert found.num_errors > len(found.errors) == 1000
    assert len(found.errors[0].probabilities) == 40
    page = checked(render_run_html(record))
    assert f"and {found.num_errors - 100:,} more" in page.text
    assert re.search(r"Most confused pairs of classes, 20 of [\d,]+", page.text)
    assert "The 20 classes with the lowest accuracy, of 40" in page.text
    assert "3 × 12×20" not in page.text  # in a picture, whose text says 12×20
    assert "Feature maps from the image of 12×20 pixels to 40, in" in " ".join(
        image["alt"] or "" for image in page.named("img")
    )


def test_disputed_labels_are_marked_on_mnist_alone(tmp_path: Path) -> None:
    recipe = load_recipe("sprint").with_overrides(
        ["data.val_size=59000", "train.epochs=1", "train.batch_size=250", "model.name=plain",
         "model.widths=[4, 8]", "model.pool_after=[1, 2]"]
    )  # fmt: skip
    record = train(recipe, tmp_path / "run")
    found = collect_run_facts(record).analysis
    assert found is not None
    assert found.total == 10_000
    assert {e.index for e in found.errors if e.disputed} == KNOWN_LABEL_ERRORS & {
        e.index for e in found.errors
    }
    split = load_dataset("mnist").test
    guess = torch.nn.functional.one_hot((split.labels + 1) % 10, 10).float()
    all_wrong = analyze_logits(guess, split, tuple("0123456789"), KNOWN_LABEL_ERRORS)
    assert sum(error.disputed for error in all_wrong.errors) == len(
        KNOWN_LABEL_ERRORS & {error.index for error in all_wrong.errors}
    )
    text = render_run_html(record)
    page = checked(text)
    assert "and" in page.text
    val = replace(record, recipe=recipe.with_overrides(["eval.test=false"]))
    from whit.verification.error_analysis import known_label_errors

    assert known_label_errors(val) == frozenset()
    assert known_label_errors(record) == KNOWN_LABEL_ERRORS
