"""Pydantic's validation errors as sentences: key, value, and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from whit.errors import did_you_mean

_MAX_VALUE = 60  # characters of a value in a sentence
_STORED = {"model_type": "expected an object", "json_invalid": "not valid JSON"}


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
    for item in error.errors():
        kind, message = item["type"], item["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        steps = [*parent, *item["loc"]]
        path = [str(step) for step in steps if is_stored or isinstance(step, str)]
        matches = [index for index, key in enumerate(path) if key in sentences]
        if is_stored:
            message = _STORED.get(kind, message)
        elif kind == "extra_forbidden":
            allowed = allowed_keys(path[:-1])
            near = did_you_mean(path[-1], allowed)
            path, message = [], f"unknown key {'.'.join(path)}.{near} {hint}: {', '.join(allowed)}"
        elif kind == "field":
            path.pop()
        elif kind != "value_error" and matches:
            message = sentences[path[matches[-1]]].format(value=_shorten(item["input"]))
            path = path[: matches[-1]]
        elif kind == "missing":
            path, message = [], f"{'.'.join(path)} is missing"
        elif path and not isinstance(item["input"], dict | BaseModel):
            path[-1] += f" = {_shorten(item['input'])}"
        problems.append(": ".join(part for part in (source, ".".join(path), message) if part) + ".")
    return problems


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 3] + "..."
