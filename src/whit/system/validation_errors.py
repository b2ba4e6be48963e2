"""Pydantic's validation errors as sentences: key, value, and what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from whit.errors import did_you_mean

_MAX_VALUE = 60  # characters of a value in a sentence
# Pydantic's error types as sentences, with the values of their context. Other types keep
# pydantic's message.
_LIST_TYPES = ("tuple_type", "list_type")
_PHRASES = {
    "greater_than": "must be > {gt}",
    "greater_than_equal": "must be >= {ge}",
    "less_than": "must be < {lt}",
    "less_than_equal": "must be <= {le}",
    "finite_number": "must be a finite number",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing": "must be an integer",
    "int_parsing_size": "must be an integer of fewer digits",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a string",
    "string_unicode": "must be text in UTF-8",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dict_type": "must be a table",
}
_STORED = {
    "model_type": "must be an object",
    "dataclass_type": "must be an object",
    "json_invalid": "not valid JSON",
    **dict.fromkeys(_LIST_TYPES, "must be a list"),
}


def field_error(message: str) -> PydanticCustomError:
    """Return an error for a validator to raise whose message names its field itself."""
    return PydanticCustomError("field", "{message}", {"message": message})


def describe_errors(
    error: ValidationError,
    source: str = "",
    *,
    parent: Sequence[str] = (),
    allowed_keys: Callable[[Sequence[str]], Collection[str]] = lambda path: (),
    hint: str = "Allowed here",
    sentences: Mapping[str, str] = MappingProxyType({}),
    is_stored: bool = False,
) -> list[str]:
    """Return one sentence for each error found, each beginning with `source`.

    `parent` is the path of the validated table. `allowed_keys` returns the keys allowed in the
    table at a path, which `hint` introduces. `sentences` replaces pydantic's own messages about a
    key, with `{value}` in them. `is_stored` is for files that whit wrote itself: list items are
    shown by index, and values are not shown.
    """
    problems = []
    errors = error.errors()
    for item in errors:
        if item["type"] == "too_short" and _has_invalid_item(item["loc"], errors):
            continue  # pydantic does not count items that are invalid
        kind, message = item["type"], _phrase(item)
        steps = [*parent, *item["loc"]]
        path = [str(step) for step in steps if is_stored or isinstance(step, str)]
        matches = [index for index, key in enumerate(path) if key in sentences]
        if is_stored:
            message = _STORED.get(kind, message)
        elif kind == "extra_forbidden":
            allowed = allowed_keys(path[:-1])
            near = did_you_mean(path[-1], allowed) or _suggest_table(path[-1], allowed_keys)
            path, message = [], f"unknown key {'.'.join(path)}.{near} {hint}: {', '.join(allowed)}"
        elif kind == "field":
            path.pop()
        elif kind != "value_error" and matches:
            message = sentences[path[matches[-1]]].format(value=_shorten(repr(item["input"])))
            path = path[: matches[-1]]
        elif kind == "missing" and isinstance(steps[-1], str):
            path, message = [], f"{'.'.join(path)} is missing"
        elif path and not isinstance(item["input"], dict | BaseModel):
            path[-1] += f" = {_shorten(_toml(item['input']))}"
        problems.append(": ".join(part for part in (source, ".".join(path), message) if part) + ".")
    return problems


def _suggest_table(key: str, allowed_keys: Callable[[Sequence[str]], Collection[str]]) -> str:
    """Return ` Did you mean 'train.epochs'?` for a key that other tables have, or ""."""
    homes = [f"'{table}.{key}'" for table in allowed_keys([]) if key in allowed_keys([table])]
    return f" Did you mean {' or '.join(homes)}?" if homes else ""


def _list_example(value: object) -> str:
    """Return a list as it is written in TOML, made of a value that is none, such as `16, 24`."""
    if isinstance(value, str) and ("," in value or value[:1] in ("[", "(")):
        items = [item.strip(" '\"") for item in value.strip("[]() ").split(",")]
        is_number = all(re.fullmatch(r"-?\d+(\.\d+)?", item) for item in items)
        return f"[{', '.join(items)}]" if is_number else _toml([item for item in items if item])
    if isinstance(value, int) and not isinstance(value, bool):
        return f"[{value}, {value}]"
    return f"[{_toml(value)}]" if isinstance(value, str | float) and value != "" else "[2, 1, 1]"


def _has_invalid_item(path: tuple[Any, ...], errors: Sequence[Any]) -> bool:
    return any(len(e["loc"]) > len(path) and e["loc"][: len(path)] == path for e in errors)


def _phrase(item: Any) -> str:
    """Return one of pydantic's errors as a sentence without key and value."""
    kind, value, last = item["type"], item["input"], item["loc"][-1:]
    if kind in _LIST_TYPES:
        return f"must be a list, e.g. {_list_example(value)}"
    if kind == "missing" and last and isinstance(last[0], int):  # a list of a fixed length
        return f"must have at least {last[0] + 1} item{'s' if last[0] else ''}"
    if kind in _PHRASES:
        context = {key: _format_bound(bound) for key, bound in item.get("ctx", {}).items()}
        return re.sub(r"\b1 (item|character)s", r"1 \1", _PHRASES[kind].format(**context))
    message = str(item["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return message.replace("input should be", "must be")


def _format_bound(bound: object) -> str:
    if isinstance(bound, str):
        return bound.replace("'", '"')  # of allowed strings, as in TOML
    if isinstance(bound, float) and bound.is_integer():
        bound = int(bound)
    return f"{bound:,}" if isinstance(bound, int | float) else str(bound)


def _toml(value: object) -> str:
    """Return a value as it is written in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value) if isinstance(value, int | float) else str(value)


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 3] + "..."
