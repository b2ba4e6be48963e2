"""The command line: one small function a verb. torch is imported inside the verbs that need it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from whit.errors import BudgetRefused, InputError, WhitError
from whit.recipe import FLAGSHIP, Recipe, load_recipe

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train image classifiers that keep a budget of parameters, epochs and accuracy.",
    epilog="Exit codes: 0 budget met or work done, 1 budget missed, 2 bad input, "
    "3 the run failed, 130 interrupted.",
)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped name, or a path.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe; saved with the run."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else.")]


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the shipped recipes with parameters, epochs and recorded accuracy."""
    from whit.listing import recipe_rows, recipe_table

    rows = recipe_rows()
    _show(rows, lambda width: recipe_table(rows, width), as_json)


@app.command()
def plan(recipe: RecipeName, set_: Sets = None, as_json: AsJson = False) -> None:
    """Show a recipe's layers, steps and predicted verdict; reads no data."""
    changed = _recipe(recipe, set_)
    from whit.planning import plan as make_plan

    made = make_plan(changed)
    _show(made.to_json(), made.table, as_json)
    _exit_by(made.verdict)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="[RECIPE]", help="A shipped name, or a path.")
    ] = FLAGSHIP,
    set_: Sets = None,
    seed: Annotated[int, typer.Option(help="Decides weights, order, warps and dropout.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to make; by default one under runs/.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(help="Processor threads; by default one a core.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the verdict only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe, judge it, and leave a run folder."""
    changed = _recipe(recipe, set_)
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed}: allowed are 0 to {2**63 - 1}.")
    if out is not None and out.exists():
        raise InputError(f"--out {out}: already there, and a run never overwrites.")
    from whit.environment import choose_device, choose_threads
    from whit.planning import plan as make_plan
    from whit.progress import watch_on
    from whit.run import run

    _all_problems(lambda: choose_device(device), lambda: choose_threads(threads))
    result = run(
        make_plan(changed),
        seed=seed,
        out=out,
        device=device,
        threads=threads,
        watch=watch_on(_console(), quiet or as_json),
    )
    _show(result.to_json(), lambda width: str(result), as_json)
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
        str | None, typer.Option(help="Data, model sizes and budget to judge by.")
    ] = None,
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Recompute layers and verdict from what is there, believing no record."""
    if set_ and recipe is None:
        raise InputError("--set changes a recipe: add --recipe RECIPE.")
    given = None if recipe is None else _recipe(recipe, set_)
    from whit.judge import judge

    judgement = judge(target, given)
    _show(judgement.to_json(), judgement.table, as_json)
    _exit_by(judgement.verdict)


@app.command()
def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[FOLDER]...", help="By default runs/.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List run folders."""
    from whit.listing import run_rows, run_table

    rows = run_rows(folders or [Path("runs")])
    _show(rows, lambda width: run_table(rows, width), as_json)


@app.command()
def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="A B...", help="Run folders, or folders of runs.")
    ],
    as_json: AsJson = False,
) -> None:
    """Set runs side by side, with the evidence for a difference."""
    from whit.comparison import compare_runs

    compared = compare_runs(folders)
    _show(compared.to_json(), compared.table, as_json)


@app.command()
def data(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="A shipped data set, or a path.")
    ] = "mnist",
    as_json: AsJson = False,
) -> None:
    """Load and verify a data set, and say what is in it."""
    from whit.data.datasets import load_dataset
    from whit.listing import dataset_facts, facts_table

    facts = dataset_facts(load_dataset(name))
    _show(facts, lambda width: facts_table(facts), as_json)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"whit {installed('whit')}")
        raise typer.Exit


def _recipe(name: str, changes: list[str] | None) -> Recipe:
    return load_recipe(name).changed(changes or [])


def _all_problems(*checks: Callable[[], object]) -> None:
    """Run every check, then raise all that was wrong at once."""
    problems: list[str] = []
    for check in checks:
        try:
            check()
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def _console() -> Console:
    # A pipe has no width: tables there are as wide as they are on a usual terminal.
    return Console() if sys.stdout.isatty() else Console(width=100)


def _show(value: Any, table: Callable[[int], str], as_json: bool) -> None:
    typer.echo(json.dumps(value, indent=2) if as_json else table(_console().width))


def _exit_by(verdict: str) -> None:
    if verdict == "missed":
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; every error meant for users becomes one message and an exit code."""
    try:
        app()
    except BudgetRefused as error:
        print("whit: refused before training; the budget cannot be kept:", file=sys.stderr)
        for violation in error.violations:
            print(f"  - {violation.message}", file=sys.stderr)
        sys.exit(error.exit_code)
    except InputError as error:
        for problem in error.problems:
            print(f"whit: {problem}", file=sys.stderr)
        sys.exit(error.exit_code)
    except WhitError as error:
        print(f"whit: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of a pipe has gone, as `whit plan sprint | head` does.
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
