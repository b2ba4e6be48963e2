"""The command line: torch is imported inside the commands that need it."""

from __future__ import annotations

import io
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from types import FrameType
from typing import Annotated

import typer

from whit.cli.export import export
from whit.cli.inspect import audit, compare, data, plan, recipes, runs
from whit.cli.report import report
from whit.cli.search import search
from whit.cli.serve import serve
from whit.cli.study import study
from whit.cli.train import train
from whit.errors import InputError, WhitError
from whit.recipes.budget import BudgetInfeasible
from whit.system.console import echo

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train image classifiers that keep a budget of parameters, epochs and accuracy.",
    epilog="Exit codes: 0 budget met or work done, 1 budget missed, 2 bad input, "
    "3 the run failed, 130 or 143 stopped.",
)
for _command in (
    *(recipes, plan, train, audit, runs, compare, study, search),
    *(report, export, serve, data),
):
    app.command()(_command)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"whit {metadata.version('whit')}")
        raise typer.Exit


class _Stopped(BaseException):
    """A signal outside a run; no `except Exception` of a user's model holds it up."""


@contextmanager
def _stop_on_signals() -> Iterator[None]:
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
        with _stop_on_signals():
            sys.exit(_run())
    except _Stopped as stopped:
        (number,) = stopped.args
        echo(f"whit: stopped by {signal.Signals(number).name}.", sys.stderr)
        sys.exit(128 + number)


def _run() -> int:
    try:
        app(prog_name="whit")  # also as `python -m whit`
    except BudgetInfeasible as error:
        lines = ["refused before training; the budget cannot be kept:"]
        lines += [f"  - {violation.message}" for violation in error.violations]
        echo("whit: " + "\n".join(lines), sys.stderr)
        return error.exit_code
    except WhitError as error:
        problems = error.problems if isinstance(error, InputError) else [error]
        echo("\n".join(f"whit: {problem}" for problem in problems), sys.stderr)
        return error.exit_code
    except Exception:
        # Nobody foresaw it, so its lines are shown; exit code 1 would say "budget missed".
        advice = "If they do not end in your own model, it is a fault of whit: please report it."
        echo(f"{traceback.format_exc()}whit: failed as the lines above say. {advice}", sys.stderr)
        return WhitError.exit_code
    return 0
