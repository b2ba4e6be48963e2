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
_TOLERANCE = 1e-3  # of their sum
_CONSEQUENCE = (
    "{}, but the loss takes logits and applies softmax itself: training is slow and reaches a "
    "lower accuracy. Return the values before it, or log_softmax"
)
_UNCHANGED = frozenset({"clone", "_to_copy", "contiguous", "lift_fresh", "alias", "detach"})


def describe_probabilities(trace: Trace, training_trace: Trace) -> str | None:
    """Return a sentence if the output is probabilities, in evaluation or in training mode."""
    name, in_training = _find_probabilities(trace), _find_probabilities(training_trace)
    if name is None and in_training is None:
        return None
    if name is None:
        return _CONSEQUENCE.format(f"in training mode the network ends in {in_training}")
    if in_training is None and training_trace.failure is None and training_trace.ops:
        return (
            f"in evaluation mode the network ends in {name}, in training mode it does not: the "
            "loss of validation and test images is wrong, as it takes logits and applies softmax "
            "itself; accuracy is not affected. Return the same values in both modes"
        )
    return _CONSEQUENCE.format(f"the network ends in {name}")


def _find_probabilities(trace: Trace) -> str | None:
    """Return what makes the output of the pass probabilities; None if they are none."""
    output = trace.output
    if not isinstance(output, Tensor) or trace.failure is not None:
        return None
    key = storage_key(output)
    for op in reversed(trace.ops):
        if key not in op.writes or not op.live:
            continue
        if op.name in _UNCHANGED and len(op.reads) == 1:
            (key,) = op.reads
        elif op.reads != op.writes or op.name in _PROBABILITIES:  # a view reads what it writes
            if op.name in _PROBABILITIES:
                return _PROBABILITIES[op.name]
            break
    return "probabilities, which add up to 1 for each image" if _adds_to_one(output) else None


def _adds_to_one(output: Tensor) -> bool:
    """Return whether `output`, (N, classes), holds probabilities, whatever computed them."""
    if output.dim() != 2 or output.shape[1] < 2 or not output.is_floating_point():
        return False
    values = output.detach().double()
    total = values.sum(1)
    return bool((values >= 0).all() and ((total - 1).abs() < _TOLERANCE).all())
