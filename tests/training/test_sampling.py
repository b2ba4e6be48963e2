"""Importance sampling: which images are drawn, what a budget counts, and that runs resume."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import whit
from whit.data.sampler import ImportanceSampler
from whit.errors import Interrupted, RecipeError
from whit.recipes.budget import BudgetInfeasible
from whit.recipes.recipe import Recipe, load_recipe
from whit.recipes.recipe_tables import SamplingSpec
from whit.training.callback import RunCallback
from whit.training.plan import make_plan
from whit.training.run import resume_run, train_run
from whit.training.state import Batches, EpochMetrics
from whit.verification.verify import audit

SAMPLED = ["sampling.fraction=0.4", "train.epochs=5"]  # 160 of the 400 images


def sampler_with(
    losses: list[float], fraction: float, power: float, seed: int = 0
) -> ImportanceSampler:
    sampler = ImportanceSampler(SamplingSpec(fraction=fraction, power=power), seed)
    sampler.losses = torch.tensor(losses)
    return sampler


def chance_of(drawn: tuple[int, ...], weights: list[float]) -> float:
    """The chance of drawing these one after another, each in proportion to its weight."""
    chance, left = 1.0, sum(weights)
    for index in drawn:
        chance *= weights[index] / left
        left -= weights[index]
    return chance


@pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
def test_the_draw_equals_drawing_one_image_after_another(power: float) -> None:
    losses, draws = [0.0, 0.01, 0.1, 1.0], 4000
    seen: Counter[frozenset[int]] = Counter()
    for epoch in range(draws):
        sampler = sampler_with(losses, 0.5, power)
        sampler.draw(epoch, 4)
        seen[frozenset(sampler.order.tolist())] += 1
    weights = [(loss + 0.003) ** power for loss in losses]
    expected: Counter[frozenset[int]] = Counter()
    for pair in permutations(range(4), 2):
        expected[frozenset(pair)] += draws * chance_of(pair, weights)  # type: ignore[assignment]
    for images, count in expected.items():
        assert abs(seen[images] - count) < 4.5 * max(count, 1) ** 0.5, (images, seen, expected)


def test_the_order_is_random_too() -> None:
    """The image of the highest loss is drawn each time, and equally often first and last."""
    firsts = 0
    for epoch in range(1000):
        sampler = sampler_with([0.0, 0.0, 1e5, 0.0], 0.5, 1.0)
        sampler.draw(epoch, 4)
        assert 2 in sampler.order
        firsts += int(sampler.order[0] == 2)
    assert 430 < firsts < 570


@pytest.mark.parametrize("fraction", [0.2, 0.34, 0.6, 1.0])
@pytest.mark.parametrize("power", [0.0, 0.5])
def test_every_image_is_drawn_before_one_is_drawn_again(fraction: float, power: float) -> None:
    sampler = ImportanceSampler(SamplingSpec(fraction=fraction, power=power), 0)
    size, times = int(fraction * 1000), torch.zeros(1000, dtype=torch.int64)
    labels = torch.zeros(size, dtype=torch.int64)
    epoch = 1
    while (times == 0).any():
        assert epoch <= -(-1000 // size)
        sampler.draw(epoch, 1000)
        assert len(sampler.order) == size
        times += torch.bincount(sampler.order, minlength=1000)
        assert times.max() - times.min() <= 1
        sampler.update(0, torch.full((size, 10), 9.0).fill_diagonal_(-20.0), labels)
        epoch += 1


def test_unseen_images_count_with_the_mean_loss_of_the_last_epoch() -> None:
    """Half of 400 images were drawn, with losses of 0 and 2: unseen ones weigh between."""
    spec = SamplingSpec(fraction=0.5, power=1.0, unseen="mean")
    times = torch.zeros(400)
    for seed in range(200):
        sampler = ImportanceSampler(spec, seed)
        sampler.order = torch.arange(200)
        sampler.losses = torch.full((400,), torch.inf)
        sampler.losses[:100], sampler.losses[100:200] = 0.0, 2.0
        sampler.draw(2, 400)
        times += torch.bincount(sampler.order, minlength=400)
    low, high, unseen = times[:100].mean(), times[100:200].mean(), times[200:].mean()
    assert low < 5 < unseen < high
    # as if the mean of 0 and 2 were their losses
    twin = ImportanceSampler(SamplingSpec(fraction=0.5, power=1.0), 0)
    again = torch.zeros(400)
    for epoch in range(200):
        twin.losses = torch.cat([torch.zeros(100), torch.full((100,), 2.0), torch.ones(200)])
        twin.draw(epoch, 400)
        again += torch.bincount(twin.order, minlength=400)
    assert abs(again[200:].mean() - unseen) < 5


def test_the_losses_are_those_of_the_batches() -> None:
    sampler = ImportanceSampler(SamplingSpec(fraction=0.5), 0)
    sampler.draw(1, 40)
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(20, 10, generator=generator), torch.arange(20) % 10
    for first in range(0, 20, 8):
        part = slice(first, first + 8)
        sampler.update(first, logits[part], labels[part])
    expected = F.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(sampler.losses[sampler.order], expected)
    assert sampler.losses.isinf().sum() == 20  # the others were never drawn


def test_draws_depend_on_seed_epoch_and_losses() -> None:
    def draw(seed: int, epoch: int, losses: list[float]) -> list[int]:
        sampler = sampler_with(losses, 0.5, 0.5, seed)
        sampler.draw(epoch, len(losses))
        order: list[int] = sampler.order.tolist()
        return order

    low = [0.1] * 50
    high = [5.0, *[0.1] * 49]
    draws = [draw(0, 1, low), draw(1, 1, low), draw(0, 2, low), draw(0, 1, high)]
    assert draw(0, 1, low) == draws[0]
    assert len({tuple(each) for each in draws}) == 4


@pytest.fixture
def sampled(easy_recipe: Path) -> Recipe:
    return load_recipe(easy_recipe).with_overrides(SAMPLED)


def test_a_budget_counts_the_images_seen(sampled: Recipe, tmp_path: Path) -> None:
    planned = make_plan(sampled)
    assert (planned.num_images, planned.metrics.epochs) == (800, 2)
    assert "5 epochs of 160 of 400 images in batches of" in str(planned)
    assert "A budget counts the images seen: 2 epochs." in " ".join(str(planned).split())
    with pytest.raises(BudgetInfeasible, match="2 epochs, allowed < 2"):
        train_run(make_plan(sampled.with_overrides(["budget.epochs=< 2"])), out=tmp_path / "no")
    result = train_run(planned, out=tmp_path / "run", threads=1)
    assert (result.epochs, result.images_seen) == (2, 800)
    assert [(r.total, r.images_seen) for r in result.records] == [
        (160, 160 * epoch) for epoch in range(1, 6)
    ]
    assert "Best epoch" not in str(result)  # the last one is, though its number is not 2
    again = audit(tmp_path / "run")
    assert again.metrics.epochs == 2
    assert not again.mismatches


def test_the_images_of_an_epoch_are_rounded_down() -> None:
    sizes = [
        SamplingSpec(fraction=f).num_images(n) for f, n in ((0.29, 100), (0.1, 47655), (0.01, 9))
    ]
    assert sizes == [29, 4765, 1]


class StopWithin(RunCallback):
    """Stops as Ctrl-C does, in the third epoch, at its second batch."""

    def wrap_batches(
        self, epoch: int, batches: Batches, metrics: EpochMetrics
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for index, batch in enumerate(batches):
            if (epoch, index) == (3, 1):
                os.kill(os.getpid(), signal.SIGINT)
            yield batch


@pytest.mark.parametrize("unseen", ["first", "mean"])
def test_it_resumes_to_the_same_bytes(sampled: Recipe, tmp_path: Path, unseen: str) -> None:
    changes = ["train.batch_size=50", f"sampling.unseen={unseen}"]
    planned = make_plan(sampled.with_overrides(changes))
    whole = train_run(planned, out=tmp_path / "whole", threads=1)
    with pytest.raises(Interrupted, match=r"in epoch 3 of 5, after [12] of 4 batches"):
        train_run(planned, out=tmp_path / "halves", threads=1, callback=StopWithin())
    resumed = resume_run(tmp_path / "halves")
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.optimizer_sha256 == whole.optimizer_sha256
    assert resumed.history[-1]["train_loss"] == whole.history[-1]["train_loss"]


def test_replaced_data_of_another_size_starts_over() -> None:
    sampler = sampler_with([0.5] * 30, 0.5, 0.5)
    sampler.draw(3, 20)
    assert len(sampler.losses) == 20
    assert int(sampler.order.max()) < 20


def test_images_of_high_loss_are_seen_more_often() -> None:
    """Over 20 epochs, images whose loss stays high are drawn far more often than others."""
    wrong = range(20)
    sampler = ImportanceSampler(SamplingSpec(fraction=0.25), 0)
    seen = torch.zeros(400)
    for epoch in range(1, 21):
        sampler.draw(epoch, 400)
        seen += torch.bincount(sampler.order, minlength=400)
        logits = torch.zeros(100, 10)
        logits[:, 0] = torch.where(sampler.order < len(wrong), -4.0, 6.0)
        sampler.update(0, logits, torch.zeros(100, dtype=torch.int64))
    assert seen[wrong].mean() > 3 * seen[len(wrong) :].mean()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sampling.fraction=0", r"sampling\.fraction"),
        ("sampling.fraction=1.5", r"sampling\.fraction"),
        ("sampling.power=-1", r"sampling\.power"),
        ("sampling.power=0.5", r"sampling\.fraction"),  # required
        ("sampling.share=0.5", r"sampling\.share"),
        ("sampling.unseen=last", r"sampling\.unseen"),
    ],
)
def test_wrong_values_are_refused(easy_recipe: Path, change: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        whit.load_recipe(easy_recipe).with_overrides([change])
