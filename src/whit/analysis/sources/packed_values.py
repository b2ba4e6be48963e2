"""Numbers that are stored several in one: unpacked by type, by bits or by digits.

A number counts as the numbers that it is read as: an int64 that is viewed as eight int8 is eight.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from whit.analysis.tracing.stored_tensors import TensorRegistry
    from whit.analysis.tracing.trace import Op, Trace

# Operations that take a part of a number: some of its bits or digits.
_PARTS_OF_NUMBERS = frozenset(
    {
        *("__rshift__", "bitwise_right_shift", "__and__", "bitwise_and", "__irshift__"),
        *("remainder", "fmod", "floor_divide", "floor", "trunc", "round", "ceil", "frac", "frexp"),
        *("bitwise_xor", "__xor__", "gcd", "ldexp"),
    }
)
_MAX_PARTS = 64  # of a number of 64 bits


class PackedModules:
    """Weights inside the opaque objects of torch's quantized modules."""

    def __init__(self) -> None:
        self._tensors: dict[int, tuple[Any, list[Tensor]]] = {}  # by id of the object

    @property
    def unread(self) -> list[str]:
        """The types of objects that hold no tensors that can be read."""
        return [str(found._type()) for found, tensors in self._tensors.values() if not tensors]

    def unpack(self, args: tuple[Any, ...]) -> list[Tensor]:
        """Return the tensors inside the packed weights among the arguments of an operation."""
        tensors: list[Tensor] = []
        for argument in tree_leaves(args):
            if isinstance(argument, torch.ScriptObject) and not _is_profiler(argument):
                if id(argument) not in self._tensors:
                    self._tensors[id(argument)] = argument, _unpack(argument)
                tensors += self._tensors[id(argument)][1]
        return tensors


def _is_profiler(found: torch.ScriptObject) -> bool:
    """Return whether an object only marks a region of code for a profiler."""
    return ".profiler." in str(found._type())


def _unpack(packed: Any) -> list[Tensor]:
    for read in ("unpack", "__getstate__"):
        try:
            with torch._C.DisableTorchFunction():
                values = getattr(packed, read)()
        except Exception:
            continue
        tensors = []
        for leaf in tree_leaves(values):
            if isinstance(leaf, Tensor):
                tensors.append(leaf)
            elif isinstance(leaf, torch.ScriptObject):  # a cell of an LSTM holds two
                tensors += _unpack(leaf)
        return tensors
    return []


def count_parts(func: Any, name: str, args: tuple[Any, ...], outputs: list[Tensor]) -> int:
    """Return how many numbers come out of an operation that takes numbers apart; 0 for others."""
    source = next((argument for argument in args if isinstance(argument, Tensor)), None)
    if source is None or not outputs:
        return 0
    if name == "view" and func._overloadname == "dtype":
        splits = outputs[0].element_size() < source.element_size()
        return outputs[0].numel() if splits else 0
    if name in _PARTS_OF_NUMBERS or (name == "div" and func._overloadname.endswith("_mode")):
        return sum(output.numel() for output in outputs)
    return 0


def count_packed(trace: Trace, registry: TensorRegistry) -> tuple[dict[int, int], list[str]]:
    """Return the entries that are read as more numbers than they hold, and sentences on doubts.

    Bits of integers are exact. Digits of floats may be those of a quantized weight, so a float of
    which several parts are taken is only named.
    """
    splitting = [op for op in trace.ops if op.live and op.num_parts and not op.uses_image]
    taken_further = {storage for op in splitting for storage in op.reads - op.writes}
    parts: dict[int, int] = defaultdict(int)
    for op in splitting:
        if op.name != "view" and op.writes & taken_further:
            continue  # its results are taken apart again
        stored = _find_source(op)
        for index in stored:
            parts[index] += op.num_parts
    counts, doubts = {}, []
    for index, num_parts in parts.items():
        entry = registry.entries[index]
        num_parts = min(num_parts, _MAX_PARTS * entry.num_elements)
        if num_parts <= entry.num_elements:
            continue
        exact = entry.is_integer or any(
            op.name == "view" and index in _find_source(op) for op in splitting
        )
        if exact:
            counts[index] = num_parts
        elif num_parts >= 2 * entry.num_elements:
            doubts.append(
                f"parts of the numbers in {entry.name} are taken, as if several values were packed "
                "into one: how many they stand for is not known"
            )
    return counts, doubts


def _find_source(op: Op) -> frozenset[int]:
    return op.entries or op.claims
