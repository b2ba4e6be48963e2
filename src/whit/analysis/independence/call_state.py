"""The state that a call of a model may change: attributes, buffers, globals, class attributes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whit.analysis.sources.executed_code import ExecutedCode, is_model_code

MAX_DEPTH = 6
MAX_VALUES = 20_000

Value = Any  # a number, a tensor or an array


@dataclass
class StateValue:
    """One number, tensor or array, and how to replace it."""

    name: str
    value: Value
    replace: Callable[[Value], None]


def read_state(model: nn.Module, executed: ExecutedCode) -> dict[tuple[int, object], StateValue]:
    """Return the values that code of `model` can change, by owner and key, copied."""
    reader = _Reader()
    for path, module in model.named_modules():
        reader.read(vars(module), path, 0)
        for cls in type(module).__mro__:
            reader.read_class(cls)
    for code, (names, values) in executed.functions.items():
        for name in code.co_names:
            if name in names and not isinstance(names[name], (ModuleType, nn.Module)):
                reader.read_item(names, name, name, 0)
        for name, value in values.items():
            if not isinstance(value, (Tensor, nn.Module)):
                reader.read_contents(value, name, 1)
    return reader.values


class _Reader:
    def __init__(self) -> None:
        self.values: dict[tuple[int, object], StateValue] = {}
        self._seen: set[int] = set()

    def read(self, owner: MutableMapping[Any, Any], path: str, depth: int) -> None:
        if id(owner) in self._seen:
            return
        self._seen.add(id(owner))
        for key in list(owner):
            if (depth == 0 and key in ("_modules", "training")) or str(key).endswith("_hooks"):
                continue
            name = path if key in ("_parameters", "_buffers") else f"{path}.{key}".lstrip(".")
            self.read_item(owner, key, name, depth)

    def read_class(self, cls: type) -> None:
        package = cls.__module__.partition(".")[0]
        if id(cls) in self._seen or package in ("builtins", "torch"):
            return
        self._seen.add(id(cls))
        for name, value in list(vars(cls).items()):
            if not name.startswith("__"):
                replace = partial(setattr, cls, name)
                self._read_value((id(cls), name), f"{cls.__name__}.{name}", value, replace, 1)

    def read_item(self, owner: Any, key: Any, name: str, depth: int) -> None:
        def replace(new: Value) -> None:
            owner[key] = new

        self._read_value((id(owner), key), name, owner[key], replace, depth)

    def _read_value(
        self,
        place: tuple[int, object],
        name: str,
        value: Any,
        replace: Callable[[Value], None],
        depth: int,
    ) -> None:
        if len(self.values) >= MAX_VALUES:
            return
        if isinstance(value, Tensor):
            if not value.is_meta and value.layout == torch.strided:
                self.values[place] = StateValue(name, value.detach().clone(), replace)
        elif isinstance(value, np.ndarray):
            self.values[place] = StateValue(name, value.copy(), replace)
        elif isinstance(value, (bool, int, float, np.number)):
            self.values[place] = StateValue(name, value, replace)
        else:
            self.read_contents(value, name, depth + 1)

    def read_contents(self, value: Any, name: str, depth: int) -> None:
        """Read what a container or an object of the model's own class holds."""
        if depth > MAX_DEPTH or id(value) in self._seen:
            return
        if isinstance(value, MutableMapping):
            self.read(value, name, depth)
        elif isinstance(value, (MutableSequence, deque)):
            self._seen.add(id(value))
            for i in range(min(len(value), MAX_VALUES)):
                self.read_item(value, i, name, depth)
        elif isinstance(value, tuple):
            for each in value:
                if not isinstance(each, (Tensor, int, float)):
                    self.read_contents(each, name, depth + 1)
        elif _is_model_object(value):
            self.read(vars(value), name, depth)


def _is_model_object(value: Any) -> bool:
    """Return whether `value` is an object, or a function, with attributes of the model's own."""
    if isinstance(value, (type, ModuleType, nn.Module)) or not hasattr(value, "__dict__"):
        return False
    code = getattr(value, "__code__", None)
    if code is not None:
        return is_model_code(code.co_filename) and isinstance(vars(value), dict)
    package = type(value).__module__.partition(".")[0]
    return package not in ("torch", "numpy", "builtins") and isinstance(vars(value), dict)


def find_changes(
    before: dict[tuple[int, object], StateValue], after: dict[tuple[int, object], StateValue]
) -> list[StateValue]:
    """Return the values of `after` that are new or differ."""
    return [
        state
        for place, state in after.items()
        if place not in before or not _is_equal(before[place].value, state.value)
    ]


def _is_equal(one: Value, other: Value) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.shape == other.shape and one.dtype == other.dtype
        return same and bool(
            torch.equal(one, other)
            or (
                torch.equal(one.isnan(), other.isnan())
                and torch.equal(one.nan_to_num(), other.nan_to_num())
            )
        )
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and bool((one == other).all())
    return type(one) is type(other) and bool(one == other or one != one)


def other_values(state: StateValue) -> Iterator[Value]:
    """Yield values that `state` might have after other calls."""
    value = state.value
    if isinstance(value, Tensor):
        generator = torch.Generator().manual_seed(3)
        noise = torch.randn(value.shape, generator=generator).to(value.device)
        floating = value.is_floating_point() or value.is_complex()
        yield (value + 10 * noise.to(value.dtype)) if floating else value + 1
        yield (3 * value + 1) if floating else value + 1000
    elif isinstance(value, np.ndarray):
        yield value * 3 + 1 if value.dtype.kind in "iufc" else value
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, np.integer)):
        yield from (type(value)(value + step) for step in (1, 2, 100, 1000, 1_000_000))
    else:
        yield from (3 * value + 1, 1e6)
