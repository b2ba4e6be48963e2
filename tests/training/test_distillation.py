"""Knowledge distillation: the loss, the record of the teacher's cost, and invalid teachers."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import whit
from whit.data.normalization import Normalize
from whit.errors import IncompatibleResume, InputError, Interrupted, ModelError, RecipeError
from whit.experiments.execution.job import Job
from whit.experiments.execution.runner import run_job
from whit.recipes.recipe import load_recipe
from whit.recipes.recipe_tables import DistillSpec
from whit.training.callback import RunCallback
from whit.training.optimization.distillation import Distillation
from whit.training.plan import make_plan
from whit.training.run import resume_run, train_run
from whit.verification.provenance import current_digests

SPEC = DistillSpec(teacher="somebody", weight=0.75, temperature=3.0)


@pytest.fixture
def teacher(easy_recipe: Path, tmp_path: Path) -> Path:
    whit.train(easy_recipe, out=tmp_path / "teacher", seed=5, quiet=True)
    return tmp_path / "teacher"


def student(easy_recipe: Path, teacher: Path, *changes: str) -> whit.Recipe:
    recipe = load_recipe(easy_recipe)
    return recipe.with_overrides(["model.widths=[4, 6]", f'distill.teacher="{teacher}"', *changes])


def test_the_loss_is_what_the_paper_says() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    images, logits = torch.randn(5, 3, 2, 2), torch.randn(5, 4, requires_grad=True)
    same = Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    loss = Distillation(model, SPEC, same, same).loss(torch.tensor(1.5), logits, images)
    by_hand = torch.tensor(0.0)
    for own, theirs in zip(logits.double(), model(images).double(), strict=True):
        p, q = torch.exp(theirs / 3) / torch.exp(theirs / 3).sum(), torch.exp(own / 3)
        q = q / q.sum()
        by_hand = by_hand + sum(p[k] * (p[k].log() - q[k].log()) for k in range(4)) / 5
    expected = 0.25 * 1.5 + 0.75 * 9 * float(by_hand.detach())
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("std", [0.2, 0.4])  # 0.4 is the student's own
def test_the_teacher_sees_images_normalized_as_in_its_training(std: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))  # a shift of its images tells
    own, theirs = Normalize((0.1,), (0.4,)), Normalize((0.3,), (std,))
    pixels = torch.tensor([[0.0, 51.0, 102.0, 255.0]]).view(1, 1, 2, 2)
    logits = torch.zeros(1, 4)
    plain = Distillation(model, SPEC, theirs, theirs)
    turned = Distillation(model, SPEC, own, theirs)
    zero = torch.tensor(0.0)
    as_own = turned.loss(zero, logits, own(pixels.clone()))
    torch.testing.assert_close(as_own, plain.loss(zero, logits, theirs(pixels.clone())))
    assert not torch.allclose(as_own, plain.loss(zero, logits, own(pixels.clone())))


def test_a_run_says_what_its_teacher_cost(easy_recipe: Path, teacher: Path, tmp_path: Path) -> None:
    recipe = student(easy_recipe, teacher)
    taught = whit.train(recipe, out=tmp_path / "run", seed=0, quiet=True)
    cost = json.loads((tmp_path / "run" / "result.json").read_text())["teacher"]
    result = json.loads((teacher / "result.json").read_text())
    assert cost == {
        "name": str(teacher),
        "params": result["params"],
        "epochs": 3,
        "test_accuracy": result["test"]["accuracy"],
        "weights_sha256": result["weights_sha256"],
    }
    said = f"{result['params']:,} parameters trained for 3 epochs"
    for text in (str(taught), (tmp_path / "run" / "audit.txt").read_text(), str(make_plan(recipe))):
        assert said in " ".join(text.split())
    assert "the teacher is not part of the budget." in " ".join(str(taught).split())
    assert make_plan(recipe).to_json()["teacher"] == cost
    assert taught.params < result["params"]
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["teacher_sha256"] == result["weights_sha256"]
    alone = recipe.model_copy(update={"distill": None})
    untaught = whit.train(alone, out=tmp_path / "alone", seed=0, quiet=True)
    assert untaught.weights_sha256 != taught.weights_sha256
    assert "teacher" not in json.loads((tmp_path / "alone" / "result.json").read_text())
    assert "distill" not in (tmp_path / "alone" / "recipe.toml").read_text()


class StopAfter(RunCallback):
    def on_epoch_end(self, record: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def test_it_resumes_to_the_same_bytes_and_from_no_other_teacher(
    easy_recipe: Path, teacher: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(teacher, tmp_path / "mine"))
    planned = make_plan(student(easy_recipe, mine))
    whole = train_run(planned, out=tmp_path / "whole", threads=1)
    with pytest.raises(Interrupted):
        train_run(planned, out=tmp_path / "halves", threads=1, callback=StopAfter())
    shutil.rmtree(mine)
    with pytest.raises(InputError, match="no such run folder"):
        resume_run(tmp_path / "halves")
    other = load_recipe(teacher).with_overrides(["train.epochs=1"])
    whit.train(other, out=mine, seed=5, quiet=True)
    with pytest.raises(IncompatibleResume, match="the teacher's weights"):
        resume_run(tmp_path / "halves")
    shutil.rmtree(mine)
    shutil.copytree(teacher, mine)
    assert resume_run(tmp_path / "halves").weights_sha256 == whole.weights_sha256


def test_invalid_teachers_are_refused(easy_recipe: Path, teacher: Path, tmp_path: Path) -> None:
    missing = student(easy_recipe, tmp_path / "nobody")
    with pytest.raises(InputError, match="no such run folder"):
        make_plan(missing)
    unfinished = Path(shutil.copytree(teacher, tmp_path / "unfinished"))
    (unfinished / "result.json").unlink()
    with pytest.raises(InputError, match="the run did not finish"):
        make_plan(student(easy_recipe, unfinished))
    held_out = student(easy_recipe, teacher, "data.val_size=20")
    seen = (
        r"trained with data\.name = '.*easy\.npz', data\.val_size = 0; this recipe has "
        r"data\.name = '.*easy\.npz', data\.val_size = 20, data\.val_by = digest: "
        r"the teacher may have seen"
    )
    with pytest.raises(InputError, match=seen):
        make_plan(held_out)
    with pytest.raises(ModelError, match=r"trained on images \(1, 28, 28\) of 10 classes"):
        make_plan(
            student(easy_recipe, teacher).with_overrides([f'data.name="{colours(tmp_path)}"'])
        )
    altered = Path(shutil.copytree(teacher, tmp_path / "altered"))
    weights = altered / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(InputError, match=r"altered after the run: weights\.safetensors\. Train"):
        make_plan(student(easy_recipe, altered))
    cheaper = Path(shutil.copytree(teacher, tmp_path / "cheaper"))
    result = json.loads((cheaper / "result.json").read_text())
    (cheaper / "result.json").write_text(json.dumps(result | {"params": 10}))
    with pytest.raises(InputError, match=r"altered after the run: result\.json\. Train"):
        make_plan(student(easy_recipe, cheaper))


def colours(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (60, 28, 28, 3), dtype=np.uint8)
    labels = np.arange(60) % 10
    np.savez(folder / "c.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return folder / "c.npz"


def test_wrong_keys_are_named(easy_recipe: Path) -> None:
    recipe = load_recipe(easy_recipe)
    with pytest.raises(RecipeError) as caught:
        recipe.with_overrides(["distill.wieght=0.5", "distill.temperature=0"])
    said = "\n".join(caught.value.problems)
    assert "--set: distill.teacher is missing." in said
    assert "distill.temperature = 0: must be > 0." in said
    assert "distill.wieght. Did you mean 'weight'? Allowed here: teacher, weight, temp" in said


def test_a_worker_with_another_teacher_refuses(
    easy_recipe: Path, teacher: Path, tmp_path: Path
) -> None:
    recipe = student(easy_recipe, teacher)
    job = Job(recipe.to_toml(), 0, str(tmp_path / "run"), **current_digests(recipe))
    other = run_job(replace(job, teacher_sha256="0" * 64))
    assert other.state == "failed"
    assert "this machine has other weights than the driver" in other.message
    assert run_job(job).state == "finished"
