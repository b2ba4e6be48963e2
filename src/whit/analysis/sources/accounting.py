"""What inference reads beside registered tensors: counted, or named where it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whit.analysis.sources.executed_code import CodeLine
from whit.analysis.sources.packed_values import count_packed
from whit.analysis.sources.python_numbers import count_python_numbers
from whit.analysis.sources.reachable import find_reachable

if TYPE_CHECKING:
    from whit.analysis.tracing.session import TracingSession


def account_for_sources(
    session: TracingSession, counted: set[int], files: dict[str, CodeLine | None]
) -> tuple[str, ...]:
    """Correct `counted`, the registry entries that the budget counts, for what no tensor shows.

    Adds Python numbers, removes constants that a formula gave, and counts packed numbers as those
    that they are read as. Returns sentences on what inference may read and could not be counted.
    `files`: what the passes read from outside the process.
    """
    trace, registry = session.trace, session.registry
    if trace.failure is not None:
        return ()
    unverified = [
        f"the forward pass {action}{f' ({line})' if line else ''}: what it takes from there is "
        "not counted"
        for action, line in files.items()
    ]
    counts, doubts = count_packed(trace, registry)
    for index, count in counts.items():
        if index in counted:
            registry.entries[index].num_elements = count
    unverified += doubts
    reachable = find_reachable(session.copy, session.executed)
    numbers = count_python_numbers(trace, registry, reachable, counted, bool(files))
    counted -= numbers.computed
    if numbers.counted:
        counted.add(registry.add_numbers(", ".join(numbers.names), numbers.counted).index)
    unverified += numbers.unverified
    if session.image_entries and (reachable.data or reachable.opaque):
        sources = [holding.name for holding in reachable.data[:2]] or [*reachable.opaque][:1]
        unverified.append(
            "values computed from the image leave torch and come back, and code that cannot be "
            f"followed may use numbers of {' or '.join(sources)}"
        )
    if any(op.stochastic for op in trace.ops if op.live):
        unverified.append(
            "random numbers drawn in inference reach the output: from a fixed seed they stand for "
            "stored numbers"
        )
    return tuple(dict.fromkeys(unverified))
