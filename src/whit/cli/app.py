"""The command line: torch is imported inside the commands that need it."""

from __future__ import annotations

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
from whit.errors import InputError, RunFailed, WhitError
from whit.recipes.budget import BudgetInfeasible
from whit.recipes.model_ref import USER_MODULE
from whit.system.console import echo
from whit.system.signals import is_hangup, received, stop_signals
from whit.system.standard_streams import ProtectedWriter, Protection, protect

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train image classifiers within a budget of parameters, epochs and accuracy.",
    epilog="Exit codes: 0 budget met, or done; 1 budget missed; 2 bad input; 3 the run failed; "
    "130, 143 or 129 interrupted.",
)
for _command in (
    *(recipes, plan, train, audit, runs, compare, study, search),
    *(report, export, serve, data),
):
    app.command()(_command)

# What they do is more than what they print, so it continues when nothing can be printed.
_WORKING = {command.__name__ for command in (train, study, search, report, export, serve)}
_MACHINE_READABLE = {"--json", "--csv"}


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
        received.append(number)
        if is_hangup(number):
            signal.signal(number, signal.SIG_IGN)  # it may come twice
        raise _Stopped(number)

    received.clear()
    before = {number: signal.signal(number, stop) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if not (is_hangup(number) and number in received):  # the second one may come later
                signal.signal(number, handler)
        received.clear()


def main() -> int:
    """Run the command line; errors meant for users become one message and an exit code."""
    with protect(_describe_loss) as streams:
        try:
            with _stop_on_signals():
                code = _run()
        except _Stopped as stopped:
            (number,) = stopped.args
            echo(f"whit: stopped by {signal.Signals(number).name}.", sys.stderr)
            code = 128 + number
        sys.stdout.flush()
        return _code_of_output(code, streams)


def has_run_user_code() -> bool:
    """Whether a user's model was executed: its file may leave work to the end of Python."""
    return any(name.startswith(USER_MODULE) for name in sys.modules)


def _is_working() -> bool:
    """Whether the command does more than print."""
    commands = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    return commands[:1] != [] and commands[0] in _WORKING and not {"-h", "--help"} & set(sys.argv)


def _describe_loss(lost: ProtectedWriter) -> str | None:
    """Return what is printed on the other stream where one can no longer be written."""
    if lost.descriptor == 2 and _MACHINE_READABLE & set(sys.argv):
        return None  # standard output has one JSON value and nothing else
    if _is_working():
        return f"{lost.loss}: the work continues without it."
    return f"{lost.loss}." if lost.descriptor == 2 else None


def _code_of_output(code: int, streams: Protection) -> int:
    """Return the exit code, which is another one where the command's only work was lost."""
    if code > 1 or _is_working() or not streams.output.has_failed:
        return code
    echo(f"whit: {streams.output.loss}: the output is incomplete.", sys.stderr)
    return RunFailed.exit_code


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
        if received:  # what was interrupted, such as an import, is not complete
            raise _Stopped(received[0]) from None
        # Unexpected, so its traceback is shown; exit code 1 would mean "budget missed".
        advice = "Unless it ends in your own model, please report it as a bug in whit."
        echo(f"{traceback.format_exc()}whit: failed with the error above. {advice}", sys.stderr)
        return WhitError.exit_code
