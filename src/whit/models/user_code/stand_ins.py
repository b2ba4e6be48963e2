"""Stand-ins for packages that are not installed, or that fail when they are imported.

A file may import what its network does not need: loggers, progress bars, data sets. A stand-in has
every attribute and may be called, subclassed and used as a decorator; whatever needs its value
raises MissingPackage, which names the package:

- always: numbers, comparisons, truth, iteration, tensors, instances of its subclasses;
- while a network is built or runs: a call that is given a tensor or a module.

So a network is never built from a stand-in in place of the real thing.
"""

from __future__ import annotations

import contextlib
import re
import sys
import types
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NoReturn

import torch
from torch import nn

_executing = 0  # above 0 while the statements of a file are executed
_TYPE_NAME = re.compile(r"StandIn\[([\w.]+)\]")
_broken: dict[str, str] = {}  # package -> the error of its import
_locations: dict[str, Callable[[int], str]] = {}  # of lines of user's files
_raised: list[MissingPackage] = []


class MissingPackage(ImportError):
    """A package that a network needs is not installed, or fails when it is imported."""

    def __init__(self, package: str):
        reason = _broken.get(package)
        state = f"fails when it is imported ({reason})" if reason else "is not installed"
        self.package = package
        self.sentence = f"needs {package!r}, which {state}"  # without its subject
        location = _find_user_line()
        super().__init__(f"{self.sentence} ({location})" if location else self.sentence)
        _raised.append(self)


@contextlib.contextmanager
def collect_missing_packages() -> Iterator[list[MissingPackage]]:
    """Give a list to which every MissingPackage is added that is raised inside."""
    _raised.clear()
    yield _raised


def register_file(filename: str, format_location: Callable[[int], str]) -> None:
    """Give the messages about lines of a user's file their location."""
    _locations[filename] = format_location


def _find_user_line() -> str:
    """Return the location of the line of a user's file that is executed now, or ""."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename in _locations:
            return _locations[frame.f_code.co_filename](frame.f_lineno)
        frame = frame.f_back
    return ""


@contextlib.contextmanager
def executing_statements() -> Iterator[None]:
    """Allow stand-ins to be called with anything: the statements of a file are executed."""
    global _executing
    _executing += 1
    try:
        yield
    finally:
        _executing -= 1


def mark_broken(package: str, reason: str) -> None:
    _broken[package] = reason


def find_missing_package(error: BaseException) -> MissingPackage | None:
    """Return the missing package behind an exception, or None."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, MissingPackage):
            return chain
        # torch names the type of what is no tensor or module.
        if isinstance(chain, TypeError) and (match := _TYPE_NAME.search(str(chain))):
            return MissingPackage(match[1])
        chain = chain.__cause__ or chain.__context__
    return None


def missing_package_of(value: object) -> str | None:
    """Return the package of a stand-in or of a class derived from one, else None."""
    if isinstance(value, StandIn):
        return value._package
    if isinstance(value, type) and issubclass(value, _Base):
        package: str = value._package  # type: ignore[attr-defined]
        return package
    return None


class StandIn:
    """Any object of a package that is missing."""

    _package: str

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("__") and name.endswith("__") and name != "__version__":
            raise AttributeError(name)
        return _stand_in(self._package, f"{self._name}.{name}")

    def __call__(self, *args: object, **options: object) -> StandIn:
        if not _executing and any(map(_holds_tensors, (*args, *options.values()))):
            self._fail()
        return _stand_in(self._package, f"{self._name}()")

    def __getitem__(self, key: object) -> StandIn:
        return _stand_in(self._package, f"{self._name}[]")

    def __or__(self, other: object) -> StandIn:  # in annotations
        if not isinstance(other, type | types.GenericAlias | StandIn | None):
            self._fail()
        return self

    __ror__ = __or__

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        if other is self:
            return True
        # `typing` compares annotations with its own objects.
        is_plain = isinstance(other, str | bytes | int | float | list | tuple | dict | set | None)
        return self._fail() if is_plain else False

    def __hash__(self) -> int:
        return id(self)

    def __instancecheck__(self, instance: object) -> bool:
        return False  # nothing comes from a package that is missing

    def __subclasscheck__(self, subclass: type) -> bool:
        return False

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        base = _base_type(self._package)
        earlier = bases[: next(i for i, b in enumerate(bases) if b is self)]
        is_repeated = any(isinstance(b, StandIn) and b._package == self._package for b in earlier)
        return () if is_repeated else (base,)

    def __repr__(self) -> str:
        return f"<{self._name}: {self._package!r} is missing>"

    def _fail(self, *args: object, **options: object) -> NoReturn:
        raise MissingPackage(self._package)

    @classmethod
    def __torch_function__(cls, *args: object, **options: object) -> NoReturn:
        raise MissingPackage(cls._package)


_VALUES = """
    bool int float complex index len iter next contains reversed add radd sub rsub mul rmul truediv
    rtruediv floordiv rfloordiv mod rmod pow rpow matmul rmatmul and rand xor rxor neg pos abs
    invert lt le gt ge ne round trunc floor ceil bytes array fspath setitem delitem await aiter
"""
for _value in _VALUES.split():
    setattr(StandIn, f"__{_value}__", StandIn._fail)


class StandInModule(types.ModuleType):
    """A module of a package that is missing."""

    def __init__(self, name: str, package: str):
        super().__init__(name)
        self.__path__: list[str] = []  # so that its submodules can be imported
        self.package = package
        self._stand_in = _stand_in(package, name)

    def __getattr__(self, name: str) -> Any:
        if name == "_stand_in":
            raise AttributeError(name)
        return getattr(self._stand_in, name)

    def __call__(self, *args: object, **options: object) -> StandIn:  # `from tqdm import tqdm`
        return self._stand_in(*args, **options)


class _Base:
    """The base of a class that derives from a stand-in."""

    _package: str

    def __new__(cls, *args: object, **options: object) -> NoReturn:
        raise MissingPackage(cls._package)


@cache
def _type_for(package: str) -> type[StandIn]:
    return type(f"StandIn[{package}]", (StandIn,), {"_package": package})


@cache
def _base_type(package: str) -> type:
    return type(f"StandIn[{package}]", (_Base,), {"_package": package})


def _stand_in(package: str, name: str) -> StandIn:
    return _type_for(package)(name)


def _holds_tensors(value: object, depth: int = 3) -> bool:
    if isinstance(value, torch.Tensor | nn.Module | nn.Parameter):
        return True
    if depth and isinstance(value, list | tuple | set):
        return any(_holds_tensors(item, depth - 1) for item in value)
    if depth and isinstance(value, dict):
        return any(_holds_tensors(item, depth - 1) for item in value.values())
    return False
