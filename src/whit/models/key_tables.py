"""The reference of all recipe keys, with the arguments of the built-in models."""

from __future__ import annotations

from whit.models.registry import MODELS
from whit.recipes.key_reference import KeyTable, list_key_tables


def recipe_key_tables() -> list[KeyTable]:
    return list_key_tables({name: entry.config for name, entry in MODELS.items()})
