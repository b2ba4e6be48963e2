"""What there is: recipes, runs and data sets, as rows and as tables."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from whit.budget import percent
from whit.errors import InputError
from whit.recipe import parse_recipe, shipped_recipes
from whit.run_record import find_runs, read_run
from whit.text_table import text_table

if TYPE_CHECKING:
    from whit.data.splits import Dataset


def recipe_rows() -> list[dict[str, Any]]:
    """Return one row a shipped recipe: its name, sizes, and the accuracy that records hold.

    `recorded.json` is written beside the recipes by records/reproduce.py, never by hand.
    """
    file = resources.files("whit") / "recipes" / "recorded.json"
    recorded = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    rows = []
    for name, text in shipped_recipes().items():
        recipe = parse_recipe(text, name)
        record = recorded.get(name, {})
        correct = record.get("correct", [])
        rows.append(
            {
                "name": name,
                "params": record.get("params"),
                "epochs": recipe.train.epochs,
                "accuracy": round(mean(correct) / 100, 3) if correct else None,
                "worst": min(correct) / 100 if correct else None,
                "seeds": len(correct),
                "description": recipe.description,
            }
        )
    return rows


def recipe_table(rows: list[dict[str, Any]], width: int) -> str:
    head = ("recipe", "params", "epochs", "mean %", "worst %", "seeds")
    body = [
        (
            row["name"],
            "?" if row["params"] is None else f"{row['params']:,}",
            str(row["epochs"]),
            "?" if row["accuracy"] is None else f"{row['accuracy']:.3f}",
            "?" if row["worst"] is None else f"{row['worst']:.2f}",
            str(row["seeds"]),
        )
        for row in rows
    ]
    return (
        text_table([head, *body], "Lrrrrr", width)
        + "\n\nTest accuracy after the last epoch, over the seeds in records/."
    )


def run_rows(roots: list[Path]) -> list[dict[str, Any]]:
    """Return one row a run folder at or under `roots`, unfinished and damaged ones included.

    Where none is, those one folder deeper, as the seeds of studies are.
    """
    missing = [root for root in roots if not os.path.isdir(root) and root != Path("runs")]
    if missing:
        said = {True: "not a folder", False: "no such folder"}
        raise InputError([f"{root}: {said[os.path.exists(root)]}." for root in missing])
    rows = []
    found = find_runs(roots)
    if not found:
        found = find_runs([p for root in roots if root.is_dir() for p in sorted(root.iterdir())])
    for path in found:
        row: dict[str, Any] = {"run": str(path), "recipe": None, "seed": None, "state": None}
        row |= {"params": None, "epochs": None, "correct": None, "total": None}
        try:
            run = read_run(path)
        except InputError:
            rows.append(row | {"state": "damaged", "verdict": None})
            continue
        result = run.result or {}
        test = result.get("test") or {}
        rows.append(
            row
            | {
                "recipe": run.recipe.name,
                "seed": run.seed,
                "state": run.state,
                "params": result.get("params"),
                "epochs": result.get("epochs", len(run.log)),
                "correct": test.get("correct"),
                "total": test.get("total"),
                "verdict": result.get("verdict"),
            }
        )
    return rows


def run_table(rows: list[dict[str, Any]], width: int) -> str:
    if not rows:
        return "No runs here yet. `whit train` makes one."
    head = ("run", "seed", "params", "epochs", "accuracy", "verdict")
    body = [
        (
            row["run"],
            "?" if row["seed"] is None else str(row["seed"]),
            "?" if row["params"] is None else f"{row['params']:,}",
            "?" if row["epochs"] is None else f"{row['epochs']:g}",
            "?" if row["correct"] is None else percent(row["correct"], row["total"]),
            row["verdict"] if row["state"] == "finished" else row["state"],
        )
        for row in rows
    ]
    return text_table([head, *body], "Lrrrrl", width)


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
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append((name, shown))
    return text_table(rows, "lL", width)
