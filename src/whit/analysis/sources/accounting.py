"""What inference reads beside registered tensors: counted, or named where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from whit.analysis.sources.packed_values import count_packed
from whit.analysis.sources.python_numbers import count_python_numbers
from whit.analysis.sources.reachable import Reachable, find_reachable
from whit.analysis.tracing.read_values import LEAVING
from whit.analysis.tracing.stored_tensors import storage_key

if TYPE_CHECKING:
    from whit.analysis.tracing.session import TracingSession
    from whit.analysis.tracing.trace import Trace

# torch tags these as random because they can apply dropout, which the probe of calls finds.
_ATTENTION = frozenset(
    {
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_attention_math",
        "_scaled_dot_product_cudnn_attention",
    }
)
# Functions that give the memory of a tensor to code outside torch, which may write to it.
_MEMORY = frozenset({"numpy", "array", "data_ptr", "untyped_storage", "storage", "dlpack"})


def account_for_sources(session: TracingSession, counted: set[int]) -> tuple[str, ...]:
    """Correct `counted`, the registry entries that the budget counts, for what no tensor shows.

    Adds Python numbers, removes constants that a formula gave, and counts packed numbers as those
    that they are read as. Returns sentences on what inference may read and could not be counted.
    """
    trace, registry, files = session.trace, session.registry, session.files
    if trace.failure is not None:
        return ()
    unverified = [
        f"the forward pass {action}{f' ({line})' if line else ''}: what it takes from there is "
        "not counted"
        for action, line in files.items()
    ]
    unverified += [session.unsaved] if session.unsaved else []
    unverified += [f"the packed weights in {name} cannot be read" for name in session.unread]
    counts, doubts = count_packed(trace, registry)
    for index, count in counts.items():
        if index in counted:
            registry.entries[index].num_elements = count
    unverified += doubts
    try:
        reachable = find_reachable(session.copy, session.executed)
        if session.searched is not session.copy:  # where no later pass has added to any log
            reachable.holdings = find_reachable(session.searched, session.executed).holdings
    except Exception as error:  # an object that answers no question about itself
        reachable = Reachable(opaque={f"objects that cannot be searched ({error})": None})
    numbers = count_python_numbers(trace, registry, reachable, counted, bool(files))
    counted -= numbers.computed
    if numbers.counted:
        counted.add(registry.add_numbers(", ".join(numbers.names), numbers.counted).index)
    unverified += numbers.unverified
    unverified += _find_foreign(session, counted, reachable)
    has_left = session.image_entries or _has_left_torch(trace, session.reads_have_effect)
    if has_left and (reachable.data or reachable.opaque or files):
        sources = [holding.name for holding in reachable.data[:2]] or [*reachable.opaque][:1]
        unverified.append(
            "values leave torch and come back, and what cannot be followed between may use numbers "
            f"of {' or '.join(sources or ['files'])}"
        )
    if any(op.stochastic for op in trace.ops if op.live and op.name not in _ATTENTION):
        unverified.append(
            "random numbers drawn in inference reach the output: from a fixed seed they stand for "
            "stored numbers"
        )
    return tuple(dict.fromkeys(unverified))


def _find_foreign(
    session: TracingSession, counted: set[int], reachable: Reachable
) -> Iterator[str]:
    """Yield a sentence on constants that come from a compiled package, which may read files."""
    packages = [name for name in reachable.opaque if name.startswith("the package ")]
    if not packages:
        return
    known = {storage_key(tensor) for _, tensor in reachable.tensors.values() if not tensor.is_meta}
    foreign = 0
    for index, tensor in session.trace.constants.items():
        entry = session.registry.entries[index]
        if index in counted and not entry.literal and storage_key(tensor) not in known:
            foreign += entry.num_elements
    if foreign:
        yield (
            f"{foreign:,} numbers come from {packages[0]}, which may read them from files: what it "
            "reads is not known"
        )


def _has_left_torch(trace: Trace, reads_have_effect: bool) -> bool:
    """Return whether memory of tensors is given to code that is not torch's, with an effect."""
    calls = [call.name for call in trace.function_calls if call.module_call is not None]
    if not _MEMORY & {*calls}:
        return False
    # values of the image were replaced, and nothing changed
    only_image = sum(name in _MEMORY | LEAVING for name in calls) == len(trace.array_reads)
    return reads_have_effect or not only_image
