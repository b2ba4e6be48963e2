"""Training and evaluation: deterministic, counted, and equal to their plain twins."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from easy_data import easy_split
from whit.data.loader import Loader, count_batches
from whit.data.normalization import Normalize
from whit.errors import Diverged, ModelError
from whit.models.layers import Dropout, GlobalAvgPool, named_sequential
from whit.models.plain import PlainConfig, plain
from whit.recipes.augmentations import Affine
from whit.recipes.recipe import Recipe
from whit.recipes.recipe_tables import AugmentSpec, EMASpec, OptimSpec
from whit.runs.result import EpochRecord
from whit.training.evaluation import evaluate
from whit.training.loop import train as train_state
from whit.training.optimization.objective import Objective, autocast
from whit.training.optimization.optim import EMA, build_optimizer, set_lr
from whit.training.plan import make_plan
from whit.training.state import TrainingState

NORMALISE = Normalize((0.1307,), (0.3081,))
RECIPE = Recipe.model_validate(
    {"name": "t", "model": {"name": "plain"}, "train": {"epochs": 2, "batch_size": 48}}
)


def train(model: nn.Module, loader: Loader, recipe: Recipe, seed: int) -> Iterator[EpochRecord]:
    state = TrainingState(model, recipe, seed, torch.device("cpu"))
    return train_state(state, loader, recipe, Objective(model, recipe))


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = plain(PlainConfig(widths=(8, 8), pool_after=(1, 2), dropout=0.1), 1, 10)
    return model.to(memory_format=torch.channels_last)


def small_loader(seed: int = 0, augment: AugmentSpec | None = None) -> Loader:
    return Loader(easy_split("train", 200), 48, NORMALISE, augment, seed=seed)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trained(recipe: Recipe = RECIPE, seed: int = 0, augment: AugmentSpec | None = None) -> Tensor:
    model = small_model()
    for _ in train(model, small_loader(seed, augment), recipe, seed):
        torch.randn(3)  # what an observer draws must not matter
    return weights(model)


def test_the_loop_equals_the_loop_written_out() -> None:
    """One epoch of SGD with momentum, without dropout, augmentation or fused kernels."""
    recipe = RECIPE.with_overrides(["train.epochs=1", "optim.lr=0.05", "train.precision=fp32"])
    torch.manual_seed(0)
    model = plain(PlainConfig(widths=(8, 8), pool_after=(1, 2), dropout=0.0), 1, 10)
    twin = copy.deepcopy(model)
    list(train(model, small_loader(), recipe, 0))
    schedule = recipe.lr_factor()
    velocity = [torch.zeros_like(p) for p in twin.parameters()]
    seen = 0
    for images, labels in small_loader().epoch(1):
        loss = F.nll_loss(F.log_softmax(twin(images), dim=1), labels)
        grads = torch.autograd.grad(loss, list(twin.parameters()))
        with torch.no_grad():
            for p, v, g in zip(twin.parameters(), velocity, grads, strict=True):
                v.mul_(0.9).add_(g)
                p.sub_(0.05 * schedule(seen / 200) * v)
        seen += len(labels)
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-4, atol=1e-5)


def test_columns_learn_as_each_would_alone() -> None:
    """The mean of two losses at twice the rate and half the decay, and label smoothing, too."""
    changes = ["train.precision=fp32", "train.label_smoothing=0.1"]
    both = RECIPE.with_overrides([*changes, "optim.lr=0.1", "optim.weight_decay=0.01"])
    alone = RECIPE.with_overrides([*changes, "optim.lr=0.05", "optim.weight_decay=0.02"])
    torch.manual_seed(0)
    sizes = PlainConfig(widths=(8, 8), pool_after=(1, 2), dropout=0.0, columns=("raw", "deskewed"))
    columns = plain(sizes, 1, 10)
    twins = copy.deepcopy(columns)
    records = list(train(columns, small_loader(), both, 0))
    losses = []
    for twin, column in zip(twins.children(), columns.children(), strict=True):
        losses.append([record.loss for record in train(twin, small_loader(), alone, 0)])
        torch.testing.assert_close(weights(column), weights(twin), rtol=1e-3, atol=1e-4)
    for record, *each in zip(records, *losses, strict=True):
        assert record.loss == pytest.approx(sum(each) / 2, rel=1e-3)
        assert record.total == 200


def test_same_seed_same_weights_and_other_seeds_others() -> None:
    augment = AugmentSpec(degrees=10.0, translate=2.0, scale=0.1, shear=5.0)
    assert torch.equal(trained(augment=augment), trained(augment=augment))
    assert not torch.equal(trained(augment=augment), trained(seed=1, augment=augment))
    assert not torch.equal(trained(augment=augment), trained())


def test_records_count_what_was_seen() -> None:
    records = list(train(small_model(), small_loader(), RECIPE, 0))
    assert [r.images_seen for r in records] == [200, 400]
    assert [r.steps for r in records] == [5, 10]  # 48, 48, 48, 48 and the last 8
    assert all(r.total == 200 and 0 <= r.correct <= 200 for r in records)


def split_plainly(order: list[int], size: int) -> list[list[int]]:
    """Batches written out: a single image that is left joins the batch before it."""
    batches = [order[first : first + size] for first in range(0, len(order), size)]
    if size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        left = batches.pop()
        batches[-1] = batches[-1] + left
    return batches


@pytest.mark.parametrize(
    ("count", "size"),
    [(513, 64), (65, 64), (64, 64), (63, 64), (1, 64), (1, 1), (5, 1), (5, 2), (4, 2), (3, 2),
     (2, 2), (200, 48), (193, 48), (121, 3), (10, 10), (11, 10), (12, 10)],
)  # fmt: skip
def test_no_batch_has_one_image(count: int, size: int) -> None:
    split = easy_split("train", count)
    loader = Loader(split, size, Normalize((0.0,), (1 / 255,)), seed=3)
    batches = list(loader.epoch(2))
    order = torch.randperm(count, generator=loader._generator("shuffle", 2)).tolist()
    plain_batches = split_plainly(order, size)
    assert len(batches) == len(plain_batches) == count_batches(count, size)
    for (images, labels), indices in zip(batches, plain_batches, strict=True):
        assert torch.equal(labels, split.labels[indices])
        torch.testing.assert_close(images, split.images[indices].float())
    assert all(len(labels) > 1 for _, labels in batches) or 1 in (count, size)
    for done in range(len(batches) + 1):  # resumed in the middle of the epoch
        rest = [labels.tolist() for _, labels in loader.epoch(2, done)]
        assert rest == [labels.tolist() for _, labels in batches[done:]]


def test_batchnorm_of_vectors_learns_when_one_image_is_left() -> None:
    """The loop and the loop written out, over 193 images in batches of 48."""
    changes = ["optim.lr=0.05", "train.precision=fp32", "schedule.factor=[1, 1, 1]"]
    recipe = RECIPE.with_overrides(changes)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    twin = copy.deepcopy(model)
    split = easy_split("train", 193)
    loader = Loader(split, 48, NORMALISE, epochs=2, seed=5)
    records = list(train(model, loader, recipe, 5))
    assert [(r.images_seen, r.total, r.steps) for r in records] == [(193, 193, 4), (386, 193, 8)]
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    for epoch in (1, 2):
        order = torch.randperm(193, generator=loader._generator("shuffle", epoch)).tolist()
        for indices in split_plainly(order, 48):
            images = (split.images[indices].float() / 255 - 0.1307) / 0.3081
            optimizer.zero_grad()
            F.cross_entropy(twin(images), split.labels[indices]).backward()
            optimizer.step()
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-4, atol=1e-5)


def test_batches_of_one_image_are_refused_for_batchnorm_of_vectors() -> None:
    recipe = RECIPE.with_overrides(["train.batch_size=1"])
    vectors = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    with pytest.raises(ModelError, match="a batch of one image has one value per channel"):
        make_plan(recipe, vectors)
    maps = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(784, 10))
    assert make_plan(recipe, maps).steps_per_epoch == 60_000
    odd = recipe.with_overrides(["train.batch_size=64", "data.val_size=59487"])
    assert make_plan(odd, vectors).steps_per_epoch == 8  # 513 images


def test_a_loader_that_gives_more_is_counted() -> None:
    class Greedy(Loader):
        def epoch(
            self, epoch: int, done: int = 0, order: Tensor | None = None
        ) -> Iterator[tuple[Tensor, Tensor]]:
            yield from super().epoch(epoch)
            yield from super().epoch(epoch + 1000)

    loader = Greedy(easy_split("train", 200), 48, NORMALISE, seed=0)
    records = list(train(small_model(), loader, RECIPE, 0))
    assert [r.images_seen for r in records] == [400, 800]


def test_divergence_stops_at_the_step() -> None:
    recipe = RECIPE.with_overrides(
        ["optim.lr=1000", "train.precision=fp32", "schedule.factor=[1, 1, 1]"]
    )
    model = named_sequential(nn.Flatten(), nn.Linear(784, 10))
    with torch.no_grad():
        model.linear1.weight.fill_(math.inf)  # type: ignore[union-attr]
    with pytest.raises(Diverged, match="step 1 "):
        list(train(model, small_loader(), recipe, 0))


def test_bf16_trains_near_fp32() -> None:
    """The cast path works on any processor, emulated or not."""
    results = []
    for precision in ("fp32", "bf16"):
        recipe = RECIPE.with_overrides([f"train.precision={precision}", "train.epochs=1"])
        results.append(next(train(small_model(), small_loader(), recipe, 0)).loss)
    assert results[0] == pytest.approx(results[1], rel=0.1)
    assert results[0] != results[1]
    with autocast("bf16", "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_loader_keeps_every_image_once() -> None:
    loader = small_loader()
    assert len(list(loader.epoch(1))) == count_batches(200, 48) == 5
    seen = torch.cat([labels for _, labels in loader.epoch(1)])
    assert len(seen) == 200
    assert torch.equal(seen.sort().values, loader.labels.sort().values)
    images = torch.cat([images for images, _ in loader.epoch(1)])
    order = images.flatten(1).sum(1).sort().values
    plain_images = (loader.images.double() / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(
        order.double(), plain_images.flatten(1).sum(1).sort().values, rtol=1e-4, atol=1e-2
    )


def test_epochs_differ_in_order_and_can_be_replayed() -> None:
    loader = small_loader(augment=AugmentSpec(translate=2.0))
    first, again, second = (torch.cat([x for x, _ in loader.epoch(e)]) for e in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_augmentation_ends_where_the_recipe_sets_it() -> None:
    """Two epochs of 200 images: until progress 0.74 is until batch 3 of the second epoch."""
    augment = AugmentSpec(degrees=30.0, end=0.74)
    split = easy_split("train", 200)
    augmented = Loader(split, 50, NORMALISE, augment, epochs=2, seed=0)
    plain = Loader(split, 50, NORMALISE, epochs=2, seed=0)
    equal = [
        torch.equal(a, b)
        for epoch in (1, 2)
        for (a, _), (b, _) in zip(augmented.epoch(epoch), plain.epoch(epoch), strict=True)
    ]
    assert equal == [False] * 6 + [True] * 2


def test_dropout_ends_where_the_recipe_says() -> None:
    """Two epochs of 200 images: until progress 0.74 is until batch 3 of the second epoch."""
    recipe = RECIPE.with_overrides(["train.dropout_end=0.74", "train.batch_size=50"])
    model = small_model()
    dropping, counting = [], []
    layers = {type(module).__name__: module for module in model.modules()}
    layers["Dropout"].register_forward_hook(lambda layer, *_: dropping.append(layer.training))
    layers["BatchNorm2d"].register_forward_hook(lambda layer, *_: counting.append(layer.training))
    list(train(model, Loader(easy_split("train", 200), 50, NORMALISE), recipe, 0))
    assert dropping == [True] * 6 + [False] * 2
    assert counting == [True] * 8


def test_batchnorm_ends_on_the_statistics_of_what_is_judged() -> None:
    """Without dropout at the end the running variance is that of inference; with it, wider."""
    layers = Dropout(0.5), nn.Flatten(), nn.BatchNorm1d(784, momentum=0.9), nn.Linear(784, 10)
    model = nn.Sequential(*layers)
    far = []
    for changes in ([], ["train.dropout_end=0.5"]):
        twin, loader = copy.deepcopy(model), small_loader()
        list(train(twin, loader, RECIPE.with_overrides(changes), 0))
        images = loader.normalize(loader.images.float()).flatten(1)
        lit = images.var(0) > 0.1
        far.append((twin[2].running_var / images.var(0))[lit].mean())
    assert far[0] > 1.5
    assert far[1] == pytest.approx(1, abs=0.2)


def plain_affine(image: Tensor, affine: Tensor) -> Tensor:
    """Bilinear, pixel by pixel, in pixels about the center, as `Affine` documents it."""
    height, width = image.shape
    out = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            px, py = x - (width - 1) / 2, y - (height - 1) / 2
            sx = affine[0, 0] * px + affine[0, 1] * py + affine[0, 2] + (width - 1) / 2
            sy = affine[1, 0] * px + affine[1, 1] * py + affine[1, 2] + (height - 1) / 2
            x0, y0 = math.floor(sx), math.floor(sy)
            for yy in (y0, y0 + 1):
                for xx in (x0, x0 + 1):
                    if 0 <= xx < width and 0 <= yy < height:
                        share = (1 - abs(sx - xx)) * (1 - abs(sy - yy))
                        out[y, x] += share * image[yy, xx]
    return out


@pytest.mark.parametrize("shape", [(28, 28), (9, 14)])
def test_affine_augmentation_equals_a_plain_implementation(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(4, 1, *shape, generator=generator) * 255
    affine = Affine(degrees=20.0, translate=3.0, scale=0.2, shear=10.0)
    affines = affine.draw(4, generator)
    augmented = affine.apply(images, affines)
    for image, affine, got in zip(images, affines.double(), augmented, strict=True):
        torch.testing.assert_close(
            got[0].double(), plain_affine(image[0], affine), atol=0.01, rtol=0
        )


def test_augmentations_stay_in_their_ranges() -> None:
    generator = torch.Generator().manual_seed(0)
    affines = Affine(translate=2.0).draw(2000, generator)
    assert torch.equal(affines[:, :, :2], torch.eye(2).expand(2000, 2, 2))
    assert affines[:, :, 2].abs().max() <= 2
    assert affines[:, :, 2].abs().max() > 1.9
    turned = Affine(degrees=30.0).draw(2000, generator)
    angles = torch.atan2(turned[:, 1, 0], turned[:, 0, 0]).rad2deg()
    assert 29 < angles.abs().max() <= 30.001
    zoomed = Affine(scale=0.25).draw(2000, generator)
    zooms = 1 / zoomed[:, 0, 0]
    assert 0.75 <= zooms.min() < 0.76
    assert 1.24 < zooms.max() <= 1.25


@pytest.mark.parametrize("p", [0.05, 0.15, 0.5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_p_and_keeps_the_mean(p: float, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.ones(50, 8, 50, 50).contiguous(memory_format=layout).requires_grad_()
    out = Dropout(p)(x)
    count = x.numel()
    dropped = (out == 0).sum().item() / count
    assert dropped == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / count))
    torch.testing.assert_close(out.max().item(), 1 / (1 - p), rtol=1e-4, atol=0)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, out.detach())  # the same mask backward
    per_channel = (out == 0).float().mean((0, 2, 3))
    assert (per_channel - p).abs().max() < 0.01


def test_dropout_does_nothing_in_evaluation_or_at_zero() -> None:
    x = torch.rand(4, 3, 5, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert (Dropout(1.0)(x) == 0).all()
    skewed = torch.rand(4, 6, 5, 5)[:, ::2]  # neither layout: torch's own takes over
    assert (Dropout(0.5)(skewed) == 0).any()


def test_evaluate_counts_every_image_and_drops_no_remainder() -> None:
    model = small_model()
    split = easy_split("test", 103)
    whole = evaluate(model, split, NORMALISE, batch_size=103)
    parts = evaluate(model, split, NORMALISE, batch_size=50)
    assert (parts.correct, parts.total, parts.misclassified) == (
        whole.correct,
        103,
        whole.misclassified,
    )
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    model.eval()
    logits = torch.cat([model(NORMALISE(image[None].float())) for image in split.images])
    right = logits.argmax(1) == split.labels
    assert whole.correct == int(right.sum())
    assert list(whole.misclassified) == (~right).nonzero().flatten().tolist()
    assert whole.loss == pytest.approx(F.cross_entropy(logits, split.labels).item(), rel=1e-5)


def test_evaluate_refuses_to_lose_images() -> None:
    split = easy_split("test", 100)
    object.__setattr__(split, "images", split.images[:80])  # 100 labels, 80 images
    with pytest.raises((AssertionError, RuntimeError)):
        evaluate(small_model(), split, NORMALISE)


def test_optimizer_groups_hold_every_tensor_once() -> None:
    model = small_model()
    model.tied = model.conv1  # type: ignore[assignment]
    model.linear1.bias.requires_grad = False  # type: ignore[union-attr]
    spec = OptimSpec(name="adamw", lr=0.01, weight_decay=0.1, bn_bias_lr_scale=8.0)
    groups = build_optimizer(model, spec).groups
    held = [id(p) for group in groups for p in group.params]
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(held) == len(set(held))
    assert set(held) == wanted
    assert [group.weight_decay for group in groups] == [0.1, 0.0, 0.0]
    assert all(p.ndim >= 2 for p in groups[0].params)
    assert groups[2].peak_lr == pytest.approx(0.08)
    optimizer = build_optimizer(model, spec)
    set_lr(optimizer, 0.5)
    assert [group.lr for group in optimizer.groups] == pytest.approx([0.005, 0.005, 0.04])


@pytest.mark.parametrize(
    "spec",
    [
        OptimSpec(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        OptimSpec(lr=0.1, momentum=0.0),
        OptimSpec(name="adamw", lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
    ],
    ids=["sgd", "without-momentum", "adamw"],
)
def test_the_optimizer_is_torchs_own_to_the_bit(spec: OptimSpec) -> None:
    ours, theirs = nn.Linear(5, 4), nn.Linear(5, 4)
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, spec)
    groups = [
        {"params": [theirs.weight], "weight_decay": spec.weight_decay},
        {"params": [theirs.bias], "weight_decay": 0.0},
    ]
    torchs: torch.optim.Optimizer
    if spec.name == "sgd":
        torchs = torch.optim.SGD(groups, spec.lr, spec.momentum, nesterov=spec.nesterov, fused=True)
    else:
        torchs = torch.optim.AdamW(groups, spec.lr, spec.betas, spec.eps, fused=True)
    for step in range(5):
        set_lr(optimizer, 1 - step / 10)
        for group in torchs.param_groups:
            group["lr"] = spec.lr * (1 - step / 10)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        if step == 2:  # a parameter without a gradient is left alone
            ours.bias.grad = theirs.bias.grad = None
        optimizer.step()
        torchs.step()
    assert torch.equal(weights(ours), weights(theirs))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        kept = {name: value for name, value in torchs.state[other].items() if value is not None}
        assert optimizer.state[mine].keys() == kept.keys()
        assert all(torch.equal(optimizer.state[mine][name], kept[name]) for name in kept)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in ours.parameters())


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_parameters_that_get_their_first_gradients_late(name: str) -> None:
    """As those of an expert do that no image of the first batches meets."""
    model = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(3))
    optimizer = build_optimizer(model, OptimSpec(name=name))
    set_lr(optimizer, 0.1)
    for used in ([0], [0, 1], [1, 2], [0]):
        optimizer.zero_grad()
        before = [layer.weight.detach().clone() for layer in model]
        sum(model[i](torch.ones(1, 2)).sum() for i in used).backward()
        optimizer.step()
        moved = [i for i in range(3) if not torch.equal(model[i].weight, before[i])]
        assert moved == used


def test_training_does_not_import_torchs_compiler(easy_recipe: Path, tmp_path: Path) -> None:
    code = (
        "import sys, whit; whit.train(sys.argv[1], out=sys.argv[2], quiet=True); "
        "print([name for name in sys.modules if name.startswith('torch._dynamo.')])"
    )
    arguments = [sys.executable, "-c", code, str(easy_recipe), str(tmp_path / "run")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_weight_average_equals_the_sum_written_out() -> None:
    model = nn.Linear(2, 1)
    average = EMA(model, EMASpec(decay=0.9, start=0.5))
    values = [torch.randn(1, 2) for _ in range(6)]
    for step, value in enumerate(values):
        model.weight.data.copy_(value)
        average.update((step + 1) / 6)
    average.apply()
    taken = values[2:]  # progress 0.5 and later
    shares = [0.9 ** (len(taken) - 1 - i) for i in range(len(taken))]
    wanted = sum(s * v for s, v in zip(shares, taken, strict=True)) / sum(shares)
    torch.testing.assert_close(model.weight.data, wanted)


def test_averaging_off_keeps_the_weights() -> None:
    model = nn.Linear(2, 1)
    before = weights(model)
    average = EMA(model, EMASpec())
    average.update(1.0)
    average.apply()
    assert torch.equal(weights(model), before)


def test_global_average_pool_is_the_mean() -> None:
    x = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(GlobalAvgPool()(x), F.adaptive_avg_pool2d(x, 1).flatten(1))
