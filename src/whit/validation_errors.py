"""Pydantic's validation errors as sentences: which key, which value, and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from whit.errors import did_you_mean

_MAX_VALUE = 60  # characters of a value in a sentence


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

    def describe(item: ErrorDetails) -> str:
        kind, message = item["type"], item["msg"].removeprefix("Value error, ")
        steps = [*parent, *item["loc"]]
        path = [str(step) for step in steps if is_stored or isinstance(step, str)]
        value = repr(item["input"])
        value = value if len(value) <= _MAX_VALUE else value[: _MAX_VALUE - 3] + "..."
        replaced = [index for index, key in enumerate(path) if key in sentences]
        if kind == "extra_forbidden":
            allowed = allowed_keys(path[:-1])
            near = did_you_mean(path[-1], allowed)
            return f"unknown key {'.'.join(path)}.{near} {hint}: {', '.join(allowed)}"
        if kind == "json_invalid":
            message = "not valid JSON"
        elif kind == "field":
            path.pop()
        elif kind != "value_error" and replaced:
            message = sentences[path[replaced[-1]]].format(value=value)
            del path[replaced[-1] :]
        elif kind == "missing" and not is_stored:
            return f"{'.'.join(path)} is missing"
        elif path and not is_stored and not isinstance(item["input"], dict | BaseModel):
            path[-1] += f" = {value}"
        return ": ".join(
            part for part in (".".join(path), message[0].lower() + message[1:]) if part
        )

    found = [describe(item) for item in error.errors()]
    return [f"{source}: {sentence}." if source else f"{sentence}." for sentence in found]
