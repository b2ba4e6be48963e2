"""Values in as little memory as can be: none over another that is still needed."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from whit.export.c.memory_plan import BufferLifetime, min_size, plan_memory


@st.composite
def spans(draw: st.DrawFn) -> list[BufferLifetime]:
    """A chain of values, some of them read again later, some written over their input."""
    count = draw(st.integers(1, 9))
    lasts = [draw(st.integers(i + 1, min(count, i + 4))) for i in range(count)]
    found = []
    for i in range(count):
        dying = [f"v{j}" for j in range(i) if lasts[j] == i]
        over = frozenset(draw(st.sets(st.sampled_from(dying)))) if dying else frozenset()
        found.append(BufferLifetime(f"v{i}", draw(st.integers(1, 40)), i, lasts[i], over))
    return found


@given(spans())
def test_no_value_lies_over_another_that_is_needed(given_spans: list[BufferLifetime]) -> None:
    plan = plan_memory(given_spans)
    assert plan.lower_bound == min_size(given_spans) <= plan.size
    assert plan.size == max(plan.starts[span.name] + span.size for span in given_spans)
    for a, b in combinations(given_spans, 2):
        meet = a.first <= b.last and b.first <= a.last
        start_a, start_b = plan.starts[a.name], plan.starts[b.name]
        apart = start_a + a.size <= start_b or start_b + b.size <= start_a
        assert not meet or apart or (a.name in b.over and start_b <= start_a)
    assert plan_memory(given_spans) == plan


def test_a_chain_needs_its_two_largest_neighbours() -> None:
    chain = [BufferLifetime(f"v{i}", size, i, i + 1) for i, size in enumerate((10, 7, 9, 2))]
    assert plan_memory(chain).size == plan_memory(chain).lower_bound == 17


def test_what_is_written_over_its_input_needs_no_place() -> None:
    chain = [
        BufferLifetime("conv", 64, 0, 1),
        BufferLifetime("pool", 16, 1, 2, frozenset({"conv"})),
    ]
    assert plan_memory(chain).size == 64
    assert plan_memory(chain).starts == {"conv": 0, "pool": 0}


def test_nothing_needs_nothing() -> None:
    assert plan_memory([]).size == 0
