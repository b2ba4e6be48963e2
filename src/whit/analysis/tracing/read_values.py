"""Values of the image that Python reads: whether what the model does depends on them.

A value that is only printed, kept or asserted changes nothing. So each value that leaves torch is
replaced by others, one at a time: if the model executes the same operations and returns the same
output, or refuses the value with an error, it has no effect.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whit.analysis.rules.call import OperationMode, is_numbered
from whit.analysis.tracing.dataflow import sign_operation, tensor_leaves
from whit.analysis.tracing.trace import Signature, Trace

MAX_READS = 24  # in one pass; of more, the effect is not looked for
LEAVING = frozenset({"tolist", "numpy", "array"})  # functions that give all values to Python
_FACTORS = (-1.0, 0.0, 0.5, 0.9, 1.1, 2.0, 10.0, 1000.0, -1000.0)
_TERMS = (1.0, -1.0, 0.1, -0.1)
_STEPS = (1, -1, 10, 1000)

Change = Callable[[Any], Any]


class _ScalarChanger(OperationMode):
    """Changes the Python number that the operation with a given number returns."""

    def __init__(self, target: int | None, change: Change):
        super().__init__()  # type: ignore[no-untyped-call]
        self.signature: list[Signature] = []
        self._target, self._change = target, change
        self._thread = threading.get_ident()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if threading.get_ident() == self._thread and is_numbered(func):
            with torch._C.DisableTorchFunction():
                self.signature.append(sign_operation(func, result))
            if len(self.signature) == self._target and not isinstance(result, Tensor):
                return self._change(result)
        return result


class _ArrayChanger(TorchFunctionMode):
    """Changes the list or array that a given call of a function in LEAVING returns."""

    def __init__(self, target: int | None, change: Change):
        super().__init__()
        self._target, self._change = target, change
        self._count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "").strip("_") in LEAVING:
            if self._count == self._target:
                result = self._change(result)
            self._count += 1
        return result


def have_effect(model: nn.Module, make_images: Callable[[], Tensor], trace: Trace) -> bool:
    """Return whether what `model` does depends on values of the image that Python reads.

    `trace` is of a pass as `make_images` prepares it. True also if it is not known.
    """
    num_reads = len(trace.scalar_reads) + len(trace.array_reads)
    if num_reads > MAX_READS:
        return True
    run = partial(_run, model, make_images)
    expected = run(None, None, _keep)
    if expected is None or expected[0] != trace.signature:
        return True
    targets: list[tuple[int | None, int | None]] = [(number, None) for number in trace.scalar_reads]
    targets += [(None, number) for number in trace.array_reads]
    for scalar, array in targets:
        for change in _make_changes():
            found = run(scalar, array, change)
            if found is not None and not _is_same(found, expected):
                return True
    return False


def _keep(value: Any) -> Any:
    return value


def _run(
    model: nn.Module,
    make_images: Callable[[], Tensor],
    scalar: int | None,
    array: int | None,
    change: Change,
) -> tuple[list[Signature], list[Tensor]] | None:
    """Return operations and outputs of a pass; None if it fails."""
    images = make_images()
    changer = _ScalarChanger(scalar, change)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            torch.no_grad(),
            _ArrayChanger(array, change),
            changer,
        ):
            output = model(images)
    except (Exception, SystemExit):
        return None
    return changer.signature, [leaf.detach().clone() for leaf in tensor_leaves(output)]


def _is_same(
    one: tuple[list[Signature], list[Tensor]], other: tuple[list[Signature], list[Tensor]]
) -> bool:
    pairs = zip(one[1], other[1], strict=False)
    return (
        one[0] == other[0]
        and len(one[1]) == len(other[1])
        and all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)
    )


def _make_changes() -> Iterator[Change]:
    """Yield functions that give a number, or all numbers of a list or array, another value."""
    yield from (partial(_change, factor=factor) for factor in _FACTORS)
    yield from (partial(_change, term=term) for term in _TERMS)
    yield from (partial(_change, step=step) for step in _STEPS)


def _change(value: Any, factor: float = 1.0, term: float = 0.0, step: int = 0) -> Any:
    if isinstance(value, list):
        return [_change(each, factor, term, step) for each in value]
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "b":
            return ~value
        return (value * factor + term + step).astype(value.dtype)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return int(value * factor + term) + step
    return value * factor + term + step if isinstance(value, (float, complex)) else value
