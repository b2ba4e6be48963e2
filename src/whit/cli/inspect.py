"""Read-only commands: recipes, plans, audits, runs, comparisons, data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whit.cli import options
from whit.errors import InputError
from whit.recipes.recipe import Recipe
from whit.runs.input_paths import load_local_recipe
from whit.system.console import (
    echo,
    make_console,
    report_stages,
    show,
    stdout_to_stderr,
    write,
)
from whit.system.processor.collector import pause_gc
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
    from whit.recipes.recipe import builtin_recipes

    if keys and recipe is not None:
        raise InputError("--keys lists the keys of all recipes: omit RECIPE.")
    if keys:
        from whit.models.key_tables import recipe_key_tables
        from whit.recipes.key_reference import key_reference_json, key_reference_text

        tables = recipe_key_tables()
        show(key_reference_json(tables), lambda width: key_reference_text(tables, width), as_json)
    elif recipe is not None:
        loaded = options.load_recipe_with_overrides(recipe, None)
        text = builtin_recipes().get(recipe) or loaded.to_toml()
        show(
            loaded.model_dump(mode="json", exclude_none=True), lambda width: text.rstrip(), as_json
        )
    else:
        rows = recipe_rows()
        show(rows, lambda width: recipe_table(rows, width), as_json)


def plan(
    target: options.Target,
    recipe: options.BaseRecipe = None,
    set_: options.Overrides = None,
    run_whole_file: options.RunWholeFile = False,
    as_json: options.AsJson = False,
) -> None:
    """Show layers, training steps and predicted verdict; reads no data."""
    loaded = options.load_recipe_with_overrides(target, set_, recipe, run_whole_file)
    with stdout_to_stderr(as_json), report_stages():
        with pause_gc():
            from whit.training.plan import make_plan

        result = make_plan(loaded)
    show(result.to_json(), result.table, as_json)
    options.exit_with_verdict(result.verdict)


def audit(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="Run folder, recipe, file.py:Class, notebook.ipynb:Class, .safetensors file, or a "
            "folder of these.",
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
    run_whole_file: options.RunWholeFile = False,
    trust_model_files: options.TrustModelFiles = False,
    as_json: options.AsJson = False,
) -> None:
    """Recompute everything from the weights; ignores stored results.

    A folder stands for the runs, recipes, .py and .ipynb files in it and in its subfolders.
    """
    choices: dict[str, Any] = {
        "changes": set_ or [],
        "run_whole_file": run_whole_file,
        "trust_model_files": trust_model_files,
    }
    loaded = None if recipe is None else load_local_recipe(recipe)
    with stdout_to_stderr(as_json), report_stages(as_json=as_json) as on_stage:
        with pause_gc():
            from whit.verification import audit_batch
            from whit.verification.verify import audit

        is_batch = audit_batch.is_batch(targets)
        if not is_batch:
            result = audit(targets[0], loaded, on_stage=on_stage, **choices)
    if not is_batch:
        show({"target": targets[0], **result.to_json()}, result.table, as_json)
        options.exit_with_verdict(result.verdict)
        return
    _audit_batch(targets, loaded, choices, as_json)


def _audit_batch(
    targets: list[str], recipe: Recipe | None, choices: dict[str, Any], as_json: bool
) -> None:
    from whit.verification import audit_batch

    if (recipe or choices["changes"]) and not any(map(audit_batch.takes_recipe, targets)):
        raise InputError("--recipe, --set: each of the targets has its own recipe: omit them.")
    expanded, skipped = audit_batch.expand_targets(targets, with_weights=recipe is not None)
    if expanded == targets and len(targets) == 1:
        raise InputError(next(audit_batch.audit_targets(targets)).problems)
    width = make_console().width
    audits = []
    with stdout_to_stderr(as_json):
        for each in audit_batch.audit_targets(expanded, recipe, **choices):
            audits.append(each)
            if each.result is None:
                echo("\n".join(f"whit: {problem}" for problem in each.problems), sys.stderr)
            elif not as_json:
                title = f"{each.target} ({len(audits)} of {len(expanded)})"
                table = each.result.table(width)
                write(f"{title}\n{'=' * len(title)}\n{table}\n", sys.stdout)
    show(
        [each.to_json() for each in audits],
        lambda width: audit_batch.summary_table(audits, skipped, width),
        as_json,
    )
    if code := audit_batch.exit_code(audits):
        raise typer.Exit(code)


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
    """Compare runs, with significance tests.

    In a folder of runs, those of each recipe are compared as one group.
    """
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
