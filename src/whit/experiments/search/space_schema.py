"""The keys of a search space: their schema, the messages about wrong ones, and their reference."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo
from pydantic.functional_validators import AfterValidator, PlainValidator, model_validator
from pydantic.json_schema import WithJsonSchema
from pydantic.types import StrictBool, StrictFloat, StrictInt

from whit.errors import did_you_mean
from whit.experiments.search.space import OBJECTIVES
from whit.system.validation_errors import describe_errors, field_error

_MAX_BOUND = 1e15  # integers below it are exact as floats, which Optuna stores
_MAX_LENGTH = 64  # blocks; as of a plain network
# Spellings of earlier versions. A file that uses one is refused, and the message names the new one.
RENAMED = {
    "least": "min_accuracy",
    "each": "list_of",
    "count": "length",
    "changes": "suggest",  # a function of a Python space
    "integer": "suggest_int",  # methods of its argument
    "number": "suggest_float",
    "one_of": "suggest_categorical",
}
_SENTENCES = {  # in place of pydantic's own
    "name": "name = {value}: expected up to 50 of the letters a to z and A to Z, digits, '_' or "
    "'-', starting with a letter or a digit",
    "base": "base is missing: expected the name of a built-in recipe, or a path",
    "objectives": f"objectives = {{value}}: expected a list. Allowed: {', '.join(OBJECTIVES)}",
    "val": "val = {value}: expected an integer from 1 to 10,000,000",
    "seeds": "seeds = {value}: expected an integer from 1 to 100",
    "min_accuracy": "min_accuracy = {value}: expected an accuracy in percent, 0 to 100",
    **dict.fromkeys(("low", "high"), "expected low and high, two numbers; or a list of choices"),
    "step": "step is an integer of at least 1, for integer bounds only",
    "log": "log is true or false",
    **dict.fromkeys(("list_of", "length"), "list_of and length must be given together"),
}


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Bound = Annotated[StrictInt | StrictFloat, Field(gt=-_MAX_BOUND, lt=_MAX_BOUND)]


class Range(_Table):
    """A number from `low` to `high`: an integer if both are."""

    low: _Bound = Field(description="Lower bound, included.")
    high: _Bound = Field(description="Upper bound, included.")
    step: StrictInt = Field(1, ge=1, description="Distance of the values; integer bounds only.")
    log: StrictBool = Field(False, description="Sample on a logarithmic scale; needs low > 0.")

    @model_validator(mode="after")
    def _check(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, not {self.low}")
        if "step" in self.model_fields_set and isinstance(self.low, float):
            raise ValueError(_SENTENCES["step"])
        if "step" in self.model_fields_set and self.log:
            raise ValueError("step and log cannot be combined")
        return self


def _parse_dimension(value: Any, info: ValidationInfo) -> Any:
    """Return a table as Range or ListOf; a list of choices or a fixed value as it is."""
    if value == []:
        raise ValueError("an empty list leaves nothing to choose")
    if not isinstance(value, dict):
        return value
    if not value.keys() & ListOf.model_fields.keys():
        return Range.model_validate(value)
    if value.keys() & Range.model_fields.keys():
        raise ValueError("a list takes list_of and length, and nothing else")
    return ListOf.model_validate(value, context=info.context)


def _parse_length(value: Any, info: ValidationInfo) -> Any:
    """Return a dimension of integers, or the key of one of the lists in `info.context`."""
    if isinstance(value, str):
        lists = info.context or ()
        if value not in lists:
            before = f". Lists before it: {', '.join(sorted(lists))}" if lists else ""
            raise field_error(f"length = {value!r} is not the key of an earlier list{before}")
        return value
    length = _parse_dimension(value, info)
    sizes = [length.low, length.high] if isinstance(length, Range) else length
    for size in sizes if isinstance(sizes, list) else [sizes]:
        if type(size) is not int or not 1 <= size <= _MAX_LENGTH:
            raise field_error(f"length must be integers from 1 to {_MAX_LENGTH}")
    return length


_Dimension = Annotated[
    Any,
    PlainValidator(_parse_dimension),
    WithJsonSchema({"type": "value, list of choices, or table"}),
]
_LENGTH_SCHEMA = {
    "type": "integer, list of choices, table of low and high, or key of an earlier list",
    "minimum": 1,
    "maximum": _MAX_LENGTH,
}
_Length = Annotated[Any, PlainValidator(_parse_length), WithJsonSchema(_LENGTH_SCHEMA)]


class ListOf(_Table):
    """A list whose length and items are suggested, each item independently."""

    list_of: _Dimension = Field(description="What each item of the list is chosen from.")
    length: _Length = Field(
        description="How many items; the key of an earlier list gives this one the same length."
    )


DIMENSION_KEYS = (*Range.model_fields, *ListOf.model_fields)
dimension: TypeAdapter[Any] = TypeAdapter(_Dimension)


def _check_objective(name: Any) -> Any:
    if name not in list(OBJECTIVES):
        near, allowed = did_you_mean(str(name), OBJECTIVES), ", ".join(OBJECTIVES)
        raise field_error(f"objective {name!r} does not exist.{near} Allowed: {allowed}")
    return name


def _check_objectives(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise field_error(_SENTENCES["objectives"].format(value="[]"))
    if len(set(names)) < len(names):
        raise field_error("objectives: one is listed twice")
    if "accuracy" not in names:
        raise field_error("objectives must include accuracy: without it nothing is learned")
    return names


_Objective = Annotated[
    str, PlainValidator(_check_objective), WithJsonSchema({"enum": list(OBJECTIVES)})
]
_Objectives = Annotated[tuple[_Objective, ...], AfterValidator(_check_objectives)]


class SpaceFile(_Table):
    """The keys of a file; `space` holds a function here, in TOML it is a table of dimensions."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,49}$",
        description="Name of the search and of its folder.",
        json_schema_extra={"default": "name of the file"},
    )
    base: str = Field(
        min_length=1,
        description="Recipe that every trial changes: a built-in name, or a path.",
    )
    objectives: _Objectives = Field(
        ("params", "accuracy"),
        description="What the Pareto front trades off; accuracy is maximized and must be among "
        "them, the others are minimized.",
    )
    val: Annotated[StrictInt, Field(ge=1, le=10_000_000)] | None = Field(
        None,
        description="Training images held out for validation.",
        json_schema_extra={"default": "as in the base; else a sixth of the training images"},
    )
    seeds: StrictInt = Field(
        3, ge=1, le=100, description="Seeds of each recipe on the Pareto front: confirmation runs."
    )
    min_accuracy: StrictFloat = Field(
        0.0,
        ge=0,
        le=100,
        description="Percent on val below which a trial is not on the Pareto front.",
    )
    space: Any = Field(
        description="What varies: each key is a key of the recipe, in quotes.",
        json_schema_extra={"type": "table; in Python a function `suggest(trial)`"},
    )


SPACE_KEYS = tuple(SpaceFile.model_fields)


def describe(error: ValidationError, source: str, keys: Collection[str]) -> list[str]:
    """Return the problems without repetition, unknown keys first: they may explain the others."""
    problems = describe_errors(
        error, source, allowed_keys=lambda path: keys, hint="Allowed", sentences=_SENTENCES
    )
    return sorted(dict.fromkeys(problems), key=lambda problem: "unknown key" not in problem)


def rename_old_keys(tables: dict[str, Any], source: str) -> tuple[dict[str, Any], list[str]]:
    """Return a TOML space with the new spelling of every key, and a problem for each old one."""
    found: dict[str, None] = {}  # each once, in their order

    def rename(table: Any, old_keys: Sequence[str]) -> Any:
        if not isinstance(table, dict):
            return table
        found.update(dict.fromkeys(key for key in table if key in old_keys))
        return {
            RENAMED[key] if key in old_keys else key: rename(value, ("each", "count"))
            for key, value in table.items()
        }

    lines = tables.get("space")
    others = {key: value for key, value in tables.items() if key != "space"}
    if isinstance(lines, dict):
        lines = {key: rename(line, ("each", "count")) for key, line in lines.items()}
    renamed = rename(others, ("least",)) | ({} if lines is None else {"space": lines})
    return renamed, renamed_messages(source, list(found))


def renamed_messages(source: str, old: Sequence[str]) -> list[str]:
    return [f"{source}: {name} is now called {RENAMED[name]}." for name in old]


REFERENCE_HEAD = ("key", "type", "default", "range", "meaning")


def space_key_reference() -> list[tuple[str, str, str, str, str]]:
    """Return every key of a search space as a row of REFERENCE_HEAD, from the schema."""
    tables = (("", SpaceFile), ("[space] ", Range), ("[space] ", ListOf))
    return [
        (
            f"{prefix}{key}",
            _type_text(schema),
            _default_text(schema, key in model.model_json_schema().get("required", ())),
            _range_text(schema),
            schema["description"],
        )
        for prefix, model in tables
        for key, schema in model.model_json_schema()["properties"].items()
    ]


def space_key_markdown() -> str:
    """Return the reference of all keys as a Markdown table."""
    rows = [(f"`{key}`", *cells) for key, *cells in space_key_reference()]
    lines = [REFERENCE_HEAD, tuple("---" for _ in REFERENCE_HEAD), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _type_text(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        types = [_type_text(option) for option in schema["anyOf"]]
        return " or ".join(name for name in types if name != "null")
    if "enum" in schema:
        return "string"
    if schema["type"] == "array":
        return f"list of {_type_text(schema['items'])}s"
    names = {"number": "float", "boolean": "true or false"}
    return str(names.get(schema["type"], schema["type"]))


def _default_text(schema: dict[str, Any], is_required: bool) -> str:
    if "default" not in schema:
        return "required" if is_required else "none"
    default = schema["default"]
    if isinstance(default, bool):
        return str(default).lower()
    return ", ".join(default) if isinstance(default, list) else f"{default}"


def _range_text(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return next(filter(None, map(_range_text, schema["anyOf"])), "")
    if "items" in schema:
        return ", ".join(schema["items"]["enum"])
    if "pattern" in schema:
        return f"`{schema['pattern']}`"
    if schema["type"] == "boolean":
        return ""
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        return f"above {schema['exclusiveMinimum']:g}, below {schema['exclusiveMaximum']:g}"
    if low is None:
        return ""
    return f"at least {low:g}" if high is None else f"{low:,g} to {_plain(high)}"


def _plain(number: float) -> str:
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:g}"
