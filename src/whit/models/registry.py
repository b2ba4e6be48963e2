"""Models by name: a shipped builder, or a user's own `path/file.py:Class`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from whit.errors import ModelError, did_you_mean
from whit.models import published
from whit.models.plain import PlainSizes, plain
from whit.models.user_code.loader import build_user_model, is_source
from whit.recipe import GIVEN, ModelSpec


class NoSizes(BaseModel):
    """A model whose sizes are fixed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Entry:
    """A builder and the sizes that it takes."""

    sizes: type[BaseModel]
    build: Callable[..., nn.Module]


def _fixed(build: Callable[[int, int], nn.Module]) -> Entry:
    return Entry(NoSizes, lambda sizes, channels, classes: build(channels, classes))


MODELS: dict[str, Entry] = {
    "plain": Entry(PlainSizes, plain),
    "published-17098": _fixed(published.published_17098),
    "published-16848": _fixed(published.published_16848),
    "published-19122": _fixed(published.published_19122),
    "published-19130": _fixed(published.published_19130),
    "published-15938": _fixed(published.published_15938),
}


# Sizes that are each allowed can still multiply to more than a machine holds.
MOST_PARAMS = 20_000_000


def given_in_python(model: nn.Module) -> ModelSpec:
    """Return the name under which a recipe keeps a model that it cannot build again."""
    return ModelSpec(name=f"{GIVEN}{type(model).__name__}")


def build_model(spec: ModelSpec, channels: int, classes: int) -> nn.Module:
    """Build a model with fresh weights from torch's global generator.

    Raises ModelError for an unknown name or wrong sizes, SourceError for a user's own model that
    cannot be loaded.
    """
    if is_source(spec.name):
        return build_user_model(spec.name, spec.arguments)
    if spec.is_given:
        raise ModelError(
            f"model.name = {spec.name!r}: this model was given in Python and is not in a recipe; "
            "give it again as model=..., or put its class in a file and name file.py:Class."
        )
    entry = MODELS.get(spec.name)
    if entry is None:
        raise ModelError(
            f"model.name = {spec.name!r}: no such model.{did_you_mean(spec.name, MODELS)} "
            f"Shipped: {', '.join(MODELS)}; or your own as path/file.py:Class."
        )
    try:
        sizes = entry.sizes.model_validate(spec.arguments)
    except ValidationError as error:
        raise ModelError([_sentence(entry, item) for item in error.errors()]) from None
    try:
        with torch.device("meta"):  # shapes without numbers
            count = sum(p.numel() for p in entry.build(sizes, channels, classes).parameters())
    except ValueError as error:  # sizes that are each allowed, but do not fit together
        raise ModelError(f"model.name = {spec.name!r}: {error}.") from None
    if count > MOST_PARAMS:
        raise ModelError(
            f"model.name = {spec.name!r}: {count:,} parameters with these sizes, more than the "
            f"{MOST_PARAMS:,} that whit builds. Make it smaller."
        )
    return entry.build(sizes, channels, classes)


def _sentence(entry: Entry, item: object) -> str:
    assert isinstance(item, dict)
    path = [str(part) for part in item["loc"] if isinstance(part, str)]
    key = ".".join(["model", *path])
    allowed = list(entry.sizes.model_fields)
    if item["type"] == "extra_forbidden":
        near = did_you_mean(path[-1], allowed)
        return f"unknown key {key}.{near} Allowed here: {', '.join(['name', *allowed])}."
    if item["type"] == "missing":
        return f"{key} is missing."
    said = item["msg"].removeprefix("Value error, ")
    given = "" if isinstance(item["input"], dict | BaseModel) else f" = {item['input']!r}"
    return f"{key}{given}: {said[0].lower()}{said[1:]}."
