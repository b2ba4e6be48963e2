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
    Overrides,
    Quiet,
    Threads,
    catch_signals,
    collect_errors,
    load_recipe_with_overrides,
    open_executor,
    parse_int,
    parse_positive_int,
)
from whit.errors import RunFailed
from whit.system.console import make_console, show, stdout_to_stderr


def study(
    recipes: Annotated[
        list[str], typer.Argument(metavar="RECIPE...", help="Shipped names, or paths.")
    ],
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="N", help="How many seeds of each, from 0 on.")
    ],
    set_: Overrides = None,
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
    from whit.training.device import resolve_device, resolve_threads

    loaded, num_seeds, num_threads, num_jobs, _ = collect_errors(
        lambda: collect_errors(
            *(partial(load_recipe_with_overrides, name, set_) for name in recipes)
        ),
        lambda: parse_positive_int("--seeds", seeds, 10_000),
        lambda: resolve_threads(parse_int("--threads", threads)),
        lambda: None if jobs is None else parse_positive_int("--jobs", jobs, 1_000),
        lambda: None if device is None else resolve_device(device),
    )
    with stdout_to_stderr(as_json):
        arms = plan_variants(loaded, out)
    with (
        stdout_to_stderr(as_json),
        catch_signals() as signals,
        open_executor(cluster, num_jobs, num_threads, signals, num_seeds * len(arms)) as executor,
    ):
        result = run_study(
            arms,
            range(num_seeds),
            executor,
            threads=num_threads,
            device=device or "cpu",
            accept_changes=accept_changes,
            command=sys.argv[1:],
            callback=make_study_callback(make_console(), quiet or as_json),
            signals=signals,
        )
    show(result.to_json(), result.table, as_json)
    if result.failures:
        raise typer.Exit(RunFailed.exit_code)
