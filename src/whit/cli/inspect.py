"""Commands that only read: recipes, plans, audits, runs, comparisons, data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whit.cli import options
from whit.errors import InputError
from whit.system.console import echo, show, stdout_to_stderr
from whit.system.text_tables import text_table

if TYPE_CHECKING:
    from whit.data.splits import Dataset


def recipes(as_json: options.AsJson = False) -> None:
    """List the shipped recipes, their sizes and recorded accuracy."""
    from whit.recipes.listing import recipe_rows, recipe_table

    rows = recipe_rows()
    show(rows, lambda width: recipe_table(rows, width), as_json)


def plan(
    recipe: options.RecipeName, set_: options.Overrides = None, as_json: options.AsJson = False
) -> None:
    """Show a recipe's layers, steps and predicted verdict. Reads no data."""
    loaded = options.load_recipe_with_overrides(recipe, set_)
    from whit.training.plan import make_plan

    with stdout_to_stderr(as_json):
        result = make_plan(loaded)
    show(result.to_json(), result.table, as_json)
    options.exit_with_verdict(result.verdict)


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
    set_: options.Overrides = None,
    as_json: options.AsJson = False,
) -> None:
    """Recompute layers and verdict. Believes no record."""
    if set_ and recipe is None:
        raise InputError("--set changes a recipe: add --recipe RECIPE.")
    loaded = None if recipe is None else options.load_recipe_with_overrides(recipe, set_)
    from whit.verification.verify import audit

    with stdout_to_stderr(as_json):
        result = audit(target, loaded)
    show(result.to_json(), result.table, as_json)
    options.exit_with_verdict(result.verdict)


def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER", help="By default runs/.")
    ] = None,
    as_json: options.AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV and nothing else, with the columns of --json.")
    ] = False,
) -> None:
    """List run folders."""
    from whit.runs.listing import rows_csv, run_rows, run_table

    if as_json and as_csv:
        raise InputError("--json and --csv: give one of them.")
    rows = run_rows(folders or [Path("runs")])
    if as_csv:
        echo(rows_csv(rows), sys.stdout, end="")
        return
    show(rows, lambda width: run_table(rows, width), as_json)


def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders, or folders of runs.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Set runs side by side, with the evidence for a difference."""
    from whit.experiments.comparison import compare_runs

    comparison = compare_runs(folders)
    show(comparison.to_json(), comparison.table, as_json)


def data(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A shipped data set, or a path.")
    ] = "mnist",
    as_json: options.AsJson = False,
) -> None:
    """Load and verify a data set, and say what is in it."""
    from whit.data.datasets import load_dataset

    facts = dataset_facts(load_dataset(name))
    show(facts, lambda width: facts_table(facts, width), as_json)


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """Return what a data set holds; it was verified when it was loaded."""
    return {
        "name": dataset.name,
        "source": dataset.source,
        "image_shape": list(dataset.image_shape),
        "classes": list(dataset.classes),
        "train": len(dataset.train),
        "val": len(dataset.val) if dataset.val else 0,
        "test": len(dataset.test),
        "test_images_in_train": dataset.overlap,
        "fingerprint": dataset.fingerprint,
    }


def facts_table(facts: dict[str, Any], width: int) -> str:
    rows = [("fact", "value")]
    for name, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append((name, text))
    return text_table(rows, "lL", width)
