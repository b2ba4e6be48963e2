"""The reference of recipe keys agrees with the schema, key by key.

pytest tests/recipes/test_key_reference.py
"""

from __future__ import annotations

import tomllib
from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from whit.errors import RecipeError
from whit.models.key_tables import recipe_key_tables
from whit.models.registry import MODELS
from whit.recipes.budget import RULES, LimitRule
from whit.recipes.key_reference import (
    Key,
    key_reference_json,
    key_reference_markdown,
    key_reference_text,
)
from whit.recipes.recipe import Recipe, list_keys, load_recipe, section_of
from whit.recipes.recipe_tables import BudgetSpec
from whit.recipes.schedule import SCHEDULES

TABLES = recipe_key_tables()
KEYS = [(table.name, table.description, key) for table in TABLES for key in table.keys]


def schema_keys() -> Counter[tuple[str, str]]:
    """Every key of the schema with its table; those of models and schedules once for each."""
    keys: Counter[tuple[str, str]] = Counter()
    for name in list_keys([], {}):
        field = Recipe.model_fields.get(name)  # `schema` and `base` are none
        if field is None or section_of(field.annotation) is None:
            keys["", name] += 1
        elif name != "schedule":
            keys.update((name, key) for key in list_keys([name], {name: {}}))
    keys["schedule", "name"] += 1
    for schedule in SCHEDULES.values():
        keys.update(("schedule", key) for key in schedule.model_fields if key != "name")
    for entry in MODELS.values():
        keys.update(("model", key) for key in entry.config.model_fields)
    return keys


def field_of(table: str, description: str, key: Key) -> Any:
    """The field of the schema that a line of the reference is about."""
    if not table:
        return Recipe.model_fields[key.key]
    variants = {**{name: entry.config for name, entry in MODELS.items()}, **SCHEDULES}
    for name, kind in variants.items():
        if description.startswith(f'With `name = "{name}"`'):
            return kind.model_fields[key.key]
    section = section_of(Recipe.model_fields[table].annotation)
    assert section is not None
    return section.model_fields[key.key]


def test_every_key_of_the_schema_is_there_exactly_once() -> None:
    assert Counter((table, key.key) for table, _, key in KEYS) == schema_keys()
    for table in TABLES:
        assert len({key.key for key in table.keys}) == len(table.keys) > 0
        assert table.description


@pytest.mark.parametrize("line", KEYS, ids=lambda line: f"{line[0]}.{line[2].key}")
def test_every_key_has_a_description_and_a_range(line: tuple[str, str, Key]) -> None:
    table, _, key = line
    assert len(key.description.split()) >= 2
    assert not key.description.endswith(".")
    assert key.type
    if "number" in key.type or "integer" in key.type:
        assert key.range
    if table == "budget":
        assert key.range


@pytest.mark.parametrize("line", KEYS, ids=lambda line: f"{line[0]}.{line[2].key}")
def test_a_default_is_that_of_the_schema(line: tuple[str, str, Key]) -> None:
    table, description, key = line
    if (table, key.key) in (("", "schema"), ("", "base"), ("schedule", "name")):
        return  # not fields: read before the schema is
    default = field_of(table, description, key).default
    if default is PydanticUndefined:
        assert key.default == "required"
    elif default is None:
        assert key.default == ""
    else:
        value = tomllib.loads(f"x = {key.default}")["x"]
        assert (tuple(value) if isinstance(value, list) else value) == default


def test_the_default_schedule_is_that_of_a_recipe() -> None:
    named = next(key for table, _, key in KEYS if (table, key.key) == ("schedule", "name"))
    assert (
        tomllib.loads(f"x = {named.default}")["x"] == Recipe.model_fields["schedule"].default.name
    )
    assert named.range.split(", ") == list(SCHEDULES)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("train.epochs=0", "train.epochs"),
        ("train.epochs=100_001", "train.epochs"),
        ("ema.decay=1", "ema.decay"),
        ("augment.shear=90", "augment.shear"),
        ("optim.betas=[0.9, 1.0]", "optim.betas"),
        ("eval.tta_shifts=5", "eval.tta_shifts"),
    ],
)
def test_a_value_outside_the_range_is_refused(change: str, key: str) -> None:
    """The ranges printed are those that are checked."""
    with pytest.raises(RecipeError, match=key):
        load_recipe("sprint").with_overrides([change])


def test_the_example_of_a_limit_is_valid() -> None:
    for rule in RULES:
        if isinstance(rule, LimitRule):
            assert BudgetSpec.model_validate({rule.key: rule.example})
            with pytest.raises(ValidationError):
                BudgetSpec.model_validate({rule.key: 1})


def test_text_markdown_and_json_have_the_same_keys() -> None:
    rows = key_reference_json(TABLES)
    assert [(row["table"], row["key"]) for row in rows] == [(t, key.key) for t, _, key in KEYS]
    markdown = key_reference_markdown(TABLES)
    text = key_reference_text(TABLES, 100)
    assert markdown.count("\n| `") == len(KEYS)
    for _, _, key in KEYS:
        assert f"\n{key.key}: " in text
        assert f"| `{key.key}` |" in markdown


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_descriptions_fit_the_width(width: int) -> None:
    for line in key_reference_text(TABLES, width).splitlines():
        if ": " in line:
            assert len(line) <= width
