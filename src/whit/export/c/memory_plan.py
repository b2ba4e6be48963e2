"""Where each value lies while a network runs, in as little memory as can be found.

A value needs its memory from the step that makes it to the last that reads it. Two values that are
alive at once may not overlap, but a step that works in place may write over its input: its output
then starts where that input starts, or before.

Placing values is bin packing in two dimensions, so not every best plan can be found; but no plan
can be smaller than what is alive at some one step, and most plans reach that bound.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_MAX_TRIES = 300
_MAX_EXHAUSTIVE = 6  # values; so many have 720 orders


@dataclass(frozen=True)
class BufferLifetime:
    """A value: how many units it takes, and the steps of its first and last use.

    over: inputs that are not read again and that may be written over.
    """

    name: str
    size: int
    first: int
    last: int
    over: frozenset[str] = frozenset()


@dataclass(frozen=True)
class MemoryPlan:
    """Where each value starts, in units; `lower_bound` is what no plan can do without."""

    starts: Mapping[str, int]
    size: int
    lower_bound: int


def plan_memory(buffers: Sequence[BufferLifetime]) -> MemoryPlan:
    """Return the smallest of the plans tried: every order of up to six values, else 300 orders.

    Each order places its values one by one at the lowest address that is free. The first orders are
    by size, by time and by both; then two values are swapped again and again, which is kept when
    it is no worse. The same values give the same plan.
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
    """Return the most units that are alive during any one step."""
    lower_bound = 0
    for step in range(max((buffer.last for buffer in buffers), default=-1) + 1):
        alive = [buffer for buffer in buffers if buffer.first <= step <= buffer.last]
        over = {name for buffer in alive if buffer.first == step for name in buffer.over}
        before = sum(buffer.size for buffer in alive if buffer.first < step)
        after = sum(buffer.size for buffer in alive if buffer.name not in over)
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
    """Return where each value starts, and where the last of them ends."""
    starts: dict[str, int] = {}
    placed: list[BufferLifetime] = []
    for buffer in order:
        alive = [each for each in placed if each.first <= buffer.last and buffer.first <= each.last]
        candidates = {0}
        for each in alive:
            candidates |= {starts[each.name], starts[each.name] + each.size}
            if buffer.name in each.over:  # must not start before what will be written over it
                candidates.add(max(0, starts[each.name] + each.size - buffer.size))
        starts[buffer.name] = min(
            start
            for start in candidates
            if all(_do_not_clash(buffer, start, each, starts[each.name]) for each in alive)
        )
        placed.append(buffer)
    return starts, max((starts[each.name] + each.size for each in placed), default=0)


def _do_not_clash(a: BufferLifetime, a_start: int, b: BufferLifetime, b_start: int) -> bool:
    """Whether two values that are alive at once may lie at these starts."""
    if a_start + a.size <= b_start or b_start + b.size <= a_start:
        return True
    if b.name in a.over:
        return a_start <= b_start
    return a.name in b.over and b_start <= a_start
