"""Pydantic's validation errors as sentences: which key, which value, and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

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
    parent: str = "",
    allowed_keys: Callable[[Sequence[str]], Iterable[str]] = lambda path: (),
    hint: str = "Allowed here",
    messages: Mapping[str, str] | None = None,
) -> list[str]:
    """Return one sentence for each error found, each beginning with `source`.

    `parent` is the key of the validated table. `allowed_keys` returns the keys of the table at a
    path, for the sentence about an unknown key, which introduces them with `hint`.

    With `messages`, the sentences describe a damaged file: keys have the indices of list items,
    values are not shown, and a message from `messages`, by pydantic's error type, takes the place
    of pydantic's own.
    """

    def describe(item: ErrorDetails) -> str:
        steps = [step for step in item["loc"] if messages is not None or isinstance(step, str)]
        path = [*([parent] if parent else []), *map(str, steps)]
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "field":
            path.pop()
        key = ".".join(path)
        if messages is not None:
            message = messages.get(item["type"], message)
        elif item["type"] == "extra_forbidden":
            allowed = list(allowed_keys(path[:-1]))
            near = did_you_mean(path[-1], allowed)
            return f"unknown key {key}.{near} {hint}: {', '.join(allowed)}."
        elif item["type"] == "missing":
            return f"{key} is missing."
        elif item["type"] != "field" and not isinstance(item["input"], dict | BaseModel):
            value = repr(item["input"])
            key += f" = {value if len(value) <= _MAX_VALUE else value[: _MAX_VALUE - 3] + '...'}"
        return ": ".join(part for part in (key, f"{message[0].lower()}{message[1:]}.") if part)

    return [": ".join(p for p in (source, describe(item)) if p) for item in error.errors()]
