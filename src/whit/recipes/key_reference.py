"""The reference of all keys of a recipe, generated from the schema."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from whit.analysis.kinds import LAYER_KINDS
from whit.recipes.budget import RULES, LimitRule
from whit.recipes.recipe import SCHEMA, Recipe, section_of
from whit.recipes.schedule import DEFAULT_SCHEDULE, SCHEDULES
from whit.recipes.toml_writer import toml_value
from whit.system.text_tables import text_table, wrap

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
_SIGNS = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}


@dataclass(frozen=True)
class Key:
    """A key of a recipe: `default` is TOML, empty where it is required or absent by default."""

    key: str
    type: str
    default: str
    range: str
    unit: str
    description: str


@dataclass(frozen=True)
class KeyTable:
    """The keys of a table of a recipe."""

    name: str  # as in TOML; empty for the top level
    description: str
    keys: tuple[Key, ...]

    @property
    def heading(self) -> str:
        return f"[{self.name}]" if self.name else "Top level"


def list_key_tables(models: Mapping[str, type[BaseModel]]) -> list[KeyTable]:
    """Return all tables of a recipe, in the order in which whit writes them.

    `models` has the arguments of each of the package's models, which are keys of `[model]`.
    """
    tables = [KeyTable("", "Keys before the first table.", tuple(_top_keys()))]
    for name, field in Recipe.model_fields.items():
        if name == "schedule":
            tables += _schedule_tables()
            continue
        section = section_of(field.annotation)
        if section is None:
            continue
        tables.append(KeyTable(name, _first_paragraph(section), tuple(_keys_of(section))))
        if name == "model":
            tables += [
                KeyTable(
                    "model",
                    f'With `name = "{model}"`. {_first_paragraph(config)}',
                    tuple(_keys_of(config)),
                )
                for model, config in models.items()
                if config.model_fields
            ]
    return tables


def _top_keys() -> Iterator[Key]:
    yield Key("schema", "integer", str(SCHEMA), f"{SCHEMA}", "", "version of the keys")
    yield Key(
        "base", "string", "", "", "",
        "name or path of a recipe to extend: its values apply to keys that are not set here",
    )  # fmt: skip
    fields = {
        name: field
        for name, field in Recipe.model_fields.items()
        if section_of(field.annotation) is None and name != "schedule"
    }
    yield from (_describe(name, field) for name, field in fields.items())


def _schedule_tables() -> Iterator[KeyTable]:
    fixed = [
        f' With `name = "{name}"`: {_first_paragraph(schedule)}'
        for name, schedule in SCHEDULES.items()
        if set(schedule.model_fields) == {"name"}
    ]
    default = toml_value(DEFAULT_SCHEDULE)
    named = Key("name", "string", default, ", ".join(SCHEDULES), "", "name of the schedule")
    yield KeyTable("schedule", f"The learning-rate schedule.{''.join(fixed)}", (named,))
    for name, schedule in SCHEDULES.items():
        fields = {key: field for key, field in schedule.model_fields.items() if key != "name"}
        description = f'With `name = "{name}"`. {_first_paragraph(schedule)}'
        if fields:
            keys = tuple(_describe(key, field) for key, field in fields.items())
            yield KeyTable("schedule", description, keys)


def _keys_of(section: type[BaseModel]) -> Iterator[Key]:
    rules = {rule.key: rule for rule in RULES}
    for name, field in section.model_fields.items():
        key = _describe(name, field)
        rule = (
            rules.get(name)
            if section is section_of(Recipe.model_fields["budget"].annotation)
            else None
        )
        if isinstance(rule, LimitRule):
            key = Key(name, "string", "", f'such as "{rule.example}"', key.unit, key.description)
        elif rule is not None:
            kinds = ", ".join(LAYER_KINDS)
            key = Key(name, key.type, key.default, kinds, key.unit, key.description)
        yield key


def _describe(name: str, field: FieldInfo) -> Key:
    extra = field.json_schema_extra
    unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
    default = field.default
    shown = "" if default is None or default is PydanticUndefined else toml_value(default)
    limits = [_range_of(field.annotation), _bounds(field.metadata)]
    kind = _type_of(field.annotation)
    unlimited = "any" if "number" in kind or "integer" in kind else ""
    return Key(
        name,
        kind,
        "required" if field.is_required() else shown,
        ", ".join(limit for limit in limits if limit) or unlimited,
        unit,
        field.description or "",
    )


def _unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """Return the annotation without `Annotated` and `None`, and the metadata on the way."""
    metadata: list[Any] = []
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *more = get_args(annotation)
            for item in more:
                metadata += item.metadata if isinstance(item, FieldInfo) else [item]
        elif origin in (Union, types.UnionType):
            (annotation,) = (kind for kind in get_args(annotation) if kind is not type(None))
        else:
            return annotation, metadata


def _type_of(annotation: Any) -> str:
    annotation, _ = _unwrap(annotation)
    if get_origin(annotation) is Literal:
        return _TYPES[type(get_args(annotation)[0])]
    if get_origin(annotation) is tuple:
        item, *rest = get_args(annotation)
        size = "" if rest == [...] else f"{1 + len(rest)} "
        return f"list of {size}{_type_of(item)}s"
    return _TYPES[annotation]


def _range_of(annotation: Any) -> str:
    annotation, metadata = _unwrap(annotation)
    if get_origin(annotation) is Literal:
        return ", ".join(str(value) for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        return _range_of(get_args(annotation)[0])
    return _bounds(metadata)


def _bounds(metadata: Sequence[Any]) -> str:
    bounds = []
    for item in metadata:
        for kind, (sign, attribute) in _SIGNS.items():
            if isinstance(item, kind):
                bound = getattr(item, attribute)
                bounds.append(f"{sign} {int(bound) if bound == int(bound) else bound:,}")
    return ", ".join(bounds)


def _first_paragraph(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split("\n\n")[0].split())


_HEADINGS = ("key", "type", "default", "range", "unit", "description")


def _cells(key: Key) -> list[str]:
    return [getattr(key, heading) for heading in _HEADINGS]


def key_reference_json(tables: Sequence[KeyTable]) -> list[dict[str, str]]:
    """Return one object per key, `table` included."""
    return [
        {"table": table.name, **dict(zip(_HEADINGS, _cells(key), strict=True))}
        for table in tables
        for key in table.keys
    ]


def key_reference_text(tables: Sequence[KeyTable], width: int) -> str:
    """Return the reference for a terminal: a table of short columns, descriptions below it."""
    parts = []
    for table in tables:
        rows = [_HEADINGS[:5], *(_cells(key)[:5] for key in table.keys)]
        lines = [table.heading, wrap(table.description, width), ""]
        lines.append(text_table(rows, "lLLLL", width))
        lines += ["", *(wrap(f"{key.key}: {key.description}.", width) for key in table.keys)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def key_reference_markdown(tables: Sequence[KeyTable]) -> str:
    """Return the reference as a page of the documentation."""
    parts = []
    previous = None
    for table in tables:
        heading = [f"## `{table.heading}`" if table.name else "## Top level", ""]
        lines = [] if table.name == previous else heading
        previous = table.name
        lines += [table.description, "", "| " + " | ".join(_HEADINGS) + " |", "|---" * 6 + "|"]
        for key in table.keys:
            cells = [f"`{key.key}`", *_cells(key)[1:]]
            cells[2] = f"`{cells[2]}`" if cells[2] not in ("", "required") else cells[2]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
