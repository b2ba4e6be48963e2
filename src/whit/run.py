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
from whit.data.splits import Dataset, Split, normalisation
from whit.environment import (
    choose_device,
    choose_threads,
    describe_environment,
    keep_freed_memory,
    make_repeatable,
)
from whit.errors import (
    BudgetRefused,
    DataError,
    InputError,
    Interrupted,
    ModelError,
    RunFailed,
    WhitError,
)
from whit.evaluation import evaluate
from whit.planning import Plan, fresh_model, shape_lazy_layers
from whit.recipe import Recipe
from whit.record import EpochRecord, Evaluation, RunResult
from whit.run_folder import RunFolder
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
        raise BudgetRefused(plan.violations)  # all at once, the epochs with them
    chosen = choose_device(device)
    computing = choose_threads(threads)
    make_repeatable(chosen)
    keep_freed_memory()

    dataset = load_dataset(recipe.data.name, val=recipe.data.val)
    _same_as_planned(dataset, plan)
    if recipe.train.evaluate == "val" and dataset.val is None:
        raise InputError(
            f'train.evaluate = "val", but {recipe.data.name} has no validation split: '
            "give data.val, such as 1000."
        )
    normalise = data_normalise(recipe, dataset, chosen)
    if model is None:
        model = fresh_model(recipe, plan.image_shape, plan.num_classes, seed)
    shape_lazy_layers(model, plan.image_shape, recipe.model.name)
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
    with _stopped_by_signals(folder), _own_state(computing):
        folder.write_text("recipe.toml", recipe.to_toml())
        folder.write_json("environment.json", describe_environment(chosen, seed))
        watch.started(plan, folder)
        records: list[EpochRecord] = []
        with _failures_named(recipe, folder):
            for record in train(model, loader, recipe, seed, watch.batches):
                readings = tuple(
                    evaluate(model, split, normalise, device=chosen)
                    for split in _splits_after(record.epoch, recipe, dataset)
                )
                record = replace(record, evaluations=readings)
                folder.append_log(record)
                watch.trained(record)
                records.append(record)
        weights = save_weights(model)
        folder.write_bytes("weights.safetensors", weights)
        result = _judged(plan, dataset, records, seed, weights)
        result = replace(result, folder=folder.path, seconds_total=time.perf_counter() - started)
        folder.write_text("audit.txt", f"{plan.audit.table(100)}\n\n{result}\n")
        folder.write_json("result.json", result.to_json())
    return result


def _splits_after(epoch: int, recipe: Recipe, dataset: Dataset) -> list[Split]:
    """The splits to read after an epoch; the only place that hands out the test split."""
    splits = [dataset.val] if recipe.train.evaluate == "val" and dataset.val else []
    is_last = epoch == recipe.train.epochs
    if recipe.train.evaluate == "test" or (is_last and recipe.train.test):
        splits.append(dataset.test)
    return splits


def _judged(
    plan: Plan, dataset: Dataset, records: list[EpochRecord], seed: int, weights: bytes
) -> RunResult:
    """Judge what was measured: images really seen, test images really right."""
    last = records[-1]
    test = next((reading for reading in last.evaluations if reading.split == "test"), None)
    usage = replace(
        plan.usage,
        epochs=Fraction(last.images_seen, len(dataset.train)),
        correct=test.correct if test else None,
        total=test.total if test else None,
        leaked=dataset.overlap,
    )
    budget = plan.recipe.budget.limits()
    reads = sum(r.split == "test" for record in records for r in record.evaluations)
    return RunResult(
        verdict=budget.verdict(usage),
        violations=budget.violations(usage),
        params=plan.audit.params.total,
        epochs=Fraction(last.images_seen, len(dataset.train)),
        test=test,
        test_reads=reads,
        best=best_epoch(records),
        seconds_train=sum(record.seconds for record in records),
        seconds_total=0.0,
        images_seen=last.images_seen,
        seed=seed,
        weights_sha256=sha256(weights),
        notes=_notes(reads, dataset),
        budget=budget,
        usage=usage,
    )


@contextmanager
def _own_state(threads: int) -> Iterator[None]:
    """Compute with so many threads, and leave the caller's threads and random state alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _failures_named(recipe: Recipe, folder: RunFolder) -> Iterator[None]:
    """A model that fails in the middle of training is the user's to mend: say where and why."""
    try:
        yield
    except WhitError:
        raise
    except Exception as error:
        raise RunFailed(
            f"{recipe.model.name} failed while training: {type(error).__name__}: {error} "
            f"Every finished epoch is in {folder.path / 'log.jsonl'}."
        ) from error


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


def _notes(test_reads: int, dataset: Dataset) -> tuple[str, ...]:
    """What a reader of the result must know beside its numbers."""
    found = list(dataset.notes)
    if test_reads > 1:
        found.append(
            f"the test split was read {test_reads} times, after each epoch; "
            "nothing was selected on it."
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
