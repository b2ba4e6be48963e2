"""The keys in which recipes differ, as values and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from whit.recipes.recipe import Recipe

Flat = dict[str, Any]  # values by dotted key


def recipe_differences(recipes: Sequence[Recipe]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the keys in which recipes differ, with the value of each as text."""
    tables = [flatten_recipe(recipe) for recipe in recipes]
    return tuple(
        (key, tuple(value_text(table.get(key, "-")) for table in tables))
        for key in differing_keys(tables)
    )


def flatten_recipe(recipe: Recipe) -> Flat:
    """Return the values of a recipe by dotted key, without its name and description."""
    return _flatten(recipe.model_dump(exclude={"name", "description"}))


def differing_keys(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values are not equal in all tables, in their order."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return [key for key in keys if len({str(table.get(key)) for table in tables}) > 1]


def unusual_values(tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return of each table what distinguishes it from the others, by short keys.

    A value that more than half of the tables have is left to the others. A key is the last part of
    the dotted one (of `model.name` the first), where no other one is called so.
    """
    keys = differing_keys(tables)
    usual = {}
    for key in keys:
        text, count = Counter(str(table.get(key)) for table in tables).most_common(1)[0]
        usual[key] = text if 2 * count > len(tables) else None
    short = {key: key.removesuffix(".name").rpartition(".")[2] for key in keys}
    counts = Counter(short.values())
    short = {key: name if counts[name] == 1 else key for key, name in short.items()}
    return [
        {short[key]: table.get(key) for key in keys if str(table.get(key)) != usual[key]}
        for table in tables
    ]


def value_text(value: Any) -> str:
    """Return a value of a recipe as text: a float with six digits, a list as in TOML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else "-" if value is None else str(value)


def _flatten(table: dict[str, Any], prefix: str = "") -> Flat:
    flat: Flat = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
