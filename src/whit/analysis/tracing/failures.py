"""A failed forward pass as one sentence: the line of the user's file, and what failed."""

from __future__ import annotations

from whit.analysis.tracing.trace import Trace
from whit.system.user_lines import describe_error, find_user_line


def describe_failure(error: BaseException, trace: Trace, name: str, mode: str = "") -> str:
    """Return where in the user's code the forward pass failed, then the error.

    Without a line of the user's, as in a model of torch's own modules, the model's name comes
    first, and the layer. `mode` says which pass failed, such as " in training mode".
    """
    layer = _find_layer(trace)
    location, statement = find_user_line(error)
    at = f" at `{statement}`" if statement else ""
    inside = f", in layer {layer}" if layer and location else ""
    start = location or ", ".join(filter(None, (name, f"layer {layer}" if layer else "")))
    problem = f"{trace.failed_step}{mode}{at}{inside}: {describe_error(error)}"
    return f"{start}: {problem}" if start else problem


def _find_layer(trace: Trace) -> str:
    """Return the innermost module that was called and did not return."""
    unfinished = [call for call in trace.module_calls if not call.returned and call.path]
    return unfinished[-1].path if unfinished else ""
