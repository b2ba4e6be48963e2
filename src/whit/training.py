"""The training loop."""

# N images, C channels, H W pixels, K classes

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn import functional as F

from whit.data.loader import Loader
from whit.distillation import Distillation
from whit.errors import Diverged
from whit.optim import set_lr
from whit.recipe import Recipe
from whit.record import EpochRecord
from whit.state import Batches, Tally, TrainingState


def train(
    state: TrainingState,
    loader: Loader,
    recipe: Recipe,
    watch: Callable[[int, Batches, Tally], Batches] = lambda epoch, batches, tally: batches,
    distillation: Distillation | None = None,
) -> Iterator[EpochRecord]:
    """Train `state.model` in place, from where `state` stands to the recipe's last epoch.

    Yields one EpochRecord an epoch; time spent outside is not charged. `watch` may wrap an
    epoch's batches: whenever it is asked for the next one, `state` is whole and may be saved.
    With a `distillation` the model learns from a teacher, too.
    Raises Diverged at the first loss or gradient that is not finite, before it reaches the
    weights. The averaged weights, and rounded ones, if the recipe asks for them, are in place when
    the last record is yielded; until then they are those that steps change.
    """
    model, optimizer = state.model, state.optimizer
    average, rounding = state.average, state.rounding
    schedule = recipe.schedule.multiplier()
    planned = recipe.train.epochs * len(loader.labels)
    dropout_until = recipe.train.dropout_until or 1.0
    precision = autocast(recipe.train.precision, loader.images.device.type)
    while state.epoch <= recipe.train.epochs:
        state.begin_epoch()
        tally = state.tally
        started = time.perf_counter() - state.seconds
        for images, labels in watch(state.epoch, loader.epoch(state.epoch, state.batches), tally):
            set_lr(optimizer, schedule(state.seen / planned))  # images (N, C, H, W), labels (N,)
            state.keep_buffers()
            rounding.put_on(state.seen / planned)
            if state.seen / planned >= dropout_until:
                state.end_dropout()
            with precision:
                logits = model(images)  # (N, K), or (N, K, H) of columns
            wanted, judged = labels, logits
            if logits.ndim == 3:  # each column learns by itself; they are judged together
                wanted, judged = labels[:, None].expand(-1, logits.shape[2]), logits.mean(2)
            loss = F.cross_entropy(
                logits.float(), wanted, label_smoothing=recipe.train.label_smoothing
            )
            if distillation:
                loss = distillation.loss(loss, judged.float(), images)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            rounding.take_off()
            value = loss.item()
            if not (math.isfinite(value) and state.gradients_are_finite()):
                raise _diverged(value, state)
            optimizer.step()
            tally.add(value, judged, labels)
            state.seen += len(labels)
            state.steps += 1
            state.batches += 1
            average.update(state.seen / planned)
            state.seconds = time.perf_counter() - started
        if state.epoch == recipe.train.epochs:
            average.apply()
            rounding.settle()
        yield EpochRecord(
            state.epoch,
            images_seen=state.seen,
            steps=state.steps,
            lr=optimizer.groups[0].lr,
            loss=tally.loss / tally.total,
            correct=tally.correct,
            total=tally.total,
            seconds=time.perf_counter() - started,
        )
        state.end_epoch()


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


def _diverged(loss: float, state: TrainingState) -> Diverged:
    """Put back what the step has spoilt, and say what happened."""
    state.put_buffers_back()
    lr = state.optimizer.groups[0].lr
    what = "The gradient is not finite" if math.isfinite(loss) else f"The loss is {loss}"
    message = (
        f"{what} at step {state.steps + 1} (epoch {state.epoch}), loss {loss:g}, "
        f"learning rate {lr:g}. Nothing was judged. Try a lower optim.lr, a longer warm-up in "
        'schedule, or train.precision = "fp32".'
    )
    return Diverged(message, epoch=state.epoch, step=state.steps + 1, loss=loss, lr=lr)
