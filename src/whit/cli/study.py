"""The command that trains recipes over several seeds."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from whit.cli import options
from whit.errors import RunFailed
from whit.recipes.model_ref import is_model_path
from whit.recipes.recipe import recipe_id
from whit.system.console import make_console, report_stages, show, stdout_to_stderr, warn
from whit.system.processor.collector import pause_gc


def study(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE...",
            autocompletion=options.complete_recipe,
            help="Built-in recipes, .toml files, or models as file.py:Class.",
        ),
    ],
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            metavar="N|FIRST-LAST",
            help="Seeds per recipe: 0 to N-1, or a range such as 1000-1009.",
        ),
    ],
    recipe: options.BaseRecipe = None,
    set_: options.Overrides = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the run folders.")] = Path(
        "studies"
    ),
    jobs: options.Jobs = None,
    threads: options.Threads = "1",
    device: options.Device = None,
    cluster: options.Cluster = None,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes", help="Resume although code or data changed since earlier seeds."
        ),
    ] = False,
    over_budget: options.OverBudget = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Train recipes over several seeds in parallel and compare the results.

    Finished seeds are not trained again: run the same command again to resume.
    """
    from whit.experiments.execution.executors import open_executor, open_local_executor
    from whit.system.processor.cores import resolve_threads

    # --recipe is for the model files among them; with none, it is refused.
    files = [name for name in recipes if is_model_path(name)] or recipes
    load_each = [
        partial(options.load_recipe_with_overrides, name, set_, recipe if name in files else None)
        for name in recipes
    ]
    loaded, seed_range, num_threads, num_jobs, _ = options.collect_errors(
        lambda: options.collect_errors(*load_each),
        lambda: options.parse_seeds(seeds),
        lambda: resolve_threads(options.parse_int("--threads", threads)),
        lambda: None if jobs is None else options.parse_positive_int("--jobs", jobs, 1_000),
        lambda: None if device is None else _check_device(device),
    )
    num_runs = len(seed_range) * len(loaded)
    executor: Any = None
    notice = ""
    with (
        options.infeasible_as_json(as_json),
        stdout_to_stderr(as_json),
        report_stages(quiet or as_json),
        ExitStack() as starting,
    ):
        if cluster is None:
            executor, notice = open_local_executor(num_jobs, num_threads, num_runs)
            starting.enter_context(executor)
            # Its workers import torch while this process does. Those of a study that was started
            # before may have nothing to do.
            if not any(os.path.lexists(out / recipe_id(each)) for each in loaded):
                executor.start()
        with pause_gc():
            from whit.experiments.study import plan_variants, run_study
            from whit.experiments.study_progress import make_study_callback
        arms = plan_variants(loaded, out, over_budget=over_budget)
        starting.pop_all()  # no error any more: it ends with the study
    if notice:
        warn(notice)
    with (
        stdout_to_stderr(as_json),
        options.catch_signals() as signals,
        executor or open_executor(cluster, num_jobs, num_threads, signals, num_runs) as executor,
    ):
        result = run_study(
            arms,
            seed_range,
            executor,
            threads=num_threads,
            device=device or "cpu",
            allow_changes=allow_changes,
            over_budget=over_budget,
            command=sys.argv[1:],
            callback=make_study_callback(make_console(), quiet or as_json),
            signals=signals,
        )
    show(result.to_json(), result.table, as_json)
    if result.failures:
        raise typer.Exit(RunFailed.exit_code)


def _check_device(device: str) -> None:
    """Raise InputError for a device that this machine does not have."""
    from whit.training.hardware.device import resolve_device

    resolve_device(device)
