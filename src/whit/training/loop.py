"""The training loop."""

# N images, C channels, H W pixels, K classes

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from whit.data.loader import Loader
from whit.errors import Diverged
from whit.recipes.recipe import Recipe
from whit.runs.result import EpochRecord
from whit.training.callback import RunCallback
from whit.training.optimization.objective import Objective
from whit.training.optimization.optim import set_lr
from whit.training.state import TrainingState


def train(
    state: TrainingState,
    loader: Loader,
    recipe: Recipe,
    objective: Objective,
    callback: RunCallback | None = None,
) -> Iterator[EpochRecord]:
    """Train `state.model` in place, from the position of `state` to the recipe's last epoch.

    Yields one EpochRecord per epoch; time between epochs is not measured. Of the callback only
    `wrap_batches` is called: whenever the next batch is requested, `state` is consistent and may
    be saved. Raises Diverged at the first loss or gradient that is not finite, before it reaches
    the weights. Averaged and quantized weights, if the recipe has them, are in place when
    the last record is yielded.
    """
    optimizer, ema, quantizer = state.optimizer, state.ema, state.quantizer
    lr_factor = recipe.lr_factor()
    num_train = len(loader.labels)
    total_images = recipe.train.epochs * recipe.images_per_epoch(num_train)
    callback = callback or RunCallback()
    while state.epoch <= recipe.train.epochs:
        state.begin_epoch(num_train)
        metrics = state.metrics
        started = time.perf_counter() - state.seconds
        # images (N, C, H, W), labels (N,)
        batches = loader.epoch(state.epoch, state.batches, state.order)
        for images, labels in callback.wrap_batches(state.epoch, batches, metrics):
            progress = state.seen / total_images
            set_lr(optimizer, lr_factor(progress))
            state.begin_step(progress)
            with quantizer.quantized_weights(progress):
                loss, logits = objective(images, labels)  # (), (N, K)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            loss_value = loss.item()
            if not (math.isfinite(loss_value) and state.gradients_are_finite()):
                raise _diverged(loss_value, state)
            optimizer.step()
            state.end_step(logits, labels)
            ema.update(state.seen / total_images)
            metrics.update(loss_value, logits, labels)
            state.seconds = time.perf_counter() - started
        if state.epoch == recipe.train.epochs:
            ema.apply()
            quantizer.finalize()
        yield EpochRecord(
            state.epoch,
            images_seen=state.seen,
            steps=state.steps,
            lr=optimizer.groups[0].lr,
            loss=metrics.loss / metrics.total,
            correct=metrics.correct,
            total=metrics.total,
            seconds=time.perf_counter() - started,
        )
        state.end_epoch()


def _diverged(loss: float, state: TrainingState) -> Diverged:
    """Undo the forward pass, and return the error."""
    state.restore_buffers()
    lr = state.optimizer.groups[0].lr
    what = "The gradient is not finite" if math.isfinite(loss) else f"The loss is {loss}"
    message = (
        f"{what} at step {state.steps + 1} (epoch {state.epoch}), loss {loss:g}, "
        f"learning rate {lr:g}. The run was not evaluated. Try a lower optim.lr, a longer warm-up "
        'in schedule, or train.precision = "fp32".'
    )
    return Diverged(message, epoch=state.epoch, step=state.steps + 1, loss=loss, lr=lr)
