"""Where each value lies while a network runs, in as little memory as can be found.

A value needs its place from the step that makes it to the last that reads it. Two values whose
times meet may not share a place, but a step that works forward through its input may write over
it: its output then starts where that input starts, or before.

Placing values is bin packing in two dimensions, so not every best plan can be found; but no plan
can be smaller than what is alive at some one step, and most plans reach that bound.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_TRIES = 300
_ALL_ORDERS = 6  # values; so many have 720 orders


@dataclass(frozen=True)
class Span:
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
    """Where each value starts, in units; `least` is what no plan can do without."""

    starts: Mapping[str, int]
    size: int
    least: int


def plan_memory(spans: Sequence[Span]) -> MemoryPlan:
    """Return the smallest of the plans tried: every order of up to six values, else 300 orders.

    Each order places its values one by one at the lowest place that is free. The first orders are
    by size, by time and by both; then two values change places again and again, which is kept
    when it is no worse. The same values give the same plan.
    """
    least = least_size(spans)
    best: MemoryPlan | None = None
    for order in _orders(spans):
        starts = _placed(order)
        size = max((starts[span.name] + span.size for span in spans), default=0)
        if best is None or size < best.size:
            best = MemoryPlan(starts, size, least)
        if best.size == least:
            break
    return best or MemoryPlan({}, 0, 0)


def least_size(spans: Sequence[Span]) -> int:
    """Return the most units that are alive during any one step."""
    least = 0
    for step in range(max((span.last for span in spans), default=-1) + 1):
        alive = [span for span in spans if span.first <= step <= span.last]
        over = {name for span in alive if span.first == step for name in span.over}
        before = sum(span.size for span in alive if span.first < step)
        after = sum(span.size for span in alive if span.name not in over)
        least = max(least, before, after)
    return least


def _orders(spans: Sequence[Span]) -> Iterator[Sequence[Span]]:
    yield sorted(spans, key=lambda span: (-span.size, span.first))
    yield sorted(spans, key=lambda span: (span.first, -span.size))
    yield sorted(spans, key=lambda span: (-span.size * (span.last - span.first + 1), span.first))
    if len(spans) <= _ALL_ORDERS:
        yield from itertools.permutations(spans)
        return
    generator = random.Random(0)
    order = sorted(spans, key=lambda span: (-span.size, span.first))
    size = _size_of(order)
    for _ in range(_TRIES):
        one, other = generator.sample(range(len(order)), 2)
        order[one], order[other] = order[other], order[one]
        changed = _size_of(order)
        if changed > size:
            order[one], order[other] = order[other], order[one]
            continue
        size = changed
        yield list(order)


def _size_of(order: Sequence[Span]) -> int:
    starts = _placed(order)
    return max(starts[span.name] + span.size for span in order)


def _placed(order: Sequence[Span]) -> dict[str, int]:
    starts: dict[str, int] = {}
    done: list[Span] = []
    for span in order:
        near = [each for each in done if each.first <= span.last and span.first <= each.last]
        places = {0}
        for each in near:
            places |= {starts[each.name], starts[each.name] + each.size}
            if span.name in each.over:  # must not start before what will be written over it
                places.add(max(0, starts[each.name] + each.size - span.size))
        starts[span.name] = min(
            place
            for place in places
            if all(_apart(span, place, each, starts[each.name]) for each in near)
        )
        done.append(span)
    return starts


def _apart(a: Span, a_start: int, b: Span, b_start: int) -> bool:
    """Whether two values that are alive at once may lie there."""
    if a_start + a.size <= b_start or b_start + b.size <= a_start:
        return True
    if b.name in a.over:
        return a_start <= b_start
    return a.name in b.over and b_start <= a_start
