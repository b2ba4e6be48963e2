"""Memory planning: minimal, and no live value is overwritten."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from whit.export.c.memory_plan import BufferLifetime, min_size, plan_memory


@st.composite
def buffer_lifetimes(draw: st.DrawFn) -> list[BufferLifetime]:
    """A chain of values, some with later consumers, some computed in place."""
    count = draw(st.integers(1, 9))
    lasts = [draw(st.integers(i + 1, min(count, i + 4))) for i in range(count)]
    found = []
    for i in range(count):
        dying = [f"v{j}" for j in range(i) if lasts[j] == i]
        over = frozenset(draw(st.sets(st.sampled_from(dying)))) if dying else frozenset()
        found.append(BufferLifetime(f"v{i}", draw(st.integers(1, 40)), i, lasts[i], over))
    return found


@given(buffer_lifetimes())
def test_no_live_values_overlap(lifetimes: list[BufferLifetime]) -> None:
    plan = plan_memory(lifetimes)
    assert plan.lower_bound == min_size(lifetimes) <= plan.size
    assert plan.size == max(plan.starts[value.name] + value.size for value in lifetimes)
    for a, b in combinations(lifetimes, 2):
        overlap_in_time = a.first <= b.last and b.first <= a.last
        start_a, start_b = plan.starts[a.name], plan.starts[b.name]
        apart = start_a + a.size <= start_b or start_b + b.size <= start_a
        assert not overlap_in_time or apart or (a.name in b.over and start_b <= start_a)
    assert plan_memory(lifetimes) == plan


def test_a_chain_needs_its_two_largest_neighbors() -> None:
    chain = [BufferLifetime(f"v{i}", size, i, i + 1) for i, size in enumerate((10, 7, 9, 2))]
    assert plan_memory(chain).size == plan_memory(chain).lower_bound == 17


def test_in_place_values_need_no_memory() -> None:
    chain = [
        BufferLifetime("conv", 64, 0, 1),
        BufferLifetime("pool", 16, 1, 2, frozenset({"conv"})),
    ]
    assert plan_memory(chain).size == 64
    assert plan_memory(chain).starts == {"conv": 0, "pool": 0}


def test_no_values_need_no_memory() -> None:
    assert plan_memory([]).size == 0
