"""Models by name: a built-in one, or a user's own `path/file.py:Class`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from whit.errors import ModelError, did_you_mean
from whit.models import published
from whit.models.plain import PlainConfig, plain
from whit.models.user_code import Source, build_user_model
from whit.recipes.model_ref import IN_MEMORY, is_model_path
from whit.recipes.recipe_tables import ModelSpec
from whit.system.validation_errors import describe_errors


class NoConfig(BaseModel):
    """The configuration of a model without options."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class ModelEntry:
    """A builder and the configuration that it takes."""

    config: type[BaseModel]
    build: Callable[..., nn.Module]


def _fixed(build: Callable[[int, int], nn.Module]) -> ModelEntry:
    return ModelEntry(NoConfig, lambda config, channels, classes: build(channels, classes))


MODELS: dict[str, ModelEntry] = {
    "plain": ModelEntry(PlainConfig, plain),
    "published-17098": _fixed(published.published_17098),
    "published-16848": _fixed(published.published_16848),
    "published-19122": _fixed(published.published_19122),
    "published-19130": _fixed(published.published_19130),
    "published-15938": _fixed(published.published_15938),
}

# Sizes that are each allowed can still multiply to more than fits into memory.
MAX_PARAMS = 20_000_000


def in_memory_spec(model: nn.Module) -> ModelSpec:
    """Return the spec of a model that was passed as an object, which no recipe can rebuild."""
    return ModelSpec(name=f"{IN_MEMORY}{type(model).__name__}")


def find_argument_problems(spec: ModelSpec) -> Sequence[str]:
    """Return what is wrong with the name and arguments of a built-in model; builds nothing."""
    if is_model_path(spec.name) or spec.is_in_memory:
        return ()
    try:
        _entry_and_config(spec)
    except ModelError as error:
        return error.problems
    return ()


def _entry_and_config(spec: ModelSpec) -> tuple[ModelEntry, BaseModel]:
    entry = MODELS.get(spec.name)
    if entry is None:
        raise ModelError(
            f"model.name = {spec.name!r}: no such model.{did_you_mean(spec.name, MODELS)} "
            f"Built-in: {', '.join(MODELS)}; or your own as path/file.py:Class."
        )
    try:
        return entry, entry.config.model_validate(spec.arguments)
    except ValidationError as error:
        keys = ["name", *entry.config.model_fields]
        problems = describe_errors(error, parent=["model"], allowed_keys=lambda path: keys)
        raise ModelError(problems) from None


def build_model(
    spec: ModelSpec, channels: int, classes: int, source: Source | None = None
) -> nn.Module:
    """Build a model with fresh weights from torch's global generator.

    `source` is the code of a user's model, if it was read already. Raises ModelError for an unknown
    name or an invalid configuration, SourceError for a user's model that cannot be loaded.
    """
    if is_model_path(spec.name):
        whole = bool(spec.run_whole_file)
        return build_user_model(source or spec.name, spec.arguments, run_whole_file=whole)
    if spec.is_in_memory:
        raise ModelError(
            f"model.name = {spec.name!r}: this model was passed in Python, so no recipe can build "
            "it; pass it again as model=..., or put its class in a file and use file.py:Class."
        )
    entry, config = _entry_and_config(spec)
    try:
        with torch.device("meta"):  # shapes without numbers
            count = sum(p.numel() for p in entry.build(config, channels, classes).parameters())
    except ValueError as error:  # sizes that are each allowed, but do not fit together
        raise ModelError(f"model.name = {spec.name!r}: {error}.") from None
    if count > MAX_PARAMS:
        raise ModelError(
            f"model.name = {spec.name!r}: {count:,} parameters with these sizes, but at most "
            f"{MAX_PARAMS:,} are allowed. Make it smaller."
        )
    return entry.build(config, channels, classes)
