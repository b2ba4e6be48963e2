"""Whether the output suits a loss that takes logits."""

from __future__ import annotations

from torch import Tensor

from whit.analysis.tracing.stored_tensors import storage_key
from whit.analysis.tracing.trace import Trace

# Last operations after which a cross-entropy loss takes probabilities for logits.
_PROBABILITIES = {
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "sigmoid": "sigmoid",
    "hardsigmoid": "hardsigmoid",
}
_UNCHANGED = frozenset({"clone", "_to_copy", "contiguous", "lift_fresh", "alias", "detach"})


def describe_probabilities(trace: Trace) -> str | None:
    """Return a sentence if the output of the pass is probabilities, else None."""
    if not isinstance(trace.output, Tensor) or trace.failure is not None:
        return None
    key = storage_key(trace.output)
    for op in reversed(trace.ops):
        if key not in op.writes or not op.live:
            continue
        if op.name in _UNCHANGED and len(op.reads) == 1:
            (key,) = op.reads
        elif op.reads != op.writes or op.name in _PROBABILITIES:  # a view reads what it writes
            name = _PROBABILITIES.get(op.name)
            return name and (
                f"the network ends in {name}, but the loss takes logits and applies softmax "
                "itself: training is slow and reaches a lower accuracy. Return the values before "
                "it, or log_softmax"
            )
    return None
