"""Static memory planning: the offset of each value in one buffer.

A value is live from the step that computes it to the last step that reads it. Two values that are
live at the same time may not overlap, except that the output of a step that works in place may
overwrite an input: the output then starts at or before the input.

Optimal planning is two-dimensional bin packing, so the search is a heuristic; but no plan can be
smaller than the values that are live during one step, and most plans reach that bound.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_MAX_TRIES = 300
_MAX_EXHAUSTIVE = 6  # values; 6! = 720 orders


@dataclass(frozen=True)
class BufferLifetime:
    """A value: its size in units, and the steps of its first and last use.

    over: inputs that are dead afterwards and may be overwritten.
    """

    name: str
    size: int
    first: int
    last: int
    over: frozenset[str] = frozenset()


@dataclass(frozen=True)
class MemoryPlan:
    """The start of each value in units; no plan is smaller than `lower_bound`."""

    starts: Mapping[str, int]
    size: int
    lower_bound: int


def plan_memory(buffers: Sequence[BufferLifetime]) -> MemoryPlan:
    """Return the smallest of the plans tried: every order of up to six values, else 300 orders.

    Values are placed one by one at the lowest free address. The first orders are by size, by time
    and by both; further ones swap two random values, and a swap is kept if it is no worse. The
    result is deterministic.
    """
    lower_bound = min_size(buffers)
    best: MemoryPlan | None = None
    for order in _orders(buffers):
        starts, size = _place(order)
        if best is None or size < best.size:
            best = MemoryPlan(starts, size, lower_bound)
        if best.size == lower_bound:
            break
    return best or MemoryPlan({}, 0, 0)


def min_size(buffers: Sequence[BufferLifetime]) -> int:
    """Return the maximum over all steps of the units that are live during a step."""
    lower_bound = 0
    for step in range(max((buffer.last for buffer in buffers), default=-1) + 1):
        live = [buffer for buffer in buffers if buffer.first <= step <= buffer.last]
        over = {name for buffer in live if buffer.first == step for name in buffer.over}
        before = sum(buffer.size for buffer in live if buffer.first < step)
        after = sum(buffer.size for buffer in live if buffer.name not in over)
        lower_bound = max(lower_bound, before, after)
    return lower_bound


def _orders(buffers: Sequence[BufferLifetime]) -> Iterator[Sequence[BufferLifetime]]:
    order = sorted(buffers, key=lambda buffer: (-buffer.size, buffer.first))
    yield list(order)
    yield sorted(buffers, key=lambda buffer: (buffer.first, -buffer.size))
    yield sorted(buffers, key=lambda each: (-each.size * (each.last - each.first + 1), each.first))
    if len(buffers) <= _MAX_EXHAUSTIVE:
        yield from itertools.permutations(buffers)
        return
    generator = random.Random(0)
    _, size = _place(order)
    for _ in range(_MAX_TRIES):
        one, other = generator.sample(range(len(order)), 2)
        order[one], order[other] = order[other], order[one]
        _, changed = _place(order)
        if changed > size:
            order[one], order[other] = order[other], order[one]
        else:
            size = changed
            yield list(order)


def _place(order: Sequence[BufferLifetime]) -> tuple[dict[str, int], int]:
    """Return the start of each value, and the end of the last."""
    starts: dict[str, int] = {}
    placed: list[BufferLifetime] = []
    for buffer in order:
        live = [each for each in placed if each.first <= buffer.last and buffer.first <= each.last]
        candidates = {0}
        for each in live:
            candidates |= {starts[each.name], starts[each.name] + each.size}
            if buffer.name in each.over:  # must not start before the output that overwrites it
                candidates.add(max(0, starts[each.name] + each.size - buffer.size))
        starts[buffer.name] = min(
            start
            for start in candidates
            if all(_are_compatible(buffer, start, each, starts[each.name]) for each in live)
        )
        placed.append(buffer)
    return starts, max((starts[each.name] + each.size for each in placed), default=0)


def _are_compatible(a: BufferLifetime, a_start: int, b: BufferLifetime, b_start: int) -> bool:
    """Whether two values that are live at the same time may have these starts."""
    if a_start + a.size <= b_start or b_start + b.size <= a_start:
        return True
    if b.name in a.over:
        return a_start <= b_start
    return a.name in b.over and b_start <= a_start
