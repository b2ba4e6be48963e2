"""The class or function that builds a user's model, and whether keyword arguments fit it."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping

from torch import nn

from whit.errors import SourceError, did_you_mean
from whit.models.user_code.reading.source import Source
from whit.models.user_code.stand_ins import MissingPackage, missing_package_of
from whit.models.user_code.tracebacks import user_location

ModelFactory = type[nn.Module] | Callable[..., nn.Module]


def find_factory(
    module: types.ModuleType, source: Source, list_classes: Callable[[], str]
) -> ModelFactory:
    """Return what `source` names in its executed module.

    `list_classes` gives the sentence of a message that names the classes of the file. Raises
    SourceError: it builds no model.
    """
    if source.name not in vars(module):
        raise SourceError(f"{source.path}: running it did not define {source.name!r}.")
    value: object = vars(module)[source.name]
    if package := missing_package_of(value):
        raise SourceError(
            f"{source.target} {MissingPackage(package).sentence}. Install it, or name a class that "
            "does not need it."
        )
    if isinstance(value, nn.Module):
        is_local = type(value).__module__ == module.__name__
        instead = (
            f"its class, {type(value).__name__!r}" if is_local else "a function that returns it"
        )
        raise SourceError(f"{source.target} is a model instance, not a class: name {instead}.")
    if isinstance(value, type) and not issubclass(value, nn.Module):
        raise SourceError(
            f"{source.target} is a class, but not a torch.nn.Module: "
            f"write `class {source.name}(nn.Module)`.{list_classes()}"
        )
    if not callable(value):
        raise SourceError(
            f"{source.target} is a {type(value).__name__!r}: name a class that is a "
            "torch.nn.Module, or a function that returns one."
        )
    return value


def find_argument_problems(
    source: Source, factory: ModelFactory, arguments: Mapping[str, object]
) -> list[str]:
    """Return one sentence for each keyword argument that is unknown or missing."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a callable without a signature: errors show when it is called
        return []
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = [p.name for p in by_name]
    site = definition_site(source, factory)
    takes = f"It takes: {', '.join(known)}." if known else "It takes no arguments."
    problems = [
        f"{site}: {source.name} has no argument {name!r}.{did_you_mean(name, known)} {takes}"
        for name in arguments
        if name not in known and not takes_any
    ]
    problems += [
        f"{site}: {source.name} requires {p.name!r}, which [model] does not set."
        for p in by_name
        if p.default is p.empty and p.name not in arguments
    ]
    problems += [
        f"{site}: {source.name} has a positional-only argument {p.name!r}, but [model] passes "
        "keyword arguments."
        for p in parameters
        if p.kind is p.POSITIONAL_ONLY and p.default is p.empty
    ]
    return problems


def definition_site(source: Source, factory: ModelFactory) -> str:
    """Return the location of the signature of `factory`, or of its file where it is unknown."""
    function = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    code = getattr(inspect.unwrap(function), "__code__", None)
    if not isinstance(code, types.CodeType):
        return str(source.path)
    return user_location(source, code.co_filename, code.co_firstlineno) or str(source.path)
