"""A run: check the plan, load, train, evaluate, write the result. Only here are folders created.

A new run creates its folder with a first checkpoint; a run that was stopped or killed is restored
from its latest one. From there both take the same path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from whit import errors
from whit.data.splits import Dataset, Split
from whit.models.run_source import copy_files, explain_copy, has_copy
from whit.models.tta import with_tta
from whit.models.weights import save_weights
from whit.recipes.recipe import Recipe
from whit.runs import layout
from whit.runs.compatibility import describe_change, diff_environments
from whit.runs.folder import RunFolder, encode_json
from whit.runs.manifest import with_manifest
from whit.runs.reader import RunRecord, read_run
from whit.runs.result import RunResult
from whit.system.processor.cores import resolve_threads
from whit.system.rng import preserve_rng_state
from whit.system.signals import SignalHandler, StopRequested, raise_keyboard_interrupt
from whit.training.callback import RunCallback, RunStatus
from whit.training.checkpoint import file_name, find_latest_checkpoint
from whit.training.checkpointer import Checkpointer, ResumableState, reconcile_log
from whit.training.evaluation import evaluate, find_trained_dependence
from whit.training.hardware.device import resolve_device
from whit.training.hardware.threads import SharedCores, ThreadChoice, use_threads
from whit.training.loop import train
from whit.training.outcome import build_result, diverged_result
from whit.training.plan import Plan, find_source, make_plan
from whit.training.setup import setup_run


def train_run(
    plan: Plan,
    *,
    model: nn.Module | None = None,
    seed: int = 0,
    out: Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    over_budget: bool = False,
    callback: RunCallback | None = None,
    on_second_signal: Callable[[int], None] = raise_keyboard_interrupt,
) -> RunResult:
    """Train the recipe of a plan, judge the result, and write a run folder.

    `model` is trained in place of the recipe's. Without `threads`, one for each core that is
    free. Raises BudgetInfeasible before any data is read when the run can never meet its budget,
    unless `over_budget`; InputError and its subclasses before anything is written; Interrupted
    after saving; RunFailed when the run itself fails.
    """
    plan.check_trainable()
    if not over_budget:
        plan.check_feasible()
    torch_device = resolve_device(device)
    choice = ThreadChoice(threads)  # measures the machine's load while the data is loaded
    setup = setup_run(plan, model, seed, torch_device)
    num_threads, notice = choice.choose()
    recipe = plan.recipe.to_toml().encode()
    resumable = ResumableState(setup, recipe)
    checkpoint = resumable.to_bytes(elapsed=0.0)
    files = {
        layout.RECIPE: recipe,
        layout.ENVIRONMENT: encode_json(
            # By default the name has a time in it, on which these paths do not depend.
            setup.environment(num_threads, choice.is_fixed, out or Path("runs") / plan.recipe.name)
        ),
        **(copy_files(plan.source) if plan.source else {}),
        f"{layout.CHECKPOINTS}/{file_name(0, checkpoint)}": checkpoint,
    }
    with (
        SignalHandler(on_second_signal) as signals,
        preserve_rng_state(),
        use_threads(num_threads),
        RunFolder.create(out, plan.recipe.name, seed, files) as folder,
        callback or RunCallback() as callback,
    ):
        callback.on_start(RunStatus(plan, folder.path, num_threads, resumable.describe_position()))
        if notice:
            callback.on_notice(notice)
        return _execute(
            Checkpointer(resumable, folder, signals, callback), num_threads, choice.is_fixed
        )


def resume_run(
    path: Path,
    *,
    model: nn.Module | None = None,
    device: str | None = None,
    threads: int | None = None,
    allow_changes: bool = False,
    steal_lock: bool = False,
    trust_model_files: bool = False,
    callback: RunCallback | None = None,
    on_second_signal: Callable[[int], None] = raise_keyboard_interrupt,
) -> RunResult:
    """Resume a run that was stopped or killed, to the same bytes as if it had not been.

    Device and threads default to those of the run. `allow_changes` resumes although machine, code
    or data have changed; the result lists the changes. `steal_lock` takes the lock of another
    machine that did not release it. `trust_model_files` executes the copy of a user's own model in
    the folder, if its file is missing or has changed. Raises RunAlreadyFinished when there is
    nothing to resume, IncompatibleResume when the result would differ, and InputError; then nothing
    was changed. Otherwise as `train_run`.
    """
    record = read_run(path, trust_model_files=trust_model_files)
    _refuse_ended(record, steal_lock)
    model_source, recipe = find_source(record), record.local_recipe
    if model is not None and not record.recipe.model.is_in_memory:
        raise errors.IncompatibleResume(f"{path}: its recipe builds its model: omit model=...")
    plan = make_plan(recipe, model, model_source)
    plan.check_trainable()
    if plan.recipe != recipe:
        raise errors.IncompatibleResume(
            f"{path}: trained {record.recipe.model.name}, not the given model."
        )
    if record.seed is None:
        raise errors.IncompatibleResume(f"{path / layout.ENVIRONMENT}: damaged: no seed in it.")
    torch_device = resolve_device(device or str(record.environment.get("device", "cpu")))
    setup = setup_run(plan, model, record.seed, torch_device)
    resumable = ResumableState(setup, (path / layout.RECIPE).read_bytes())
    with (
        SignalHandler(on_second_signal) as signals,
        preserve_rng_state(),
        RunFolder(path, steal_lock=steal_lock) as folder,
        callback or RunCallback() as callback,
    ):
        ended = read_run(path).result  # by another process in the meantime
        if ended is not None:
            folder.finish()
            raise errors.RunAlreadyFinished(path, ended)
        latest, damaged = find_latest_checkpoint(folder.checkpoints, resumable.max_bytes)
        if latest:
            resumable.restore(latest)
        elif record.recipe.model.is_in_memory:
            raise errors.IncompatibleResume(
                f"{path}: no valid checkpoint is left, and no recipe can build a model passed in "
                "Python."
            )
        before = resumable.threads or record.environment.get("threads")
        num_threads = resolve_threads(
            threads or (before if isinstance(before, int) else torch.get_num_threads())
        )
        is_fixed = threads is not None or record.environment.get("threads_fixed") is not False
        environment = setup.environment(num_threads, is_fixed, path)
        changes = diff_environments(record.environment, environment, resumable.changes)
        if changes and not allow_changes:
            advice = (
                "Resuming would not give the same result. Undo these changes, or add "
                "--allow-changes; the result then lists them."
            )
            problems = [f"{path}: {describe_change(change)}." for change in changes]
            is_source = any(change["what"] == "model_sha256" for change in changes)
            if is_source and has_copy(path, record.environment):
                problems.append(explain_copy(path))
            raise errors.IncompatibleResume([*problems, advice])
        messages = [f"{file}: damaged and ignored." for file in damaged]
        if damaged or latest is None:
            source = latest.path if latest else "the beginning: there is no valid checkpoint"
            messages.append(f"Resuming from {source}.")
        messages += [f"Accepted change: {describe_change(change)}." for change in changes]
        resumable.changes += [{**change, "epoch": setup.state.epoch} for change in changes]
        reconcile_log(folder, resumable, damaged)
        position = resumable.describe_position()
        with use_threads(num_threads):
            callback.on_resume(RunStatus(plan, path, num_threads, position), messages)
            return _execute(
                Checkpointer(resumable, folder, signals, callback), num_threads, is_fixed
            )


def _execute(checkpointer: Checkpointer, num_threads: int, is_fixed: bool) -> RunResult:
    """Train from the position of the state to the end, judge, and finish the folder."""
    folder, signals, resumable = checkpointer.folder, checkpointer.signals, checkpointer.resumable
    setup, state = resumable.setup, resumable.state
    plan, dataset = setup.plan, setup.dataset
    predictor = with_tta(state.model, plan.recipe.eval.tta_shifts)

    def result_with(weights: bytes, dependence: str | None = None) -> RunResult:
        records, changes = resumable.records, resumable.changes
        return build_result(plan, dataset, state, records, changes, weights, dependence)

    try:
        with (
            _report_model_errors(plan.recipe, folder),
            SharedCores(
                num_threads if state.device.type == "cpu" else 0,
                is_fixed,
                folder.resume_command,
                check=signals.check,
                notify=checkpointer.on_notice,
                on_change=checkpointer.on_threads_changed,
            ) as checkpointer.cores,
        ):
            for record in train(state, setup.loader, plan.recipe, setup.objective, checkpointer):
                progress = record.epoch / plan.recipe.train.epochs
                with state.quantizer.quantized_weights(progress), signals.interruptible():
                    evaluations = tuple(
                        evaluate(
                            predictor,
                            split,
                            setup.normalize,
                            device=state.device,
                            on_progress=checkpointer.on_evaluation,
                        )
                        for split in _splits_after(record.epoch, plan.recipe, dataset)
                    )
                checkpointer.on_epoch_end(replace(record, evaluations=evaluations))
        signals.final_check()
    except StopRequested as stop:
        raise _interrupted(stop, checkpointer) from None
    except errors.Diverged as error:
        weights = checkpointer.last_finite_weights()
        _finalize(diverged_result(result_with(weights), error), weights, checkpointer)
        location = f"The last finite weights are in {folder.path / layout.WEIGHTS}."
        raise error.with_advice(location) from None
    weights = save_weights(state.model)
    dependence = find_trained_dependence(state.model, dataset, setup.normalize, state.device)
    return _finalize(result_with(weights, dependence), weights, checkpointer)


def _finalize(result: RunResult, weights: bytes, checkpointer: Checkpointer) -> RunResult:
    """Write the files of a finished run; last `result.json`, with the digests of the others."""
    folder, plan = checkpointer.folder, checkpointer.resumable.setup.plan
    folder.write_bytes(layout.WEIGHTS, weights)
    result = replace(result, folder=folder.path, seconds_total=checkpointer.elapsed)
    folder.write_bytes(layout.AUDIT, f"{plan.network_table(100)}\n\n{result}\n".encode())
    folder.write_bytes(layout.RESULT, encode_json(with_manifest(result.to_json(), folder.path)))
    folder.finish()
    return result


def _interrupted(stop: StopRequested, checkpointer: Checkpointer) -> errors.Interrupted:
    """Save, and return the error, with the command to resume."""
    folder, resumable = checkpointer.folder, checkpointer.resumable
    position = resumable.describe_position()
    if stop.is_consistent:
        try:
            checkpointer.save()
        except errors.LockLost:
            raise
        except errors.RunFailed as error:
            raise errors.RunFailed(
                f"stopped by {stop.name} {position}, but not saved: {error}"
            ) from None
        saved = "Everything is saved"
    else:
        saved = "The current step did not finish in time; the latest checkpoint is kept"
    command = folder.resume_command
    if resumable.setup.plan.recipe.model.is_in_memory:
        command = f"whit.resume({str(folder.path)!r}, model=...), in Python"
    return stop.to_error(f" {position}. {saved}. Resume with: {command}")


def _refuse_ended(record: RunRecord, steal_lock: bool) -> None:
    """Raise RunAlreadyFinished for a run with a result; remove files left by a kill at its end."""
    if record.result is None:
        return
    if (record.path / layout.CHECKPOINTS).exists():
        with RunFolder(record.path, steal_lock=steal_lock) as folder:
            folder.finish()
    raise errors.RunAlreadyFinished(record.path, record.result)


def _splits_after(epoch: int, recipe: Recipe, dataset: Dataset) -> list[Split]:
    """Return the splits to evaluate after an epoch; the only use of the test split."""
    splits = [dataset.val] if recipe.eval.each_epoch == "val" and dataset.val else []
    is_last = epoch == recipe.train.epochs
    if recipe.eval.each_epoch == "test" or (is_last and recipe.eval.test):
        splits.append(dataset.test)
    return splits


@contextmanager
def _report_model_errors(recipe: Recipe, folder: RunFolder) -> Iterator[None]:
    """Raise RunFailed for a model that fails while it is trained."""
    try:
        yield
    except errors.WhitError:
        raise
    except Exception as error:
        raise errors.RunFailed(
            f"{recipe.model.name} failed while training: {type(error).__name__}: {error} "
            f"The last checkpoint is kept. Fix the model, then resume with: "
            f"{folder.resume_command} --allow-changes"
        ) from error
