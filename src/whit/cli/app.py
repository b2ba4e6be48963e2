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
from typer.exceptions import TyperException

from whit.cli.export import export
from whit.cli.inspect import audit, compare, data, plan, recipes, runs
from whit.cli.report import report
from whit.cli.search import search
from whit.cli.serve import serve
from whit.cli.study import study
from whit.cli.train import train
from whit.cli.usage import report_usage_error
from whit.errors import InputError, WhitError
from whit.recipes.budget import BudgetInfeasible
from whit.system.console import echo

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train image classifiers within a budget of parameters, epochs and accuracy.",
    epilog="Exit codes: 0 budget met, or done; 1 budget missed; 2 bad input; 3 the run failed; "
    "130 or 143 interrupted.",
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


_COMPLETION = {"--install-completion", "--show-completion"}


class _Stopped(BaseException):
    """A signal outside a run; an `except Exception` in a user's model does not catch it."""


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
    """Run the command line; errors meant for users become one message and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal cannot show, such as ×, must not raise an error.
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
        code = app(prog_name="whit", standalone_mode=False)  # also as `python -m whit`
        if code == 1 and _COMPLETION & set(sys.argv[1:]):
            return InputError.exit_code  # an unknown shell; 1 would mean "budget missed"
        return code if isinstance(code, int) else 0
    except TyperException as error:
        return report_usage_error(error, sys.argv[1:])
    except BudgetInfeasible as error:
        lines = ["refused before training: the budget cannot be met."]
        lines += [f"  - {violation.message}" for violation in error.violations]
        lines.append("Change the recipe or its budget, or add --over-budget to train it anyway.")
        echo("whit: " + "\n".join(lines), sys.stderr)
        return error.exit_code
    except WhitError as error:
        problems = error.problems if isinstance(error, InputError) else [error]
        echo("\n".join(f"whit: {problem}" for problem in problems), sys.stderr)
        return error.exit_code
    except Exception:
        # Unexpected, so its traceback is shown; exit code 1 would mean "budget missed".
        advice = "Unless it ends in your own model, please report it as a bug in whit."
        echo(f"{traceback.format_exc()}whit: failed with the error above. {advice}", sys.stderr)
        return WhitError.exit_code
