"""The recipes of the package, with their recorded accuracy, as rows and as a table."""

from __future__ import annotations

import json
from importlib import resources
from statistics import mean
from typing import Any

from whit.recipes.recipe import builtin_recipes, parse_recipe
from whit.system.text_tables import text_table


def recipe_rows() -> list[dict[str, Any]]:
    """Return one row per built-in recipe: its name, sizes, and recorded accuracy.

    `recorded.json` is written by records/reproduce.py, never by hand.
    """
    file = resources.files("whit.recipes") / "builtin" / "recorded.json"
    recorded = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    rows = []
    for name, text in builtin_recipes().items():
        recipe = parse_recipe(text, name)
        record = recorded.get(name, {})
        correct = record.get("correct", [])
        rows.append(
            {
                "name": name,
                "params": record.get("params"),
                "epochs": record.get("epochs", recipe.train.epochs),
                "accuracy": round(mean(correct) / 100, 3) if correct else None,
                "worst": min(correct) / 100 if correct else None,
                "seeds": len(correct),
                "description": recipe.description,
            }
        )
    return rows


def recipe_table(rows: list[dict[str, Any]], width: int) -> str:
    head = ("recipe", "params", "epochs", "mean %", "worst %", "seeds")
    formats = {"name": "", "params": ",", "epochs": "", "accuracy": ".3f", "worst": ".2f",
               "seeds": ""}  # fmt: skip
    body = [
        ["?" if row[key] is None else format(row[key], spec) for key, spec in formats.items()]
        for row in rows
    ]
    table = text_table([head, *body], "Lrrrrr", width)
    return f"{table}\n\nTest accuracy after the last epoch, over the recorded seeds."
