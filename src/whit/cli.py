"""The command line: one small function a verb. torch is imported inside the verbs that need it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from whit.console import alone, console, leave_at_once, say, show
from whit.errors import BudgetRefused, InputError, RunEnded, RunFailed, WhitError
from whit.recipe import FLAGSHIP, Recipe, load_recipe
from whit.text_table import wrapped

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train image classifiers that keep a budget of parameters, epochs and accuracy.",
    epilog="Exit codes: 0 budget met or work done, 1 budget missed, 2 bad input, "
    "3 the run failed, 130 or 143 stopped.",
)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped name, or a path.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe; saved with the run."),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="A dask scheduler, whose workers train; else this machine."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else.")]

# Numbers of more digits cost Python more than a moment, and are none that whit allows.
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the shipped recipes, their sizes and recorded accuracy."""
    from whit.listing import recipe_rows, recipe_table

    rows = recipe_rows()
    show(rows, lambda width: recipe_table(rows, width), as_json)


@app.command()
def plan(recipe: RecipeName, set_: Sets = None, as_json: AsJson = False) -> None:
    """Show a recipe's layers, steps and predicted verdict. Reads no data."""
    changed = _recipe(recipe, set_)
    from whit.planning import plan as make_plan

    with alone(as_json):
        made = make_plan(changed)
    show(made.to_json(), made.table, as_json)
    _exit_by(made.verdict)


@app.command()
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="[RECIPE]", help=f"A shipped name, or a path; else {FLAGSHIP}."),
    ] = None,
    set_: Sets = None,
    seed: Annotated[
        str | None,
        typer.Option(metavar="N", help="Decides weights, order, warps and dropout; else 0."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Run folder to make; by default one under runs/."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N; else cpu.")
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N", help="Processor threads; by default one a core."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with a run that was stopped or killed."),
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes", help="Resume under other threads, code, data; the result says so."
        ),
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Resume a run that another machine did not give back."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the verdict only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe or resume a run, judge it, and leave a run folder."""
    from whit.environment import choose_device, choose_threads
    from whit.planning import plan as make_plan
    from whit.progress import watch_on
    from whit.run import resume as go_on
    from whit.run import run
    from whit.run_folder import RunFolder

    def chosen_threads() -> int | None:
        return None if threads is None else choose_threads(_whole_number("--threads", threads))

    def chosen_recipe() -> Recipe | None:
        if resume is None:
            return _recipe(recipe or FLAGSHIP, set_)
        _only_without_resume(
            {"RECIPE": recipe, "--set": set_ or None, "--seed": seed, "--out": out}
        )
        return None

    changed, number, count, _, _, _ = _all_of(
        chosen_recipe,
        lambda: 0 if seed is None else _seed(seed),
        chosen_threads,
        lambda: None if device is None else choose_device(device),
        lambda: None if out is None or resume is not None else RunFolder.refuse(out),
        lambda: _only_with_resume(
            resume, {"--accept-changes": accept_changes, "--take-over": take_over}
        ),
    )
    watch = watch_on(console(), quiet or as_json)
    try:
        with alone(as_json):
            if changed is None:
                assert resume is not None
                result = go_on(
                    resume,
                    device=device,
                    threads=count,
                    accept_changes=accept_changes,
                    take_over=take_over,
                    watch=watch,
                    on_second_signal=leave_at_once,
                )
            else:
                result = run(
                    make_plan(changed),
                    seed=number,
                    out=out,
                    device=device or "cpu",
                    threads=count,
                    watch=watch,
                    on_second_signal=leave_at_once,
                )
    except BudgetRefused as refused:
        if as_json:
            violations = [violation.to_json() for violation in refused.violations]
            show({"verdict": "missed", "violations": violations}, str, as_json)
        raise
    except RunEnded as ended:
        if ended.result["state"] != "finished":
            raise RunFailed(str(ended)) from None
        said = str(ended)
        show(ended.result, lambda width: wrapped(said, width), as_json)
        _exit_by(ended.result["verdict"])
        return
    assert result.folder is not None
    whole = json.loads((result.folder / "result.json").read_text(encoding="utf-8"))
    show(whole, result.text, as_json)
    _exit_by(result.verdict)


@app.command()
def audit(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A run folder, recipe, file.py:Class, notebook.ipynb:Class or .safetensors.",
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(metavar="RECIPE", help="Data, model sizes and budget to judge by."),
    ] = None,
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Recompute layers and verdict. Believes no record."""
    if set_ and recipe is None:
        raise InputError("--set changes a recipe: add --recipe RECIPE.")
    given = None if recipe is None else _recipe(recipe, set_)
    from whit.judge import judge

    with alone(as_json):
        judgement = judge(target, given)
    show(judgement.to_json(), judgement.table, as_json)
    _exit_by(judgement.verdict)


@app.command()
def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER", help="By default runs/.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List run folders."""
    from whit.listing import run_rows, run_table

    rows = run_rows(folders or [Path("runs")])
    show(rows, lambda width: run_table(rows, width), as_json)


@app.command()
def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders, or folders of runs.")
    ],
    as_json: AsJson = False,
) -> None:
    """Set runs side by side, with the evidence for a difference."""
    from whit.comparison import compare_runs

    compared = compare_runs(folders)
    show(compared.to_json(), compared.table, as_json)


@app.command()
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
    jobs: Annotated[
        str | None,
        typer.Option(metavar="N", help="Seeds at the same time; by default as the cores allow."),
    ] = None,
    threads: Annotated[str, typer.Option(metavar="N", help="Processor threads of each.")] = "1",
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N; else cpu.")
    ] = None,
    cluster: Cluster = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes", help="Go on with unfinished seeds under other code or data."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train recipes over seeds, in parallel, and weigh what they show.

    Finished seeds are never trained again: the same command goes on where it stopped.
    """
    from whit.environment import choose_device, choose_threads
    from whit.stopping import Stopping
    from whit.study_progress import onlooker_on
    from whit.studying import study as make_study
    from whit.studying import variants_of

    made, count, each, many, _ = _all_of(
        lambda: [_recipe(name, set_) for name in recipes],
        lambda: _at_least_one("--seeds", seeds, 10_000),
        lambda: choose_threads(_whole_number("--threads", threads)),
        lambda: None if jobs is None else _at_least_one("--jobs", jobs, 1_000),
        lambda: None if device is None else choose_device(device),
    )
    with alone(as_json):
        variants = variants_of(made, out)
    with (
        alone(as_json),
        Stopping(leave_at_once) as stopping,
        _executor(cluster, many, each) as workers,
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


@app.command()
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
    jobs: Annotated[
        str | None,
        typer.Option(metavar="N", help="Candidates at the same time; else as the cores allow."),
    ] = None,
    threads: Annotated[str, typer.Option(metavar="N", help="Processor threads of each.")] = "1",
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N; else cpu.")
    ] = None,
    seed: Annotated[str, typer.Option(metavar="N", help="Decides what is suggested first.")] = "0",
    cluster: Cluster = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A PostgreSQL database, for several drivers at once."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find recipes on the validation split, and keep the frontier.

    Stopped at any time, the same command goes on; more --trials go further.
    """
    from whit.environment import choose_device, choose_threads
    from whit.needed import need
    from whit.space import load_space

    need("search", "optuna", "matplotlib")
    if storage is not None:
        need("cluster", "psycopg")
    from whit.ledger import masked, refuse_address

    made, many, each, count, number, _, _ = _all_of(
        lambda: load_space(space),
        lambda: None if jobs is None else _at_least_one("--jobs", jobs, 1_000),
        lambda: choose_threads(_whole_number("--threads", threads)),
        lambda: _at_least_one("--trials", trials, 1_000_000),
        lambda: _seed(seed),
        lambda: None if device is None else choose_device(device),
        lambda: None if storage is None else refuse_address(storage),
    )
    from whit.search import Driver
    from whit.search_progress import search_onlooker_on
    from whit.stopping import Stopping

    with (
        alone(as_json),
        Stopping(leave_at_once) as stopping,
        _executor(cluster, many, each) as workers,
        search_onlooker_on(console(), quiet or as_json) as onlooker,
        Driver(
            made,
            out,
            workers,
            storage=storage,
            seed=number % 2**32,
            threads=each,
            device=device or "cpu",
            command=[masked(argument) for argument in sys.argv[1:]],
            onlooker=onlooker,
            stopping=stopping,
        ) as driver,
    ):
        found = driver.go(count)
    show(found.to_json(), found.table, as_json)
    if found.failures:
        raise typer.Exit(RunFailed.exit_code)


@app.command()
def data(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A shipped data set, or a path.")
    ] = "mnist",
    as_json: AsJson = False,
) -> None:
    """Load and verify a data set, and say what is in it."""
    from whit.data.datasets import load_dataset
    from whit.listing import dataset_facts, facts_table

    facts = dataset_facts(load_dataset(name))
    show(facts, lambda width: facts_table(facts, width), as_json)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"whit {installed('whit')}")
        raise typer.Exit


def _executor(cluster: str | None, jobs: int | None, threads: int) -> Any:
    """Return where runs are made: on a cluster, or on this machine by so many processes."""
    if cluster is None:
        from whit.workers import Workers

        return Workers(jobs or max(1, (os.cpu_count() or 1) // threads), threads)
    if jobs is not None:
        raise InputError(
            "--jobs: a cluster has as many as its workers have threads: leave it away."
        )
    from whit.needed import need

    need("cluster", "distributed")
    from whit.cluster import Cluster

    return Cluster(cluster, lambda said: say(f"whit: {said}", sys.stderr))


def _recipe(name: str, changes: list[str] | None) -> Recipe:
    return load_recipe(name).changed(changes or [])


def _only_without_resume(given: dict[str, object]) -> None:
    problems = [
        f"{name}: a run that is resumed has its own: leave it away."
        for name, value in given.items()
        if value is not None
    ]
    if problems:
        raise InputError(problems)


def _only_with_resume(resume: Path | None, given: dict[str, bool]) -> None:
    problems = [f"{name}: only with --resume RUN." for name, value in given.items() if value]
    if problems and resume is None:
        raise InputError(problems)


def _seed(text: str) -> int:
    seed = _whole_number("--seed", text)
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed}: allowed are 0 to {2**63 - 1}.")
    return seed


def _at_least_one(option: str, text: str, most: int) -> int:
    number = _whole_number(option, text)
    if not 1 <= number <= most:
        raise InputError(f"{option} {number}: allowed are 1 to {most:,}.")
    return number


def _whole_number(option: str, text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        shown = text if len(text) <= 30 else f"{text[:27]}..."
        raise InputError(f"{option} {shown}: wanted a whole number of at most 20 digits.")
    return int(text)


def _all_of(*checks: Callable[[], Any]) -> list[Any]:
    """Return what every check returns, or raise all that was wrong at once."""
    found: list[Any] = []
    problems: list[str] = []
    for check in checks:
        try:
            found.append(check())
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return found


def _exit_by(verdict: str) -> None:
    if verdict == "missed":
        raise typer.Exit(1)


class _Stopped(BaseException):
    """A signal outside a run; no `except Exception` of a user's model holds it up."""


@contextmanager
def _signals_stop() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stopped(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Run the command line; every error meant for users becomes one message and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a terminal's character set lacks, such as ×, is no reason to fail.
        sys.stdout.reconfigure(errors="replace")
    try:
        with _signals_stop():
            sys.exit(_run())
    except _Stopped as stopped:
        (number,) = stopped.args
        say(f"whit: stopped by {signal.Signals(number).name}.", sys.stderr)
        sys.exit(128 + number)


def _run() -> int:
    try:
        app(prog_name="whit")  # also as `python -m whit`
    except BudgetRefused as error:
        lines = ["refused before training; the budget cannot be kept:"]
        lines += [f"  - {violation.message}" for violation in error.violations]
        say("whit: " + "\n".join(lines), sys.stderr)
        return error.exit_code
    except InputError as error:
        say("\n".join(f"whit: {problem}" for problem in error.problems), sys.stderr)
        return error.exit_code
    except WhitError as error:
        say(f"whit: {error}", sys.stderr)
        return error.exit_code
    except Exception:
        # Nobody foresaw it, so its lines are shown; exit code 1 would say "budget missed".
        advice = "If they do not end in your own model, it is a fault of whit: please report it."
        say(f"{traceback.format_exc()}whit: failed as the lines above say. {advice}", sys.stderr)
        return WhitError.exit_code
    return 0
