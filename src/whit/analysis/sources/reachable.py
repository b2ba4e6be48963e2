"""The Python values that the executed code of a model can read: numbers, text, bytes, arrays.

A forward pass can take stored numbers from anywhere: a list at module level, a default argument, a
class attribute, an enum, an iterator over a tuple, digits of a text. So nothing is searched by
type of hiding place. From the names that the executed code contains, its closures and arguments,
and the attributes of modules, the search follows every reference, as the garbage collector does.
"""

from __future__ import annotations

import array
import gc
import numbers
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    MethodType,
    ModuleType,
    TracebackType,
)
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from whit.analysis.sources.executed_code import ExecutedCode, is_model_code
from whit.analysis.sources.number_formats import (
    MAX_ARRAY,
    MIN_TEXT,
    array_numbers,
    is_number_list,
    parse_number,
    read_buffer,
    to_numbers,
)

MIN_DATA = 24  # so many numbers in one place are data; fewer are sizes, strides and settings
MIN_LITERALS = 64  # so many different numbers written in the code of one function are data
MAX_VISITED = 300_000  # references followed; beyond, what is reachable counts as unknown
MAX_NUMBERS = 5_000_000
MAX_DIGITS = 19  # of a decimal number that stands for one

_SKIPPED_TYPES = (
    *(BuiltinFunctionType, FrameType, TracebackType, torch.dtype, torch.device, torch.Generator),
    *(torch.Size, torch.layout, torch.memory_format),
)
# Types of data that a model can hang on a module or a class that is not its own.
_DATA_TYPES = (list, tuple, dict, bytes, bytearray, array.array, np.ndarray, Tensor)
# Packages whose functions compute and store no numbers of a model.
_COMPUTING = frozenset(
    {"torch", "numpy", "einops", "torchvision", "timm", "opt_einsum", "whit", "typing_extensions"}
)
# Names by which code reaches values that it does not name.
_DYNAMIC = frozenset(
    {"globals", "vars", "__dict__", "__globals__", "__import__", "import_module", "eval", "exec"}
    | {"_getframe", "f_globals", "f_locals", "get_objects", "get_referrers", "getsource"}
)
_READ_DUNDERS = frozenset({"__doc__", "__annotations__", "__match_args__"})
_RANDOM = ("random", "numpy.random", "secrets")


@dataclass
class Holding:
    """The numbers in one place: a module's attributes, a file's globals, a function's code."""

    name: str  # of its largest part
    parts: list[npt.NDArray[np.float64]] = field(default_factory=list)
    num_bytes: int = 0  # of text and bytes, each of which may stand for a number
    largest: int = 0
    is_code: bool = False
    is_spread: bool = False  # one setting of each of many modules

    @property
    def num_numbers(self) -> int:
        return sum(map(len, self.parts))

    @property
    def is_data(self) -> bool:
        """Whether these are more numbers than sizes and settings of a network."""
        if self.is_code or self.is_spread:
            distinct = len(np.unique(np.concatenate(self.parts))) if self.parts else 0
            least = MIN_DATA if self.is_spread else MIN_LITERALS
            return distinct >= least or self.num_bytes >= MIN_TEXT
        return self.num_numbers >= MIN_DATA or self.num_bytes >= MIN_DATA

    def add(self, name: str, numbers: npt.NDArray[np.float64], num_bytes: int = 0) -> None:
        self.parts.append(numbers)
        self.num_bytes += num_bytes
        if len(numbers) + num_bytes > self.largest:
            self.name, self.largest = name, len(numbers) + num_bytes


@dataclass
class Reachable:
    """What executed code can read."""

    holdings: dict[tuple[str, object], Holding] = field(default_factory=dict)
    tensors: dict[int, tuple[str, Tensor]] = field(default_factory=dict)  # by id
    opaque: dict[str, None] = field(default_factory=dict)  # sources that cannot be searched

    @property
    def data(self) -> list[Holding]:
        return [holding for holding in self.holdings.values() if holding.is_data]


def find_reachable(model: nn.Module, executed: ExecutedCode) -> Reachable:
    """Return what the code executed in a pass of `model` can read. Calls no code of the model."""
    search = _Search()
    for path, module in model.named_modules():
        search.visit_module(path, module)
    for code, (names, values) in executed.functions.items():
        search.visit_function(code, names, values)
    return search.found


class _Search:
    def __init__(self) -> None:
        self.found = Reachable()
        self._seen: set[int] = set()
        self._classes: set[type] = set()
        self._alive: list[Any] = []  # so that no id is used twice
        self._num_numbers = 0

    # --- where a search begins ------------------------------------------------------------

    def visit_module(self, path: str, module: nn.Module) -> None:
        owner = ("module", path)
        for leaf, value in vars(module).items():
            if leaf not in ("_parameters", "_buffers", "_modules"):
                self.visit(owner, f"{path}.{leaf}".lstrip("."), value)
                if type(value) is float:  # one setting of each of many modules
                    kind = type(module)
                    spread = self._holding(("setting", (kind, leaf)), f"{kind.__name__}.{leaf}")
                    spread.is_spread = True
                    spread.add(spread.name, np.array([value]))
        if isinstance(module, torch.jit.ScriptModule):
            self._visit_script(path, module)
        for parent in type(module).__mro__:
            self._visit_class(parent)

    def _visit_script(self, path: str, module: torch.jit.ScriptModule) -> None:
        """Search the code and the attributes of a script module, which are not Python's."""
        name = f"the script module {path or type(module).__name__}"
        try:
            for leaf in module._concrete_type.get_attributes():
                value = module._c.getattr(leaf)
                if not isinstance(value, (Tensor, torch.ScriptObject)):
                    self.visit(("script", path), f"{path}.{leaf}".lstrip("."), value)
            graph = module.inlined_graph  # kept, as its nodes live no longer than it
            nodes = graph.findAllNodes("prim::Constant")  # type: ignore[attr-defined]
            values = [node.output().toIValue() for node in nodes]
        except (AttributeError, RuntimeError):
            self.found.opaque[name] = None
            return
        self._holding(("code", path), name).is_code = True
        for value in values:
            if isinstance(value, (int, float, str, list, tuple)):
                self.visit(("code", path), name, value)

    def visit_function(self, code: CodeType, names: dict[str, Any], values: dict[str, Any]) -> None:
        """Search what a function names: globals, closures, arguments, literals."""
        self._visit_code(code)
        used = set(_names_in(code))
        if used & _DYNAMIC:
            self.found.opaque["names that are looked up while the code runs"] = None
        for name in used:
            if name in names:
                self._visit_global(("globals", id(names)), name, names[name], used)
            elif name in sys.modules:  # imported inside the function
                self._visit_global(("globals", id(names)), name, sys.modules[name], used)
        for name, value in values.items():
            if not isinstance(value, (nn.Module, Tensor)):
                self.visit(("call", code), f"{name} of {code.co_name}", value)

    def _visit_global(
        self, owner: tuple[str, object], name: str, value: Any, used: set[str]
    ) -> None:
        self._note_source(value)
        if not isinstance(value, ModuleType):
            self.visit(owner, name, value)
            return
        package = value.__name__.partition(".")[0]
        if package == "torch":
            for attribute in used & set(vars(value)):
                inner = vars(value)[attribute]
                if isinstance(inner, _DATA_TYPES):  # of torch's own, few are of these types
                    self.visit(("globals", id(vars(value))), f"{name}.{attribute}", inner)
            return
        for attribute in used & set(vars(value)):
            inner = vars(value)[attribute]
            self._note_source(inner)
            if not isinstance(inner, ModuleType) and package not in _COMPUTING:
                self.visit(("globals", id(vars(value))), f"{name}.{attribute}", inner)

    def _note_source(self, value: Any) -> None:
        """Note what can give any number and cannot be searched."""
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        if not isinstance(name, str):
            return
        if isinstance(value, (np.random.Generator, np.random.RandomState)):
            name = "numpy.random"
        if name in _RANDOM or name.startswith("numpy.random."):
            self.found.opaque["random numbers of Python or NumPy"] = None
        package = name.partition(".")[0]
        if package in sys.stdlib_module_names or package in _COMPUTING or package == "builtins":
            return
        module = sys.modules.get(package)
        file = getattr(module, "__file__", None) or ""
        if "site-packages" in file or "dist-packages" in file:
            self.found.opaque[f"the package {package}"] = None

    # --- following references -------------------------------------------------------------

    def visit(self, owner: tuple[str, object], name: str, root: Any) -> None:
        stack = [root]
        while stack:
            value = stack.pop()
            if value is None or isinstance(value, (bool, *_SKIPPED_TYPES)):
                continue
            if isinstance(value, (int, float, complex, np.number)):
                self._add(owner, name, to_numbers([value]))
                continue
            if isinstance(value, str):
                self._add_text(owner, name, value)
                continue
            if id(value) in self._seen:
                continue
            self._seen.add(id(value))
            self._alive.append(value)
            if len(self._seen) > MAX_VISITED or self._num_numbers > MAX_NUMBERS:
                self.found.opaque["more Python objects than can be searched"] = None
                return
            stack += self._expand(owner, name, value)

    def _expand(self, owner: tuple[str, object], name: str, value: Any) -> Iterable[Any]:
        """Return what `value` refers to, and add its own numbers."""
        self._add_sizes(owner, name, value)
        if isinstance(value, Tensor):
            self.found.tensors[id(value)] = name, value
        elif isinstance(value, (bytes, bytearray, memoryview)):
            known = 0 < len(value) <= MAX_ARRAY
            values = np.frombuffer(value, dtype=np.uint8) if known else np.zeros(0)
            self._add(owner, name, values.astype(np.float64), len(value))
        elif isinstance(value, array.array):
            self._add(owner, name, to_numbers(value.tolist()))
        elif isinstance(value, np.ndarray):
            if value.dtype.kind in "mM":
                value = value.astype(np.int64)
            if value.dtype.kind == "V" and not value.dtype.hasobject:
                return [np.ascontiguousarray(value[each]) for each in value.dtype.names or ()] or [
                    value.tobytes()
                ]
            if value.dtype.kind in "biufc":
                values = array_numbers(value) if value.size <= MAX_ARRAY else np.zeros(0)
                self._add(owner, name, values, 0 if len(values) else value.size)
            return value.ravel().tolist() if value.dtype.kind in "OUS" else ()
        elif isinstance(value, nn.Module):
            self.visit_module(f"{name}", value)
        elif isinstance(value, type):
            self._visit_class(value)
        elif isinstance(value, FunctionType):
            cells = [cell for cell in value.__closure__ or () if _is_filled(cell)]
            contents = [cell.cell_contents for cell in cells]
            defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
            own = is_model_code(value.__code__.co_filename)
            if own:  # it may have been called before, and left what it read
                self.visit_function(value.__code__, value.__globals__, {})
            return [*contents, *defaults, *vars(value).values()] if own else ()
        elif isinstance(value, MethodType):
            return (value.__self__, value.__func__)
        elif isinstance(value, (ModuleType, CodeType)):
            return ()
        elif isinstance(value, (list, tuple)) and _is_flat(value):
            self._add(owner, name, to_numbers(value))
        else:
            module = type(value).__module__
            if module.partition(".")[0] == "torch":
                return ()
            return self._expand_object(owner, name, value)
        return ()

    def _expand_object(self, owner: tuple[str, object], name: str, value: Any) -> list[Any]:
        """Return what an object of any type refers to; one without references may be a number."""
        referents = [each for each in gc.get_referents(value) if not isinstance(each, ModuleType)]
        if isinstance(value, numbers.Number):  # a Decimal, a Fraction
            self._add(owner, name, to_numbers([value]))
            if isinstance(value, Decimal):
                digits = value.as_tuple().digits
                return [int("".join(map(str, digits)))] if len(digits) > MAX_DIGITS else []
            long = (each for each in referents if isinstance(each, int))
            return [each for each in long if each.bit_length() > 64]
        contents = read_buffer(value)
        if contents is not None:  # of ctypes, for example
            self._add(owner, name, contents, contents.nbytes)
            return []
        is_leaf = all(isinstance(each, type) for each in referents)
        if is_leaf and type(value) is not object and not hasattr(type(value), "__len__"):
            self._add(owner, name, np.array([np.nan]))
        return referents

    def _visit_class(self, cls: type) -> None:
        if cls in self._classes:
            return
        self._classes.add(cls)
        owner = ("class", cls)
        if not _is_model_class(cls):
            for name, value in vars(cls).items():
                if isinstance(value, _DATA_TYPES) and not name.startswith("__"):
                    self.visit(owner, f"{cls.__name__}.{name}", value)
            return
        for name, value in vars(cls).items():
            if name in _READ_DUNDERS or not (name.startswith("__") and name.endswith("__")):
                inner = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
                self.visit(owner, f"{cls.__name__}.{name}", inner)

    def _visit_code(self, code: CodeType) -> None:
        owner = ("code", code)
        holding = self._holding(owner, f"the code of {code.co_name}")
        holding.is_code = True
        for constant in code.co_consts:
            for value in _flatten_constants(constant):
                self.visit(owner, holding.name, value)

    # --- what is found ----------------------------------------------------------------------

    def _holding(self, owner: tuple[str, object], name: str) -> Holding:
        return self.found.holdings.setdefault(owner, Holding(name))

    def _add(
        self,
        owner: tuple[str, object],
        name: str,
        numbers: npt.NDArray[np.float64],
        num_bytes: int = 0,
    ) -> None:
        self._num_numbers += len(numbers)
        self._holding(owner, name).add(name, numbers, num_bytes)

    def _add_sizes(self, owner: tuple[str, object], name: str, value: Any) -> None:
        """Add the sizes of a container, which are numbers too if there are many different ones."""
        if isinstance(value, (Tensor, np.ndarray)):
            sizes = list(value.shape)
        elif isinstance(value, (list, tuple, dict, set, frozenset, bytes, bytearray)):
            sizes = [len(value)]
        else:
            return
        holding = self._holding(("sizes", owner), f"the sizes of {name}")
        holding.is_spread = True
        holding.parts.append(to_numbers(sizes))

    def _add_text(self, owner: tuple[str, object], name: str, text: str) -> None:
        """Add a text that is a number, or may hold some: long, and not in words."""
        number = parse_number(text)
        if number is not None:
            self._add(owner, name, np.array([number]))
        elif (len(text) >= MIN_TEXT and text.count(" ") * 20 < len(text)) or is_number_list(text):
            self._add(owner, name, np.zeros(0), len(text))


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _is_flat(values: Iterable[Any]) -> bool:
    return all(type(value) in (int, float, complex, bool) for value in values)


def _is_model_class(cls: type) -> bool:
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if cls.__module__.partition(".")[0] in ("builtins", "torch", "numpy"):
        return False
    return file is None or is_model_code(file)


def _names_in(code: CodeType) -> Iterator[str]:
    """Yield the names that `code` and the functions defined inside it use.

    Its short texts are among them: `getattr(table, "weights")` names what it reads.
    """
    texts = (value for value in code.co_consts if isinstance(value, str) and len(value) < MIN_TEXT)
    for name in (*code.co_names, *(text for text in texts if text.isidentifier())):
        yield name
        if "." in name:  # import a.b
            yield name.partition(".")[0]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _flatten_constants(constant: Any) -> Iterator[Any]:
    if isinstance(constant, CodeType):
        for inner in constant.co_consts:
            yield from _flatten_constants(inner)
    elif isinstance(constant, (tuple, frozenset)):
        for inner in constant:
            yield from _flatten_constants(inner)
    else:
        yield constant
