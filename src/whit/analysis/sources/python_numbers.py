"""Python numbers that enter tensors in a forward pass: code, a formula, or stored numbers.

`x * 0.5` is code, a grid computed in a loop is a formula, and a loop over a list of weights reads
stored numbers. What tells them apart is not how a number enters a tensor but where it can come
from: a line through which many different numbers pass is a loop, and its numbers are stored if
they are found among the values that the executed code can read. A formula reads none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from whit.analysis.sources.executed_code import CodeLine
from whit.analysis.sources.reachable import MIN_DATA, Holding, Reachable

if TYPE_CHECKING:
    from whit.analysis.tracing.stored_tensors import TensorRegistry
    from whit.analysis.tracing.trace import Trace

LOOP = 16  # through one line of code: more different numbers than this come from a loop
LONG_LOOP = 64  # so many numbers come from a loop even if only two of them differ
# Functions by which the values of a tensor leave torch.
_LEAVING = frozenset(
    {"tolist", "numpy", "item", "float", "int", "array", "untyped_storage", "storage", "data_ptr"}
)
_MAX_TENSOR = 1_000_000  # elements of a tensor that are compared with numbers

_numeric_positions: dict[Any, tuple[bool, ...]] = {}  # by operation: takes a number as a value


def find_numbers(
    func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[float, ...]:
    """Return the Python numbers that an operation takes as values, not as sizes or positions."""
    if name == "lift_fresh":
        tensor = args[0]
        if tensor.numel() != 1 or tensor.is_quantized:
            return ()
        return tuple(_tensor_numbers(tensor).tolist())
    positions = _numeric_positions.get(func)
    if positions is None:
        types = (str(argument.type) for argument in func._schema.arguments)
        positions = tuple(text.removeprefix("Optional[") in _VALUES for text in types)
        _numeric_positions[func] = positions
    numbers: list[float] = []
    for i, value in enumerate(args):
        numbers += _values_of(value, i < len(positions) and positions[i])
    for key, value in kwargs.items():
        numbers += _values_of(value, key in ("value", "alpha", "other", "fill_value"))
    return tuple(numbers)


_VALUES = frozenset({"number", "number]", "Scalar", "Scalar]", "Tensor", "Tensor]"})


def _values_of(value: Any, is_value: bool) -> list[float]:
    kind = type(value)
    if kind is float or (isinstance(value, float) and kind is not bool):
        return [float(value)]
    if kind is complex:
        return [value.real, value.imag]
    if kind is int and is_value:
        return [float(value)] if abs(value) < 2**63 else []
    if kind in (list, tuple):
        return [float(each) for each in value if type(each) is float]
    return []


@dataclass
class NumberCount:
    """What is found about the Python numbers of a pass."""

    counted: int = 0
    names: tuple[str, ...] = ()
    computed: set[int] = field(default_factory=set)  # constants that a formula gave
    unverified: list[str] = field(default_factory=list)


class _Known:
    """Numbers to compare with, rounded to float32 as in a tensor."""

    def __init__(self, holdings: Iterable[Holding]):
        self.holdings = [
            (holding, np.unique(_round(np.concatenate(holding.parts))))
            for holding in holdings
            if holding.num_numbers
        ]

    def find(self, numbers: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which of `numbers` are known."""
        found = np.zeros(len(numbers), dtype=bool)
        for _, values in self.holdings:
            found |= np.isin(_round(numbers), values)
        return found

    def holders(self, numbers: npt.NDArray[np.float64]) -> list[Holding]:
        """Return the holdings of some of `numbers`, the one with the most of them first."""
        distinct = np.unique(_round(numbers))
        matching = [
            (int(np.isin(distinct, values).sum()), holding) for holding, values in self.holdings
        ]
        matching.sort(key=lambda pair: -pair[0])
        return [holding for count, holding in matching if count]


def count_python_numbers(
    trace: Trace,
    registry: TensorRegistry,
    reachable: Reachable,
    counted: set[int],
    outside: bool,
) -> NumberCount:
    """Count the Python numbers that the live operations of `trace` read.

    `counted` are the registry entries that count anyway; numbers that come from them, as through
    `tolist()`, are the same numbers. `outside`: the pass also reads files.
    """
    result = NumberCount()
    data = reachable.data
    if any(call.name in _LEAVING for call in trace.function_calls):
        data += _uncounted_tensors(registry, reachable, counted)
    left = sum(registry.entries[index].num_elements for index in trace.left_entries)
    is_closed = not data and not reachable.opaque and not outside
    known = _Known(data)
    sites: dict[CodeLine, list[float]] = {}
    for op in trace.ops:
        if op.live and op.numbers and op.line:
            sites.setdefault(op.line, []).extend(op.numbers)
    in_loops, single = [np.zeros(0)], [np.zeros(0)]
    for line, values in sites.items():
        numbers = np.array(values)
        is_known = known.find(numbers)
        distinct = len(np.unique(numbers))
        is_loop = distinct > LOOP or (len(numbers) >= LONG_LOOP and distinct > 1)
        (in_loops if is_loop else single).append(numbers[is_known])
        rest = numbers[~is_known]
        unexplained = len(np.unique(rest)) if is_loop else 0
        is_doubtful = unexplained > LOOP and (not is_closed or 0 < left < unexplained)
        if is_doubtful and _find_registered(registry, counted).find(rest).mean() < 0.5:
            names = [registry.entries[index].name for index in sorted(trace.left_entries)]
            result.unverified.append(_describe_doubt(line, rest, data, reachable, names, outside))
    found = np.concatenate(in_loops)
    if len(np.unique(np.concatenate(single))) >= MIN_DATA:  # each on a line of its own
        found = np.concatenate([found, *single])
    if len(found) > LOOP:
        holders = known.holders(found)
        available = sum(holding.num_numbers for holding in holders)
        result.counted = min(len(found), available)
        result.names = tuple(holding.name for holding in holders[:3])
    written = _Known(reachable.holdings.values())
    for index, tensor in trace.constants.items():
        entry = registry.entries[index]
        if not entry.literal or entry.num_elements <= 1:
            continue
        if _is_computed(tensor, written, known, is_closed and not left) or (
            left and _is_known(tensor, _find_registered(registry, counted - {index}))
        ):
            result.computed.add(index)
    return result


def _is_known(tensor: Tensor, known: _Known) -> bool:
    """Return whether the numbers of `tensor` are known ones, as those that left torch are."""
    numbers = np.unique(_round(_tensor_numbers(tensor)))
    return len(numbers) > 0 and bool(known.find(numbers).all())


def _find_registered(registry: TensorRegistry, counted: set[int]) -> _Known:
    """Return the numbers of the parameters and buffers that count."""
    return _Known(
        _tensor_holding("", tensor)
        for index in counted
        if (tensor := registry.find_tensor(index)) is not None
        and registry.entries[index].role != "constant"
    )


def _uncounted_tensors(
    registry: TensorRegistry, reachable: Reachable, counted: set[int]
) -> list[Holding]:
    """Return the stored tensors that no operation reads: their values may leave torch."""
    tensors = [
        (name, tensor)
        for name, tensor in reachable.tensors.values()
        if not _overlapping(registry, tensor)
    ]
    tensors += [
        (entry.name, tensor)
        for entry in registry.entries
        if entry.index not in counted and (tensor := registry.find_tensor(entry.index)) is not None
    ]
    holdings = (_tensor_holding(name, tensor) for name, tensor in tensors)
    return [holding for holding in holdings if holding.is_data]


def _describe_doubt(
    line: CodeLine,
    numbers: npt.NDArray[np.float64],
    data: list[Holding],
    reachable: Reachable,
    left: list[str],
    outside: bool,
) -> str:
    """Return the sentence on numbers that may have been computed from stored ones."""
    sources = [holding.name for holding in sorted(data, key=lambda h: -h.largest)[:2]]
    sources += [*left[:2], *[*reachable.opaque][:1]]
    sources += ["a file"] if outside and not sources else []
    return (
        f"{len(numbers):,} numbers enter tensors at {line}, and they may be computed from "
        f"{' or '.join(sources)}: whether they are stored numbers is not known. What operations of "
        "torch compute, such as arange and sin, is known to be a formula"
    )


def _is_computed(tensor: Tensor, written: _Known, known: _Known, is_closed: bool) -> bool:
    """Return whether the numbers of `tensor`, made from Python values, come from a formula."""
    if not is_closed or tensor.is_quantized or tensor.numel() > _MAX_TENSOR:
        return False
    numbers = np.unique(_round(_tensor_numbers(tensor)))
    steps = np.diff(numbers)
    if len(numbers) > 2 and np.all(numbers % 1 == 0) and np.all(steps == steps[0]):
        return not known.find(numbers).all()  # 0, 1, 2, ...
    return bool(written.find(numbers).mean() < 0.5)


def _tensor_holding(name: str, tensor: Tensor) -> Holding:
    holding = Holding(name)
    if tensor.numel() <= _MAX_TENSOR and not tensor.is_meta:
        holding.add(name, _tensor_numbers(tensor))
    return holding


def _tensor_numbers(tensor: Tensor) -> npt.NDArray[np.float64]:
    """Return the elements as float64; a tensor without plain memory has none."""
    try:
        with torch.no_grad():
            values = tensor.detach()
            values = values.dequantize() if values.is_quantized else values
            values = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
            return values.cpu().to(torch.float64).reshape(-1).numpy()
    except (RuntimeError, NotImplementedError, TypeError):
        return np.zeros(0)


def _overlapping(registry: TensorRegistry, tensor: Tensor) -> list[int]:
    try:
        return registry.overlapping(tensor)
    except (RuntimeError, NotImplementedError):
        return []


def _round(numbers: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)
