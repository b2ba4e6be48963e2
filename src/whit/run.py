"""A run: plan, refuse, load, train, evaluate, judge, record. The only maker of run folders.

A run that begins makes its folder with a first checkpoint in it; a run that was stopped or
killed goes back to its newest one. From there both go the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from whit.chance import own_chance
from whit.checkpoint import file_name
from whit.data.splits import Dataset, Split
from whit.environment import (
    choose_device,
    choose_threads,
)
from whit.errors import (
    BudgetRefused,
    CannotResume,
    Diverged,
    Interrupted,
    LostLock,
    RunEnded,
    RunFailed,
    WhitError,
)
from whit.evaluation import evaluate
from whit.judging import diverged_result, judged_result
from whit.keeping import Keeper, Progress, newest, settle
from whit.model_ref import reject_code_in_run
from whit.models.weights import save_weights, sha256
from whit.planning import Plan
from whit.planning import plan as make_plan
from whit.preparing import Prepared, prepare
from whit.recipe import Recipe
from whit.record import EpochRecord, RunResult
from whit.run_folder import RunFolder, as_json
from whit.run_record import RunRecord, read_run
from whit.sameness import changes_between, describe
from whit.seal import sealed
from whit.state import Batches, Tally
from whit.stopping import Stop, Stopping, interrupt
from whit.training import train


class Watch:
    """Somebody who looks on. A run calls these and goes on whatever they do."""

    def started(self, plan: Plan, folder: RunFolder) -> None:
        """The data is loaded and the folder is made."""

    def resumed(self, plan: Plan, folder: RunFolder, place: str, said: list[str]) -> None:
        """The run goes on at `place`; `said` are sentences about what it found and changed."""

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
    on_second_signal: Callable[[int], None] = interrupt,
) -> RunResult:
    """Train the plan's recipe, judge it, and leave a run folder.

    `model` is one of your own, trained in place of the recipe's. Raises BudgetRefused before any
    data is read when the model can never keep its budget; InputError and its kin before anything
    is written; Interrupted after saving; RunFailed when the run itself goes wrong.
    """
    if plan.refusals:
        raise BudgetRefused(plan.violations)  # all at once, the epochs with them
    chosen, computing = choose_device(device), choose_threads(threads)
    prepared = prepare(plan, model, seed, chosen)
    recipe = plan.recipe.to_toml().encode()
    progress = _progress(prepared, recipe)
    first = progress.encoded(0.0)
    files = {
        "recipe.toml": recipe,
        "environment.json": as_json(prepared.environment(computing)),
        f"checkpoint/{file_name(0, first)}": first,
    }
    watch = watch or Watch()
    with (
        Stopping(on_second_signal) as stopping,
        own_chance(),
        _own_threads(computing),
        RunFolder.create(out, plan.recipe.name, seed, files) as folder,
    ):
        watch.started(plan, folder)
        return _go_on(prepared, progress, folder, stopping, watch)


def resume(
    path: Path,
    *,
    model: nn.Module | None = None,
    device: str | None = None,
    threads: int | None = None,
    accept_changes: bool = False,
    take_over: bool = False,
    watch: Watch | None = None,
    on_second_signal: Callable[[int], None] = interrupt,
) -> RunResult:
    """Go on with a run that was stopped or killed, to the same bytes as if it had not been.

    Device and threads are those it had, unless given. `accept_changes` goes on although machine,
    code or data are not what they were; the result says so. `take_over` takes the folder from
    another machine that did not give it back. Raises RunEnded when there is nothing to resume,
    CannotResume when it would not be the same run, InputError and its kin; in all these cases
    nothing was changed. Otherwise as `run`.
    """
    record = read_run(path)
    _refuse_ended(record, take_over)
    reject_code_in_run(record.recipe.model.name, path)
    if model is not None and not record.recipe.model.is_in_memory:
        raise CannotResume(f"{path}: its recipe builds its model: leave model=... away.")
    plan = make_plan(record.recipe, model)
    if plan.recipe != record.recipe:
        raise CannotResume(f"{path}: trained {record.recipe.model.name}, not this model.")
    if record.seed is None:
        raise CannotResume(f"{path / 'environment.json'}: damaged: no seed in it.")
    before = record.environment
    prepared = prepare(
        plan, model, record.seed, choose_device(device or str(before.get("device", "cpu")))
    )
    recipe = (path / "recipe.toml").read_bytes()
    progress = _progress(prepared, recipe)
    with (
        Stopping(on_second_signal) as stopping,
        own_chance(),
        RunFolder(path, take_over=take_over) as folder,
    ):
        ended = read_run(path).result  # by another process, since we looked
        if ended is not None:
            folder.finish()
            raise RunEnded(path, ended)
        found, damaged = newest(folder, progress)
        if found is None and record.recipe.model.is_in_memory:
            raise CannotResume(f"{path}: no whole checkpoint is left of a model given in Python.")
        had = progress.threads or before.get("threads")
        computing = choose_threads(threads or (had if isinstance(had, int) else None))
        changes = changes_between(before, prepared.environment(computing), progress.changes)
        if changes and not accept_changes:
            raise CannotResume(
                [f"{path}: {describe(change)}." for change in changes]
                + [
                    "it would not be the same run. Put this back as it was; or add "
                    "--accept-changes, and the result will say so."
                ]
            )
        said = [f"{file}: damaged, so it is not used." for file in damaged]
        if damaged or found is None:
            said.append(f"Going on from {found or 'the beginning: no checkpoint is whole'}.")
        said += [f"Accepted: {describe(change)}." for change in changes]
        progress.changes += [{**change, "epoch": progress.state.epoch} for change in changes]
        settle(folder, progress, damaged)
        watch = watch or Watch()
        with _own_threads(computing):
            watch.resumed(plan, folder, progress.place(plan), said)
            return _go_on(prepared, progress, folder, stopping, watch)


def _progress(prepared: Prepared, recipe: bytes) -> Progress:
    """Return a run's progress at its beginning; `recipe` is the content of recipe.toml."""
    splits = prepared.dataset.splits
    evaluated = sum(len(split) for split in splits if split.name != "train")
    epochs = prepared.plan.recipe.train.epochs
    return Progress(prepared.state, sha256(recipe), epochs, evaluated)


def _go_on(
    prepared: Prepared, progress: Progress, folder: RunFolder, stopping: Stopping, watch: Watch
) -> RunResult:
    """Train from where the progress stands to the end, judge, and finish the folder."""
    plan, dataset, state = prepared.plan, prepared.dataset, prepared.state
    recipe = plan.recipe
    keeper = Keeper(folder, progress, stopping, prepared.started)

    def result_with(weights: bytes) -> RunResult:
        return judged_result(plan, dataset, state, progress.records, progress.changes, weights)

    try:
        with _failures_named(recipe, folder):
            batches = keeper.batches(watch.batches)
            for record in train(state, prepared.loader, recipe, batches, prepared.distillation):
                judged_at = record.epoch / recipe.train.epochs
                with state.rounding.on(judged_at), stopping.at_once():
                    readings = tuple(
                        evaluate(state.model, split, prepared.normalise, device=state.device)
                        for split in _splits_after(record.epoch, recipe, dataset)
                    )
                record = replace(record, evaluations=readings)
                keeper.epoch_done(record)
                watch.trained(record)
        stopping.last_check()
    except Stop as stop:
        raise _interrupted(stop, plan, keeper) from None
    except Diverged as error:
        weights = keeper.last_finite_weights()
        _finish(diverged_result(result_with(weights), error), weights, plan, keeper)
        kept = f"The last finite weights are in {folder.path / 'weights.safetensors'}."
        raise error.with_more(kept) from None
    weights = save_weights(state.model)
    return _finish(result_with(weights), weights, plan, keeper)


def _finish(result: RunResult, weights: bytes, plan: Plan, keeper: Keeper) -> RunResult:
    """Write what a finished run has; `result.json` comes last and seals the rest."""
    folder = keeper.folder
    folder.write_bytes("weights.safetensors", weights)
    result = replace(result, folder=folder.path, seconds_total=keeper.elapsed)
    folder.write_bytes("audit.txt", f"{plan.audit.table(100)}\n\n{result}\n".encode())
    folder.write_bytes("result.json", as_json(sealed(result.to_json(), folder.path)))
    folder.finish()
    return result


def _interrupted(stop: Stop, plan: Plan, keeper: Keeper) -> Interrupted:
    """Save, and say how to go on."""
    place = keeper.progress.place(plan)
    if stop.state_is_whole:
        try:
            keeper.save()
        except LostLock:
            raise
        except RunFailed as error:
            raise RunFailed(f"stopped by {stop.name} {place}, and not saved: {error}") from None
        kept = "Everything is saved"
    else:
        kept = "The step under way took too long to wait for; what was saved before it is kept"
    go_on = keeper.folder.resume_command
    if plan.recipe.model.is_in_memory:
        go_on = f"whit.resume({str(keeper.folder.path)!r}, model=...), in Python"
    return Interrupted(
        f"stopped by {stop.name} {place}. {kept}. Go on with: {go_on}", 128 + stop.number
    )


def _refuse_ended(record: RunRecord, take_over: bool) -> None:
    """Raise RunEnded for a run with a result, and remove what a kill at its very end left."""
    if record.result is None:
        return
    if (record.path / "checkpoint").exists():
        with RunFolder(record.path, take_over=take_over) as folder:
            folder.finish()
    raise RunEnded(record.path, record.result)


def _splits_after(epoch: int, recipe: Recipe, dataset: Dataset) -> list[Split]:
    """The splits to read after an epoch; the only place that hands out the test split."""
    splits = [dataset.val] if recipe.train.evaluate == "val" and dataset.val else []
    is_last = epoch == recipe.train.epochs
    if recipe.train.evaluate == "test" or (is_last and recipe.train.test):
        splits.append(dataset.test)
    return splits


@contextmanager
def _own_threads(threads: int) -> Iterator[None]:
    """Compute with so many threads, and leave the caller's alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
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
            f"What was trained before is saved; once it is mended, go on with: "
            f"{folder.resume_command} --accept-changes"
        ) from error
