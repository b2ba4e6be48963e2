"""Commands that train many runs: a study of seeds, a search for recipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from whit.cli.options import (
    AsJson,
    Device,
    Quiet,
    Sets,
    all_of,
    at_least_one,
    recipe_named,
    seed_of,
    whole_number,
)
from whit.console import alone, console, leave_at_once, say_aside, show
from whit.errors import InputError, RunFailed
from whit.needed import need
from whit.stopping import SignalHandler, StopRequested

Jobs = Annotated[
    str | None,
    typer.Option(metavar="N", help="Runs at the same time; by default as the cores allow."),
]
Threads = Annotated[str, typer.Option(metavar="N", help="Processor threads of each run.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="A dask scheduler, whose workers train; else this machine."
    ),
]


def study(
    recipes: Annotated[
        list[str], typer.Argument(metavar="RECIPE...", help="Shipped names, or paths.")
    ],
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="N", help="How many seeds of each, from 0 on.")
    ],
    set_: Sets = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the run folders go.")] = Path(
        "studies"
    ),
    jobs: Jobs = None,
    threads: Threads = "1",
    device: Device = None,
    cluster: Cluster = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes", help="Go on although code or data of earlier seeds changed."
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train recipes over seeds, in parallel, and weigh what they show.

    Finished seeds are never trained again: the same command goes on where it stopped.
    """
    from whit.environment import choose_device, choose_threads
    from whit.study_progress import make_study_callback
    from whit.studying import plan_variants, run_study

    loaded, num_seeds, num_threads, num_jobs, _ = all_of(
        lambda: all_of(*(partial(recipe_named, name, set_) for name in recipes)),
        lambda: at_least_one("--seeds", seeds, 10_000),
        lambda: choose_threads(whole_number("--threads", threads)),
        lambda: None if jobs is None else at_least_one("--jobs", jobs, 1_000),
        lambda: None if device is None else choose_device(device),
    )
    with alone(as_json):
        arms = plan_variants(loaded, out)
    with (
        alone(as_json),
        _stopping() as signals,
        _executor(cluster, num_jobs, num_threads, signals, num_seeds * len(arms)) as executor,
    ):
        result = run_study(
            arms,
            range(num_seeds),
            executor,
            threads=num_threads,
            device=device or "cpu",
            accept_changes=accept_changes,
            command=sys.argv[1:],
            callback=make_study_callback(console(), quiet or as_json),
            signals=signals,
        )
    show(result.to_json(), result.table, as_json)
    if result.failures:
        raise typer.Exit(RunFailed.exit_code)


def search(
    space: Annotated[
        str, typer.Argument(metavar="SPACE", help="A shipped search space, or a .toml or .py.")
    ],
    trials: Annotated[
        str, typer.Option("--trials", metavar="N", help="Candidates in all, earlier ones too.")
    ] = "50",
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the search keeps what it found.")
    ] = Path("searches"),
    jobs: Jobs = None,
    threads: Threads = "1",
    device: Device = None,
    seed: Annotated[str, typer.Option(metavar="N", help="Decides what is suggested first.")] = "0",
    cluster: Cluster = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A PostgreSQL database, for several drivers at once."),
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option("--accept-changes", help="Go on with candidates begun by other code."),
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Find recipes on the validation split, and keep the frontier.

    Stopped at any time, the same command goes on; more --trials go further.
    """
    from whit.environment import choose_device, choose_threads
    from whit.space_file import load_space

    need("search", "optuna", "matplotlib")
    if storage is not None:
        need("cluster", "psycopg")
    from whit.ledger import redact, validate_storage_url

    with alone(as_json):
        loaded, num_jobs, num_threads, num_trials, sampler_seed, _, _ = all_of(
            lambda: load_space(space),
            lambda: None if jobs is None else at_least_one("--jobs", jobs, 1_000),
            lambda: choose_threads(whole_number("--threads", threads)),
            lambda: at_least_one("--trials", trials, 1_000_000),
            lambda: seed_of(seed),
            lambda: None if device is None else choose_device(device),
            lambda: None if storage is None else validate_storage_url(storage),
        )
    from whit.search import SearchDriver
    from whit.search_progress import make_search_callback

    with (
        alone(as_json),
        _stopping() as signals,
        _executor(cluster, num_jobs, num_threads, signals) as executor,
        SearchDriver(
            loaded,
            out,
            executor,
            storage=storage,
            seed=sampler_seed % 2**32,
            threads=num_threads,
            device=device or "cpu",
            accept_changes=accept_changes,
            command=[redact(argument) for argument in sys.argv[1:]],
            callback=make_search_callback(console(), quiet or as_json),
            signals=signals,
        ) as driver,
    ):
        result = driver.run(num_trials)
    show(result.to_json(), result.table, as_json)
    if result.failures:
        raise typer.Exit(RunFailed.exit_code)


@contextmanager
def _stopping() -> Iterator[SignalHandler]:
    """Record signals; one that comes before or after the training ends the command."""
    try:
        with SignalHandler(partial(leave_at_once, goes_on="the same command")) as signals:
            yield signals
    except StopRequested as stop:
        raise stop.to_error(". The same command goes on.") from None


def _executor(
    cluster: str | None,
    jobs: int | None,
    threads: int,
    signals: SignalHandler,
    num_runs: int | None = None,
) -> Any:
    """Return an executor: a cluster, or up to `jobs` processes of this machine.

    `num_runs` is how many runs there are in all, where that is known.
    """
    if cluster is None:
        from whit.workers import LocalExecutor

        num_jobs = jobs or max(1, (os.cpu_count() or 1) // threads)
        return LocalExecutor(min(num_jobs, num_runs or num_jobs), threads, say_aside)
    if jobs is not None:
        raise InputError(
            "--jobs: a cluster has as many as its workers have threads: leave it away."
        )

    need("cluster", "distributed")
    from whit.cluster import Cluster

    with signals.interruptible():  # a scheduler may never answer
        return Cluster(cluster, say_aside)
