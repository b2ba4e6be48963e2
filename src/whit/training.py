"""The training loop."""

# N images, C channels, H W pixels, K classes

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.data.loader import Loader
from whit.errors import Diverged
from whit.optim import WeightAverage, build_optimizer, set_lr
from whit.recipe import Recipe
from whit.record import EpochRecord
from whit.streams import stream_seed

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass
class Tally:
    """Running sums of one epoch, which a progress bar may read."""

    loss: float = 0.0
    correct: int = 0
    total: int = 0
    last_loss: float = 0.0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.last_loss = loss.item()
        self.loss += self.last_loss * len(labels)
        self.correct += int((logits.argmax(1) == labels).sum())
        self.total += len(labels)


def train(
    model: nn.Module,
    loader: Loader,
    recipe: Recipe,
    seed: int,
    watch: Callable[[int, Batches, Tally], Batches] = lambda epoch, batches, tally: batches,
) -> Iterator[EpochRecord]:
    """Train `model` in place. Yields one EpochRecord an epoch; time spent outside is not charged.

    `watch` may wrap an epoch's batches, to show progress. Raises Diverged at the first loss that
    is not finite, before it reaches the weights. The averaged weights, if the recipe asks for
    them, are in place when the last record is yielded.
    """
    optimizer = build_optimizer(model, recipe.optim)
    average = WeightAverage(model, recipe.average)
    schedule = recipe.schedule.multiplier()
    planned = recipe.train.epochs * len(loader.labels)
    precision = autocast(recipe.train.precision, loader.images.device.type)
    seen = steps = 0
    for epoch in range(1, recipe.train.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(stream_seed(seed, "dropout", epoch))
        model.train()
        tally = Tally()
        for images, labels in watch(epoch, loader.epoch(epoch), tally):
            set_lr(optimizer, schedule(seen / planned))  # images (N, C, H, W), labels (N,)
            with precision:
                logits = model(images)  # (N, K)
            loss = F.cross_entropy(
                logits.float(), labels, label_smoothing=recipe.train.label_smoothing
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            tally.add(loss, logits, labels)
            if not math.isfinite(tally.last_loss):
                raise Diverged(_diverged(tally.last_loss, steps + 1, epoch, optimizer))
            optimizer.step()
            seen += len(labels)
            steps += 1
            average.update(seen / planned)
        if epoch == recipe.train.epochs:
            average.apply()
        yield EpochRecord(
            epoch,
            images_seen=seen,
            steps=steps,
            lr=optimizer.param_groups[0]["lr"],
            loss=tally.loss / tally.total,
            correct=tally.correct,
            total=tally.total,
            seconds=time.perf_counter() - started,
        )


def has_bf16(device: str = "cpu") -> bool:
    """Whether the device multiplies bf16 in hardware; emulated, it is slower than fp32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """Return the context of a forward pass in `fp32`, `bf16` or `auto`."""
    if precision == "fp32" or (precision == "auto" and not has_bf16(device)):
        return nullcontext()
    return torch.autocast(device, torch.bfloat16)


def _diverged(loss: float, step: int, epoch: int, optimizer: torch.optim.Optimizer) -> str:
    lr = optimizer.param_groups[0]["lr"]
    return (
        f"The loss is {loss} at step {step} (epoch {epoch}), learning rate {lr:g}. "
        "Nothing was judged. Try a lower optim.lr, a longer warm-up in schedule, "
        'or train.precision = "fp32".'
    )
