"""Ways of seeming to keep a budget, each caught by the plan, the run or the audit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from easy_data import easy_images
from whit.data.loader import Loader
from whit.recipes.budget import Metrics
from whit.recipes.recipe import Recipe, load_recipe
from whit.training.plan import make_plan

RECIPE = load_recipe("published-17098").with_overrides(['budget.forbid=["linear"]'])


def rules(model: nn.Module, recipe: Recipe = RECIPE) -> set[str]:
    return {violation.rule for violation in make_plan(recipe, model).violations}


class Honest(nn.Module):
    """Keeps the budget: the base of every cheat below."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.1)
        self.conv2 = nn.Conv2d(8, 10, 3, stride=2)

    def first(self, x: Tensor) -> Tensor:
        return self.drop(F.relu(self.norm(self.conv1(x))))

    def last(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.conv2(self.first(x)))


def test_the_honest_one_passes() -> None:
    assert rules(Honest()) == set()


def big() -> Tensor:
    return torch.randn(25_000) * 0.01


class FrozenWeights(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Parameter(big(), requires_grad=False)

    def last(self, x: Tensor) -> Tensor:
        return super().last(x) + self.extra.mean()


class WeightsInBuffer(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("extra", big())

    def last(self, x: Tensor) -> Tensor:
        return super().last(x) + self.extra.mean()


class WeightsInUnsavedBuffer(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", big(), persistent=False)

    def last(self, x: Tensor) -> Tensor:
        return super().last(x) + self.running_mean.mean()


class WeightsInAttribute(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.extra = [big()]

    def last(self, x: Tensor) -> Tensor:
        return super().last(x) + self.extra[0].mean()


OUTSIDE = big()


class WeightsInGlobal(Honest):
    def last(self, x: Tensor) -> Tensor:
        return super().last(x) + OUTSIDE.mean()


class NormNeverCalled(Honest):
    def first(self, x: Tensor) -> Tensor:
        return self.drop(F.relu(self.conv1(x)))


class NormThrownAway(Honest):
    def first(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        self.norm(x)
        return self.drop(F.relu(x))


class DropoutOfNothing(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.0)


class DropoutInName(Honest):
    def __init__(self) -> None:
        super().__init__()

        class Dropout(nn.Dropout):
            def forward(self, input: Tensor) -> Tensor:
                return input

        self.drop = Dropout(0.5)


class DropoutThrownAway(Honest):
    def first(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv1(x)))
        self.drop(x)
        return x


class PartialPooling(Honest):
    """As published-15938: the pooling covers a corner of the map."""

    def last(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 4)[:, :, 0, 0]  # of a 5x5 map


class CroppedPooling(Honest):
    def last(self, x: Tensor) -> Tensor:
        return x[:, :, :3, :3].mean((2, 3))


class HalfPooling(Honest):
    def last(self, x: Tensor) -> Tensor:
        return x.mean(3).amax(2)


class PoolingOfOnePixel(Honest):
    def last(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(F.adaptive_max_pool2d(x, 1), 1).flatten(1)


class FlatteningConvolution(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Conv2d(10, 10, 5)

    def last(self, x: Tensor) -> Tensor:
        return self.flat(x).flatten(1) + x.mean((2, 3))


class FunctionalLinear(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10, 10))

    def last(self, x: Tensor) -> Tensor:
        return F.linear(x.mean((2, 3)), self.weight)


class MatrixProduct(FunctionalLinear):
    def last(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ self.weight


CHEATS: list[tuple[Callable[[], nn.Module], str]] = [
    (FrozenWeights, "params"),
    (WeightsInBuffer, "params"),
    (WeightsInUnsavedBuffer, "params"),
    (WeightsInAttribute, "params"),
    (WeightsInGlobal, "params"),
    (NormNeverCalled, "require batchnorm"),
    (NormThrownAway, "require batchnorm"),
    (DropoutOfNothing, "require dropout"),
    (DropoutInName, "require dropout"),
    (DropoutThrownAway, "require dropout"),
    (PartialPooling, "require gap"),
    (CroppedPooling, "require gap"),
    (HalfPooling, "require gap"),
    (PoolingOfOnePixel, "require gap"),
    (FlatteningConvolution, "forbid linear"),
    (FunctionalLinear, "forbid linear"),
    (MatrixProduct, "forbid linear"),
]


@pytest.mark.parametrize(
    ("cheat", "rule"), CHEATS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_model_that_cheats(cheat: Callable[[], nn.Module], rule: str) -> None:
    assert rules(cheat()) == {rule}


def test_twenty_epochs_under_twenty() -> None:
    assert {v.rule for v in make_plan(load_recipe("published-19122")).violations} == {"epochs"}


def test_accuracy_rounded_up() -> None:
    """A write-up's 99.4 % is 9,939 of 10,000."""
    budget = RECIPE.budget.to_budget()
    metrics = Metrics(params=1, epochs=Fraction(1), correct=9939, total=10_000)
    assert [v.rule for v in budget.violations(metrics)] == ["accuracy"]
    assert "99.39 %" in budget.violations(metrics)[0].message


class Greedy(Loader):
    """More images than the split holds."""

    def epoch(
        self, epoch: int, done: int = 0, order: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for again in range(10):
            yield from super().epoch(100 * again + epoch)


class Repeating(Loader):
    """The same batch again and again."""

    def epoch(
        self, epoch: int, done: int = 0, order: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in super().epoch(epoch):
            for _ in range(10):
                yield batch


@pytest.mark.parametrize("loader", [Greedy, Repeating])
def test_more_images_than_an_epoch_has(
    loader: type[Loader], easy_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whit.training.setup.Loader", loader)
    result = whit.train(easy_recipe, out=tmp_path / "run", quiet=True)
    assert result.epochs == 30
    assert "epochs" in {violation.rule for violation in result.violations}


def test_test_images_in_training(easy_recipe: Path, tmp_path: Path) -> None:
    images, labels = easy_images(400, 1)
    test_images, test_labels = easy_images(100, 2)
    path = tmp_path / "leak.npz"
    np.savez(
        path,
        x_train=np.concatenate([images, test_images]),
        y_train=np.concatenate([labels, test_labels]),
        x_test=test_images,
        y_test=test_labels,
    )
    recipe = load_recipe(easy_recipe).with_overrides([f"data.name={path}"])
    result = whit.train(recipe, out=tmp_path / "run", quiet=True)
    assert "test images in training" in {violation.rule for violation in result.violations}


def test_test_images_as_validation(easy_recipe: Path, tmp_path: Path) -> None:
    """Selection on test under another name."""
    images, labels = easy_images(400, 1)
    test_images, test_labels = easy_images(100, 2)
    path = tmp_path / "val.npz"
    np.savez(
        path,
        train_images=images,
        train_labels=labels,
        val_images=test_images,
        val_labels=test_labels,
        test_images=test_images,
        test_labels=test_labels,
    )
    recipe = load_recipe(easy_recipe).with_overrides([f"data.name={path}", "eval.each_epoch=val"])
    result = whit.train(recipe, out=tmp_path / "run", quiet=True)
    assert "test images in training" in {violation.rule for violation in result.violations}


def finished(easy_recipe: Path, tmp_path: Path) -> Path:
    """A run whose best epoch is not its last: the rate is far too high at the end."""
    recipe = load_recipe(easy_recipe).with_overrides(
        ["eval.each_epoch=test", "schedule.at=[0.0, 0.6, 1.0]", "schedule.factor=[0.5, 1, 900]"]
    )
    whit.train(recipe, out=tmp_path / "run", quiet=True)
    return tmp_path / "run"


def test_best_epoch_passed_off_as_last(easy_recipe: Path, tmp_path: Path) -> None:
    folder = finished(easy_recipe, tmp_path)
    result = json.loads((folder / "result.json").read_text())
    assert result["best_epoch"]["epoch"] < 3
    assert result["best_epoch"]["correct"] > result["test"]["correct"]
    result["test"]["correct"] = result["best_epoch"]["correct"]
    result["test"]["accuracy"] = 1.0 * result["best_epoch"]["correct"]
    result["verdict"], result["violations"] = "met", []
    (folder / "result.json").write_text(json.dumps(result))
    found = {violation.rule for violation in whit.audit(folder).violations}
    assert {"record last epoch", "record accuracy"} <= found


def test_an_evaluation_that_drops_its_remainder(easy_recipe: Path, tmp_path: Path) -> None:
    """96 of 100 images in batches of 32: the missing four are found by counting."""
    folder = finished(easy_recipe, tmp_path)
    result = json.loads((folder / "result.json").read_text())
    result["test"]["total"] = 96
    (folder / "result.json").write_text(json.dumps(result))
    assert "record accuracy" in {violation.rule for violation in whit.audit(folder).violations}
