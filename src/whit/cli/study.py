"""Commands that train many runs: a study of seeds, a search for recipes."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from whit.cli.options import (
    AsJson,
    Cluster,
    Device,
    Jobs,
    Quiet,
    Sets,
    Threads,
    _executor,
    _stopping,
    all_of,
    at_least_one,
    recipe_named,
    whole_number,
)
from whit.errors import RunFailed
from whit.system.console import alone, console, show


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
    from whit.experiments.study import plan_variants, run_study
    from whit.experiments.study_progress import make_study_callback
    from whit.training.device import choose_device, choose_threads

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
