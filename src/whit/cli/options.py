"""Options that several commands share, and the checks of their values, all at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Annotated, Any

import typer

from whit.errors import InputError
from whit.recipes.budget import BudgetInfeasible
from whit.recipes.recipe import DEFAULT_RECIPE, Recipe, builtin_recipes
from whit.system import signals
from whit.system.console import exit_immediately, show
from whit.system.signals import SignalHandler


def complete_recipe(incomplete: str) -> list[str]:
    """Return the built-in recipes that start with `incomplete`, for shell completion."""
    return [name for name in builtin_recipes() if name.startswith(incomplete)]


Target = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="Built-in recipe, .toml file, or your model: file.py:Class, notebook.ipynb:Class.",
        autocompletion=complete_recipe,
    ),
]
BaseRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help=f"Recipe used to train a model file.  [default: {DEFAULT_RECIPE}]",
        autocompletion=complete_recipe,
    ),
]
OverBudget = Annotated[
    bool,
    typer.Option("--over-budget", help="Train even if the budget cannot be met."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a recipe key; repeatable, saved with the run."
    ),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N.  [default: cpu]")
]
Jobs = Annotated[
    str | None,
    typer.Option(metavar="N", help="Number of runs in parallel.  [default: free cores / threads]"),
]
Threads = Annotated[str, typer.Option(metavar="N", help="Processor threads per run.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Run on the workers of a dask scheduler.  [default: this machine]"
    ),
]
RunWholeFile = Annotated[
    bool,
    typer.Option(
        "--run-whole-file",
        help="Execute all of a model's file, not only what its class depends on.",
    ),
]
TrustModelFiles = Annotated[
    bool,
    typer.Option(
        "--trust-model-files",
        help="Execute a run's copy of the model's source where the file is missing or changed.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the result only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else.")]

# Longer numbers take Python long to parse, and no option allows them.
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_FIRST_TO_LAST = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_MAX_SEEDS = 10_000  # of a study


def load_recipe_with_overrides(
    target: str,
    changes: list[str] | None,
    recipe: str | None = None,
    run_whole_file: bool = False,
) -> Recipe:
    """Return the recipe, or that of a model file, with its `--set` changes. Raises InputError."""
    from whit.training.target import load_target

    return load_target(target, recipe, changes or [], run_whole_file=run_whole_file)


def parse_seed(text: str) -> int:
    seed = parse_int("--seed", text)
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed}: allowed: 0 to {2**63 - 1}.")
    return seed


def parse_seeds(text: str) -> range:
    """Return the seeds of a study: `10` is 0 to 9, `1000-1009` is those ten."""
    match = _FIRST_TO_LAST.fullmatch(text)
    if not match:
        return range(parse_positive_int("--seeds", text, _MAX_SEEDS))
    first, last = int(match[1]), int(match[2])
    if not first <= last < 2**63 or last - first >= _MAX_SEEDS:
        raise InputError(
            f"--seeds {text}: allowed: the first and the last of at most {_MAX_SEEDS:,} seeds, "
            f"from 0 to {2**63 - 1}."
        )
    return range(first, last + 1)


def parse_positive_int(option: str, text: str, maximum: int) -> int:
    number = parse_int(option, text)
    if not 1 <= number <= maximum:
        raise InputError(f"{option} {number}: allowed: 1 to {maximum:,}.")
    return number


def parse_int(option: str, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        start = text if len(text) <= 30 else f"{text[:27]}..."
        raise InputError(f"{option} {start}: expected an integer of at most 20 digits.")
    return int(text)


def collect_errors(*checks: Callable[[], Any]) -> list[Any]:
    """Return what every check returns, or raise all their errors at once."""
    values: list[Any] = []
    problems: list[str] = []
    for check in checks:
        try:
            values.append(check())
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(list(dict.fromkeys(problems)))  # recipes may share a problem
    return values


def exit_with_verdict(verdict: str) -> None:
    """Exit with code 1 when the budget is missed."""
    if verdict == "missed":
        raise typer.Exit(1)


@contextmanager
def infeasible_as_json(as_json: bool) -> Iterator[None]:
    """With --json, print also what is refused before training."""
    try:
        yield
    except BudgetInfeasible as refused:
        if as_json:
            violations = [violation.to_json() for violation in refused.violations]
            show({"verdict": "missed", "violations": violations}, str, as_json)
        raise


def catch_signals() -> AbstractContextManager[SignalHandler]:
    """Record signals; a signal outside of training ends the command."""
    on_second_signal = partial(exit_immediately, resume_hint="the same command")
    return signals.catch_signals("Run the same command to resume.", on_second_signal)
