"""The command that trains recipes over several seeds."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from whit.cli import options
from whit.errors import RunFailed
from whit.recipes.model_ref import is_model_path
from whit.system.console import make_console, report_stages, show, stdout_to_stderr


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
    with report_stages(quiet or as_json):
        from whit.experiments.execution.executors import open_executor
        from whit.experiments.study import plan_variants, run_study
        from whit.experiments.study_progress import make_study_callback
        from whit.training.hardware.device import resolve_device
        from whit.training.hardware.threads import resolve_threads

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
        lambda: None if device is None else resolve_device(device),
    )
    with (
        options.infeasible_as_json(as_json),
        stdout_to_stderr(as_json),
        report_stages(quiet or as_json),
    ):
        arms = plan_variants(loaded, out, over_budget=over_budget)
    num_runs = len(seed_range) * len(arms)
    with (
        stdout_to_stderr(as_json),
        options.catch_signals() as signals,
        open_executor(cluster, num_jobs, num_threads, signals, num_runs) as executor,
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
