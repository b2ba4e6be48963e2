"""A run: plan, refuse, load, train, evaluate, judge, record. The only maker of run folders."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from whit.data.datasets import load_dataset
from whit.data.loader import Loader, Normalise
from whit.data.splits import Dataset, normalisation
from whit.environment import (
    choose_device,
    choose_threads,
    describe_environment,
    keep_freed_memory,
)
from whit.errors import BudgetRefused, DataError, Interrupted, ModelError
from whit.evaluation import evaluate
from whit.planning import Plan, fresh_model
from whit.recipe import Recipe
from whit.record import EpochRecord, Evaluation, RunFolder, RunResult
from whit.training import Batches, Tally, train
from whit.weights import save_weights, sha256


class Watch:
    """Somebody who looks on. A run calls these and goes on whatever they do."""

    def started(self, plan: Plan, folder: RunFolder) -> None:
        """The data is loaded and the folder is made."""

    def batches(self, epoch: int, batches: Batches, tally: Tally) -> Batches:
        """Wrap an epoch's batches; `tally` holds what the epoch has reached so far."""
        return batches

    def trained(self, record: EpochRecord) -> None:
        """An epoch is over, evaluated where the recipe asks for it."""


def run(
    plan: Plan,
    *,
    model: nn.Module | None = None,
    seed: int = 0,
    out: Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    watch: Watch | None = None,
) -> RunResult:
    """Train the plan's recipe, judge it, and leave a run folder.

    `model` is one of your own, trained in place of the recipe's. Raises BudgetRefused before any
    data is read when the model can never keep its budget; InputError and its kin before anything
    is written; RunFailed when the run itself goes wrong.
    """
    started = time.perf_counter()
    watch = watch or Watch()
    recipe = plan.recipe
    if plan.refusals:
        raise BudgetRefused(plan.refusals)
    chosen = choose_device(device)
    torch.set_num_threads(choose_threads(threads))
    keep_freed_memory()

    dataset = load_dataset(recipe.data.name, val=recipe.data.val)
    _same_as_planned(dataset, plan)
    normalise = data_normalise(recipe, dataset, chosen)
    if model is None:
        model = fresh_model(recipe, plan.image_shape, plan.num_classes, seed)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(f"{recipe.model.name}: no trainable parameters, so nothing to train.")
    model.to(chosen, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = Loader(
        dataset.train,
        recipe.train.batch_size,
        normalise,
        recipe.augment,
        epochs=recipe.train.epochs,
        seed=seed,
        device=chosen,
    )

    folder = RunFolder.create(out, recipe.name, seed)
    folder.write_text("recipe.toml", recipe.to_toml())
    folder.write_json("environment.json", describe_environment(chosen, seed))
    watch.started(plan, folder)

    records: list[EpochRecord] = []
    test_reads = 0
    # A signal becomes an exception of ours, so that what is written so far stays whole.
    with _stopped_by_signals(folder):
        for record in train(model, loader, recipe, seed, watch.batches):
            is_last = record.epoch == recipe.train.epochs
            splits = [dataset.val] if recipe.train.evaluate == "val" and dataset.val else []
            if recipe.train.evaluate == "test" or (is_last and recipe.train.test):
                splits.append(dataset.test)
                test_reads += 1
            readings = tuple(evaluate(model, split, normalise, device=chosen) for split in splits)
            record = replace(record, evaluations=readings)
            folder.append_log(record)
            watch.trained(record)
            records.append(record)

    weights = save_weights(model)
    folder.write_bytes("weights.safetensors", weights)
    tests = [reading for reading in records[-1].evaluations if reading.split == "test"]
    test = tests[0] if tests else None
    usage = replace(
        plan.usage,
        epochs=Fraction(records[-1].images_seen, len(dataset.train)),
        correct=test.correct if test else None,
        total=test.total if test else None,
        leaked=dataset.overlap,
    )
    budget = recipe.budget.limits()
    result = RunResult(
        verdict=budget.verdict(usage),
        violations=budget.violations(usage),
        params=plan.audit.params.total,
        epochs=usage.epochs or Fraction(0),
        test=test,
        test_reads=test_reads,
        best=best_epoch(records),
        seconds_train=sum(record.seconds for record in records),
        seconds_total=time.perf_counter() - started,
        images_seen=records[-1].images_seen,
        seed=seed,
        weights_sha256=sha256(weights),
        notes=notes(recipe, test_reads, dataset),
        budget=budget,
        usage=usage,
        folder=folder.path,
    )
    folder.write_text("audit.txt", f"{plan.audit.table(100)}\n\n{result}\n")
    folder.write_json("result.json", result.to_json())
    return result


@contextmanager
def _stopped_by_signals(folder: RunFolder) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(
            f"stopped by {signal.Signals(number).name}. Every finished epoch is in "
            f"{folder.path / 'log.jsonl'}; there is no result, and no claim.",
            128 + number,
        )

    if threading.current_thread() is not threading.main_thread():
        yield  # Python hands signals to the main thread alone
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def data_normalise(recipe: Recipe, dataset: Dataset, device: torch.device) -> Normalise:
    """Return the recipe's normalisation, or that of the data set's own training split."""
    if recipe.data.mean is not None and recipe.data.std is not None:
        return Normalise(recipe.data.mean, recipe.data.std, device)
    mean, std = normalisation(dataset.train)
    return Normalise(mean, std, device)


def best_epoch(records: list[EpochRecord]) -> tuple[int, Evaluation] | None:
    """Return the best epoch on the split that was read most often; the earliest of equals."""
    readings = [(record.epoch, r) for record in records for r in record.evaluations]
    if not readings:
        return None
    splits = [reading.split for _, reading in readings]
    most_read = max(splits, key=splits.count)
    candidates = [item for item in readings if item[1].split == most_read]
    return max(candidates, key=lambda item: (item[1].correct, -item[0]))


def notes(recipe: Recipe, test_reads: int, dataset: Dataset) -> tuple[str, ...]:
    """Return what a reader of the result must know beside its numbers."""
    found = []
    if test_reads > 1:
        found.append(
            f"the test split was read {test_reads} times, after each epoch; "
            "nothing was selected on it."
        )
    if dataset.overlap:
        found.append(
            f"{dataset.overlap:,} test images also stand in the training data, byte for byte."
        )
    return tuple(found)


def _same_as_planned(dataset: Dataset, plan: Plan) -> None:
    found = (dataset.image_shape, dataset.num_classes, len(dataset.train))
    planned = (plan.image_shape, plan.num_classes, plan.num_train)
    if found != planned:
        raise DataError(
            f"{plan.recipe.data.name}: planned for images {planned[0]}, {planned[1]} classes and "
            f"{planned[2]} training images, but found {found[0]}, {found[1]} and {found[2]}."
        )
