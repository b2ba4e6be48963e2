"""The class or function that builds a user's model, and whether keywords fit it."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping

from torch import nn

from whit.errors import SourceError, did_you_mean
from whit.models.user_code.source import Source
from whit.models.user_code.tracebacks import own_place

ModelFactory = type[nn.Module] | Callable[..., nn.Module]


def factory_in(module: types.ModuleType, source: Source) -> ModelFactory:
    """Return the value that `source` names in the module it ran as.

    Raises SourceError: there is none, or no model can be built from it.
    """
    if source.name not in vars(module):
        raise SourceError(f"{source.path}: running it left no {source.name!r} behind.")
    value: object = vars(module)[source.name]
    if isinstance(value, nn.Module):
        own = type(value).__module__ == module.__name__
        instead = f"its class, {type(value).__name__!r}" if own else "a function that returns it"
        raise SourceError(f"{source.target} is a model that is already built: name {instead}.")
    if isinstance(value, type) and not issubclass(value, nn.Module):
        modules = [
            name
            for name, other in vars(module).items()
            if isinstance(other, type)
            and issubclass(other, nn.Module)
            and other.__module__ == module.__name__
        ]
        there = f" Its modules: {', '.join(modules)}." if modules else ""
        raise SourceError(
            f"{source.target} is a class, but not a torch.nn.Module: "
            f"write `class {source.name}(nn.Module)`.{there}"
        )
    if not callable(value):
        raise SourceError(
            f"{source.target} is a {type(value).__name__!r}: name a class that is a "
            "torch.nn.Module, or a function that returns one."
        )
    return value


def argument_problems(
    source: Source, factory: ModelFactory, arguments: Mapping[str, object]
) -> list[str]:
    """Return one sentence for each keyword that is unknown or missing."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a callable without a signature: its call will tell
        return []
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = [p.name for p in by_name]
    place = defined_at(source, factory)
    takes = f"It takes: {', '.join(known)}." if known else "It takes no arguments."
    problems = [
        f"{place}: {source.name} has no argument {name!r}.{did_you_mean(name, known)} {takes}"
        for name in arguments
        if name not in known and not takes_any
    ]
    problems += [
        f"{place}: {source.name} needs {p.name!r}, and [model] does not give it."
        for p in by_name
        if p.default is p.empty and p.name not in arguments
    ]
    problems += [
        f"{place}: {source.name} takes {p.name!r} by position only: [model] gives names."
        for p in parameters
        if p.kind is p.POSITIONAL_ONLY and p.default is p.empty
    ]
    return problems


def defined_at(source: Source, factory: ModelFactory) -> str:
    """Return where the signature of `factory` stands, as exactly as can be known."""
    function: Callable[..., object] = factory
    if isinstance(factory, type):
        function = factory.__init__  # type: ignore[misc]  # only its place is asked for
    code = getattr(inspect.unwrap(function), "__code__", None)
    place = ""
    if isinstance(code, types.CodeType):
        place = own_place(source, code.co_filename, code.co_firstlineno)
    return place or str(source.path)
