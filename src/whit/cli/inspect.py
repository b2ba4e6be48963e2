"""Read-only commands: recipes, plans, audits, runs, comparisons, data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whit.cli import options
from whit.errors import InputError
from whit.system.console import report_stages, show, stdout_to_stderr, write
from whit.system.text_tables import text_table, wrap

if TYPE_CHECKING:
    from whit.data.splits import Dataset


def recipes(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="Print this recipe, to copy and modify.",
            autocompletion=options.complete_recipe,
        ),
    ] = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="Print the reference of all recipe keys.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """List the built-in recipes, or print one of them."""
    from whit.recipes.listing import recipe_rows, recipe_table
    from whit.recipes.recipe import builtin_recipes, load_recipe

    if keys and recipe is not None:
        raise InputError("--keys lists the keys of all recipes: omit RECIPE.")
    if keys:
        from whit.models.key_tables import recipe_key_tables
        from whit.recipes.key_reference import key_reference_json, key_reference_text

        tables = recipe_key_tables()
        show(key_reference_json(tables), lambda width: key_reference_text(tables, width), as_json)
    elif recipe is not None:
        loaded = load_recipe(recipe)
        text = builtin_recipes().get(recipe) or loaded.to_toml()
        show(
            loaded.model_dump(mode="json", exclude_none=True), lambda width: text.rstrip(), as_json
        )
    else:
        rows = recipe_rows()
        show(rows, lambda width: recipe_table(rows, width), as_json)


def plan(
    recipe: options.RecipeName, set_: options.Overrides = None, as_json: options.AsJson = False
) -> None:
    """Show layers, training steps and predicted verdict; reads no data."""
    loaded = options.load_recipe_with_overrides(recipe, set_)
    with stdout_to_stderr(as_json), report_stages():
        from whit.training.plan import make_plan

        result = make_plan(loaded)
    show(result.to_json(), result.table, as_json)
    options.exit_with_verdict(result.verdict)


def audit(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Run folder, recipe, file.py:Class, notebook.ipynb:Class or .safetensors file.",
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="Recipe with the data set, model arguments and budget.",
            autocompletion=options.complete_recipe,
        ),
    ] = None,
    set_: options.Overrides = None,
    as_json: options.AsJson = False,
) -> None:
    """Recompute everything from the weights; ignores stored results."""
    if set_ and recipe is None:
        raise InputError("--set overrides keys of a recipe: add --recipe RECIPE.")
    loaded = None if recipe is None else options.load_recipe_with_overrides(recipe, set_)
    from whit.verification.verify import audit

    with stdout_to_stderr(as_json), report_stages(as_json=as_json) as on_stage:
        result = audit(target, loaded, on_stage=on_stage)
    show({"target": target, **result.to_json()}, result.table, as_json)
    options.exit_with_verdict(result.verdict)


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Folders of runs.  [default: runs/]"),
    ] = None,
    as_json: options.AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV and nothing else, with the columns of --json.")
    ] = False,
) -> None:
    """List runs."""
    from whit.runs.listing import rows_csv, run_rows, run_table

    if as_json and as_csv:
        raise InputError("--json and --csv: give one of them.")
    rows = run_rows(folders or [Path("runs")])
    if as_csv:
        write(rows_csv(rows), sys.stdout, end="")
        return
    show(rows, lambda width: run_table(rows, width), as_json)


def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders, or folders of runs.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Compare runs, with significance tests."""
    with report_stages():
        from whit.experiments.comparison import compare_runs

        comparison = compare_runs(folders)
    show(comparison.to_json(), comparison.table, as_json)


def data(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Built-in data set, or a path.")
    ] = "mnist",
    as_json: options.AsJson = False,
) -> None:
    """Load and verify a data set, and describe it."""
    with report_stages():
        from whit.data.datasets import load_dataset

        facts = dataset_facts(load_dataset(name))
    show(facts, lambda width: facts_table(facts, width), as_json)


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """Describe a data set, which was verified when it was loaded."""
    return {
        "name": dataset.name,
        "source": dataset.source,
        "image_shape": list(dataset.image_shape),
        "classes": list(dataset.classes),
        "train": len(dataset.train),
        "val": len(dataset.val) if dataset.val else 0,
        "test": len(dataset.test),
        "duplicate_images": {split.name: split.num_duplicates for split in dataset.splits},
        "test_images_in_train": dataset.overlap,
        "fingerprint": dataset.fingerprint,
        "notes": list(dataset.notes),
    }


def facts_table(facts: dict[str, Any], width: int) -> str:
    """Return the facts as a table of at most `width` columns, and the notes below it."""
    rows = [("fact", "value")]
    for name, value in facts.items():
        if name == "notes":
            continue
        if isinstance(value, dict):
            value = [f"{key} {count}" for key, count in value.items()]
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append((name, text))
    notes = [wrap(f"Note: {note}.", width) for note in facts["notes"]]
    return "\n".join([text_table(rows, "lL", width), *notes])
