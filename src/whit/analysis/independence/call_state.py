"""The state that a call of a model may change: attributes, buffers, globals, class attributes."""

from __future__ import annotations

import itertools
import numbers
import os
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence, MutableSet
from contextlib import suppress
from contextvars import ContextVar
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
LATE = 2000  # calls after which a counter may have an effect
_STEPS = (1, 2, 100, 1000, 1_000_000)
_OF_MODULES = frozenset(vars(nn.Module()))  # attributes that every module has

Value = Any  # a number, a tensor or an array


@dataclass
class StateValue:
    """One number, tensor or array, and how to replace it."""

    name: str
    value: Value
    replace: Callable[[Value], object]


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
    reader.read(os.environ, "os.environ", 1)
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
            if depth == 0 and key in ("_modules", "training"):
                continue
            if str(key).endswith("_hooks"):
                for hook in list(owner[key].values()) if isinstance(owner[key], dict) else ():
                    self.read_contents(hook, f"{path}.{key}".lstrip("."), depth + 1)
                continue
            if depth == 0 and key in _OF_MODULES:
                if isinstance(owner[key], MutableMapping):
                    self.read(owner[key], path, 1)
                continue
            self.read_item(owner, key, f"{path}.{key}".lstrip("."), depth)

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
        replace: Callable[[Value], object],
        depth: int,
    ) -> None:
        if len(self.values) >= MAX_VALUES:
            return
        if isinstance(value, Tensor):
            if not value.is_meta and value.layout == torch.strided:
                self.values[place] = StateValue(name, value.detach().clone(), replace)
        elif isinstance(value, np.ndarray):
            self.values[place] = StateValue(name, value.copy(), replace)
        elif isinstance(value, (numbers.Number, str, bytes)):
            self.values[place] = StateValue(name, value, replace)
        elif isinstance(value, ContextVar):
            self._read_value((id(value), "value"), name, value.get(None), value.set, depth + 1)
        else:
            if isinstance(value, tuple) and any(isinstance(v, numbers.Number) for v in value):
                self.values[place] = StateValue(name, value, replace)
            self.read_contents(value, name, depth + 1)

    def read_contents(self, value: Any, name: str, depth: int) -> None:
        """Read what a container or an object of the model's own class holds."""
        if depth > MAX_DEPTH or id(value) in self._seen:
            return
        if isinstance(value, (MutableMapping, MutableSequence, MutableSet)):
            size = Size(len(value))
            self.values[id(value), Size] = StateValue(name, size, partial(_resize, value))
        if isinstance(value, MutableMapping):
            self.read(value, name, depth)
        elif isinstance(value, Iterator):
            self._seen.add(id(value))
            self._read_iterator(value, name, depth)
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
            for cell in getattr(value, "__closure__", None) or ():
                with suppress(ValueError):  # an empty cell
                    replace = partial(setattr, cell, "cell_contents")
                    contents = cell.cell_contents
                    self._read_value((id(cell), "cell"), name, contents, replace, depth + 1)
        if not isinstance(value, (type, ModuleType)):
            for slot in _list_slots(type(value)):
                if hasattr(value, slot):
                    replace, inner = partial(setattr, value, slot), getattr(value, slot)
                    self._read_value((id(value), slot), f"{name}.{slot}", inner, replace, depth + 1)

    def _read_iterator(self, value: Iterator[Any], name: str, depth: int) -> None:
        """Read how far an iterator is; another value is a later one, and there is no way back."""
        frame = getattr(value, "gi_frame", None)
        if frame is not None and is_model_code(frame.f_code.co_filename):
            position = repr(sorted(frame.f_locals.items(), key=lambda item: item[0])[:20])
        elif type(value).__module__ == "itertools":
            position = repr(value)
        else:
            return
        self.values[id(value), "position"] = StateValue(
            name, Position(position), partial(_advance, value)
        )


class Size(int):
    """The number of elements of a container."""


class Position(str):
    """How far an iterator is."""

    __slots__ = ()


class _Filler:
    """An element that makes a set or a dict larger."""


def _resize(container: Any, size: int) -> None:
    """Give a container another number of elements, and back: what is added goes first."""
    if isinstance(container, MutableSequence):
        last = container[-1] if len(container) else None
        while len(container) > size:
            container.pop()
        if getattr(container, "maxlen", None) is None:
            container.extend([last] * (size - len(container)))
        return
    fillers = [each for each in container if isinstance(each, _Filler)]
    for filler in fillers:
        if isinstance(container, MutableMapping):
            del container[filler]
        else:
            container.discard(filler)
    value = next(iter(container.values()), None) if isinstance(container, MutableMapping) else None
    for _ in range(size - len(container)):
        if isinstance(container, MutableMapping):
            container[_Filler()] = value
        else:
            container.add(_Filler())


def _advance(iterator: Iterator[Any], position: str) -> None:
    if isinstance(position, Position):
        return  # it cannot go back
    late = 10 * LATE if hasattr(iterator, "gi_frame") else 1000 * LATE
    deque(itertools.islice(iterator, late), maxlen=0)


def _list_slots(cls: type) -> Iterator[str]:
    """Yield the names of the slots of a class of the model's own."""
    for parent in cls.__mro__:
        if parent.__module__.partition(".")[0] not in ("builtins", "torch", "numpy", "typing"):
            slots = vars(parent).get("__slots__", ())
            names = (slots,) if isinstance(slots, str) else tuple(slots)
            yield from (name for name in names if not name.startswith("__"))


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
) -> dict[tuple[int, object], StateValue]:
    """Return the values of `after` that are new or differ."""
    return {
        place: state
        for place, state in after.items()
        if place not in before or not _is_equal(before[place].value, state.value)
    }


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
    elif isinstance(value, Size):
        yield from (value + step for step in (1, 2, 100, LATE))
    elif isinstance(value, Position):
        yield str(value)
    elif isinstance(value, (int, np.integer)):
        yield from (type(value)(value + step) for step in _STEPS)
    elif isinstance(value, (str, bytes)):
        yield from _other_texts(value)
    elif isinstance(value, tuple):
        for step in _STEPS:
            moved = [_move(each, step) for each in value]
            yield type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)
    elif isinstance(value, (float, np.floating)):
        yield from (3 * value + 1, 1e6)
    else:
        yield from (3 * value + 1, value + 1_000_000)


def _move(value: Any, step: int) -> Any:
    is_number = isinstance(value, numbers.Number)
    return value + step if is_number else value


def _other_texts(value: Any) -> Iterator[Any]:
    """Yield a later number where a text is one, and longer texts."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    with suppress(ValueError):
        for step in _STEPS:
            later = str(int(text) + step)
            yield later.encode() if isinstance(value, bytes) else later
    longer = text + (text[-1:] or "x") * LATE
    yield longer.encode("latin-1") if isinstance(value, bytes) else longer
