"""The command that searches for recipes: hyperparameter search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from whit.cli import options
from whit.errors import RunFailed
from whit.system.console import make_console, report_stages, show, stdout_to_stderr
from whit.system.optional_deps import require_extra


def search(
    space: Annotated[
        str, typer.Argument(metavar="SPACE", help="Built-in search space, or a .toml or .py file.")
    ],
    trials: Annotated[
        str, typer.Option("--trials", metavar="N", help="Number of trials, earlier ones included.")
    ] = "50",
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the results.")] = Path(
        "searches"
    ),
    jobs: options.Jobs = None,
    threads: options.Threads = "1",
    device: options.Device = None,
    seed: Annotated[str, typer.Option(metavar="N", help="Random seed of the sampler.")] = "0",
    cluster: options.Cluster = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="PostgreSQL database that several searches share."),
    ] = None,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes", help="Resume although code or data changed since earlier trials."
        ),
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Search for recipes on the validation split and show the Pareto front.

    Run the same command again to resume; a larger --trials continues the search.
    """
    require_extra("search", "optuna", "matplotlib")
    if storage is not None:
        require_extra("cluster", "psycopg")
    with stdout_to_stderr(as_json), report_stages(quiet or as_json):
        from whit.experiments.search.database import redact, validate_storage_url
        from whit.experiments.search.space_file import load_space
        from whit.system.processor.cores import resolve_threads
        from whit.training.hardware.device import resolve_device

        loaded, num_jobs, num_threads, num_trials, sampler_seed, _, _ = options.collect_errors(
            lambda: load_space(space),
            lambda: None if jobs is None else options.parse_positive_int("--jobs", jobs, 1_000),
            lambda: resolve_threads(options.parse_int("--threads", threads)),
            lambda: options.parse_positive_int("--trials", trials, 1_000_000),
            lambda: options.parse_seed(seed),
            lambda: None if device is None else resolve_device(device),
            lambda: None if storage is None else validate_storage_url(storage),
        )
    from whit.experiments.execution.executors import open_executor
    from whit.experiments.search.driver import SearchDriver
    from whit.experiments.search.search_progress import make_search_callback

    with (
        stdout_to_stderr(as_json),
        options.catch_signals() as signals,
        open_executor(cluster, num_jobs, num_threads, signals) as executor,
        SearchDriver(
            loaded,
            out,
            executor,
            storage=storage,
            seed=sampler_seed % 2**32,
            threads=num_threads,
            device=device or "cpu",
            allow_changes=allow_changes,
            command=[redact(argument) for argument in sys.argv[1:]],
            callback=make_search_callback(make_console(), quiet or as_json),
            signals=signals,
        ) as driver,
    ):
        result = driver.run(num_trials)
    show(result.to_json(), result.table, as_json)
    if result.failures:
        raise typer.Exit(RunFailed.exit_code)
