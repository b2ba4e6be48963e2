"""Verbs that train many runs: a study of seeds, a search for recipes."""

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
from whit.errors import InputError, Interrupted, RunFailed
from whit.needed import need
from whit.stopping import Stop, Stopping

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
    from whit.study_progress import onlooker_on
    from whit.studying import study as make_study
    from whit.studying import variants_of

    made, count, each, many, _ = all_of(
        lambda: all_of(*(partial(recipe_named, name, set_) for name in recipes)),
        lambda: at_least_one("--seeds", seeds, 10_000),
        lambda: choose_threads(whole_number("--threads", threads)),
        lambda: None if jobs is None else at_least_one("--jobs", jobs, 1_000),
        lambda: None if device is None else choose_device(device),
    )
    with alone(as_json):
        variants = variants_of(made, out)
    with (
        alone(as_json),
        _stopping() as stopping,
        _executor(cluster, many, each, stopping, count * len(variants)) as workers,
        onlooker_on(console(), quiet or as_json) as onlooker,
    ):
        found = make_study(
            variants,
            range(count),
            workers,
            threads=each,
            device=device or "cpu",
            accept_changes=accept_changes,
            command=sys.argv[1:],
            onlooker=onlooker,
            stopping=stopping,
        )
    show(found.to_json(), found.table, as_json)
    if found.failures:
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
    from whit.space import load_space

    need("search", "optuna", "matplotlib")
    if storage is not None:
        need("cluster", "psycopg")
    from whit.ledger import masked, refuse_address

    with alone(as_json):
        made, many, each, count, number, _, _ = all_of(
            lambda: load_space(space),
            lambda: None if jobs is None else at_least_one("--jobs", jobs, 1_000),
            lambda: choose_threads(whole_number("--threads", threads)),
            lambda: at_least_one("--trials", trials, 1_000_000),
            lambda: seed_of(seed),
            lambda: None if device is None else choose_device(device),
            lambda: None if storage is None else refuse_address(storage),
        )
    from whit.search import Driver
    from whit.search_progress import search_onlooker_on

    with (
        alone(as_json),
        _stopping() as stopping,
        _executor(cluster, many, each, stopping) as workers,
        search_onlooker_on(console(), quiet or as_json) as onlooker,
        Driver(
            made,
            out,
            workers,
            storage=storage,
            seed=number % 2**32,
            threads=each,
            device=device or "cpu",
            accept_changes=accept_changes,
            command=[masked(argument) for argument in sys.argv[1:]],
            onlooker=onlooker,
            stopping=stopping,
        ) as driver,
    ):
        found = driver.go(count)
    show(found.to_json(), found.table, as_json)
    if found.failures:
        raise typer.Exit(RunFailed.exit_code)


@contextmanager
def _stopping() -> Iterator[Stopping]:
    """Note signals; one that comes while nothing is trained yet, or no longer, ends the verb."""
    try:
        with Stopping(partial(leave_at_once, goes_on="the same command")) as stopping:
            yield stopping
    except Stop as stop:
        raise Interrupted(
            f"stopped by {stop.name}. The same command goes on.", 128 + stop.number
        ) from None


def _executor(
    cluster: str | None,
    jobs: int | None,
    threads: int,
    stopping: Stopping,
    most: int | None = None,
) -> Any:
    """Return where runs are made: on a cluster, or on this machine by so many processes.

    `most` is how many runs there are in all, where that is known.
    """
    if cluster is None:
        from whit.workers import LocalExecutor

        many = jobs or max(1, (os.cpu_count() or 1) // threads)
        return LocalExecutor(min(many, most or many), threads, say_aside)
    if jobs is not None:
        raise InputError(
            "--jobs: a cluster has as many as its workers have threads: leave it away."
        )

    need("cluster", "distributed")
    from whit.cluster import Cluster

    with stopping.at_once():  # a scheduler may never answer
        return Cluster(cluster, say_aside)
