"""The command that trains or resumes one run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Annotated

import typer

from whit.cli import options
from whit.errors import InputError, RunAlreadyFinished, RunFailed
from whit.recipes.recipe import DEFAULT_RECIPE, Recipe
from whit.runs import layout
from whit.system.console import (
    exit_immediately,
    make_console,
    report_stages,
    show,
    stdout_to_stderr,
)
from whit.system.processor.collector import pause_gc
from whit.system.text_tables import wrap


def train(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="Built-in recipe, .toml file, or your model: file.py:Class, notebook.ipynb:Class."
            f"  [default: {DEFAULT_RECIPE}]",
            autocompletion=options.complete_recipe,
        ),
    ] = None,
    recipe: options.BaseRecipe = None,
    set_: options.Overrides = None,
    run_whole_file: options.RunWholeFile = False,
    seed: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Seed of initialization, shuffling, augmentation and dropout.  [default: 0]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Run folder to create.  [default: a new one in runs/]"),
    ] = None,
    device: options.Device = None,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N", help="Processor threads.  [default: one per free core]"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Resume a run that was stopped or killed."),
    ] = None,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes", help="Resume with other threads, code or data; listed in the result."
        ),
    ] = False,
    steal_lock: Annotated[
        bool,
        typer.Option("--steal-lock", help="Take over a run still locked by another machine."),
    ] = False,
    over_budget: options.OverBudget = False,
    trust_model_files: options.TrustModelFiles = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the verdict only.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Train or resume a run, check its budget, write a run folder."""

    @cache
    def load_recipe() -> Recipe | None:
        if resume is None:
            return options.load_recipe_with_overrides(
                target or DEFAULT_RECIPE, set_, recipe, run_whole_file
            )
        given = {"RECIPE": target, "--recipe": recipe, "--set": set_ or None, "--seed": seed,
                 "--out": out, "--over-budget": over_budget,
                 "--run-whole-file": run_whole_file}  # fmt: skip
        _refuse_given(given, "--resume uses the run's own recipe, seed and folder; omit")
        return None

    with report_stages(quiet or as_json), pause_gc():
        from whit.data.prefetch import prefetch
        from whit.system.processor.load import recent_load

        # While torch is imported, the load is measured and the data are unpacked.
        recent_load()
        with suppress(InputError):  # reported below, together with the other problems
            if known := load_recipe():
                prefetch(known.data.name)
        from whit.runs.folder import RunFolder
        from whit.system.processor.cores import resolve_threads
        from whit.training.hardware.device import resolve_device
        from whit.training.plan import make_plan
        from whit.training.progress import make_callback
        from whit.training.run import resume_run, train_run

    only_resumed = {"--allow-changes": allow_changes, "--steal-lock": steal_lock}
    only_resumed["--trust-model-files"] = trust_model_files
    loaded, run_seed, num_threads, _, _, _ = options.collect_errors(
        load_recipe,
        lambda: 0 if seed is None else options.parse_seed(seed),
        lambda: (
            None if threads is None else resolve_threads(options.parse_int("--threads", threads))
        ),
        lambda: None if device is None else resolve_device(device),
        lambda: None if out is None or resume is not None else RunFolder.check_creatable(out),
        lambda: (
            None if resume else _refuse_given(only_resumed, "only valid with --resume RUN; omit")
        ),
    )
    callback = make_callback(make_console(), quiet or as_json)
    try:
        with options.infeasible_as_json(as_json), stdout_to_stderr(as_json):
            if loaded is None:
                assert resume is not None
                result = resume_run(
                    resume,
                    device=device,
                    threads=num_threads,
                    allow_changes=allow_changes,
                    steal_lock=steal_lock,
                    trust_model_files=trust_model_files,
                    callback=callback,
                    on_second_signal=exit_immediately,
                )
            else:
                with report_stages(quiet or as_json):
                    plan = make_plan(loaded)
                result = train_run(
                    plan,
                    seed=run_seed,
                    out=out,
                    device=device or "cpu",
                    threads=num_threads,
                    over_budget=over_budget,
                    callback=callback,
                    on_second_signal=exit_immediately,
                )
    except RunAlreadyFinished as ended:
        if ended.result["state"] != "finished":
            raise RunFailed(str(ended)) from None
        show({"folder": str(resume), **ended.result}, partial(wrap, str(ended)), as_json)
        options.exit_with_verdict(ended.result["verdict"])
        return
    assert result.folder is not None
    stored = json.loads((result.folder / layout.RESULT).read_text(encoding="utf-8"))
    value = {"folder": str(result.folder), **stored}
    show(value, result.text, as_json)
    options.exit_with_verdict(result.verdict)


def _refuse_given(values: Mapping[str, object], reason: str) -> None:
    """Raise InputError for each option that is given."""
    given = [name for name, value in values.items() if value not in (None, False)]
    if given:
        raise InputError([f"{name}: {reason} {name}." for name in given])
