"""Whether the layers that budgets ask for change the output: found by adding noise to them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from whit.analysis.kinds import LAYER_KINDS, TRAINING_KINDS
from whit.analysis.tracing.ablation import Ablation, perturb_zero_weights
from whit.analysis.tracing.trace import Op, Trace

if TYPE_CHECKING:
    from whit.analysis.tracing.session import TracingSession


def find_ineffective_kinds(session: TracingSession) -> set[str]:
    """Return the kinds of layers that budgets ask for and whose results the output ignores.

    Data flow alone does not show it: in `x + (d - d)` data flows through d.
    """
    if session.updated_statistics is None or session.trace.failure is not None:
        return set()
    perturb_zero_weights(session.copy)
    ineffective = _find_changing_kinds(session)
    for training, trace in ((False, session.trace), (True, session.training_trace)):
        kinds = [kind for kind in LAYER_KINDS if (kind in TRAINING_KINDS) == training]
        kinds = [kind for kind in kinds if _find_numbers(session, trace, kind)]
        if not kinds:
            continue
        found = _find_invariant(session, training, trace, kinds)
        if found is None:  # perhaps the first pass made what the model keeps
            found = _find_invariant(session, training, session.run_pass(training), kinds)
        if found is None:
            session.note_unseen(
                "one pass executes other operations than the next: whether "
                f"{', '.join(kinds)} have an effect on the output is unknown"
            )
            ineffective |= {*kinds}
            continue
        for kind in found:
            session.note(f"{kind} has no effect on the output and does not count")
        ineffective |= found
    return ineffective


def _find_changing_kinds(session: TracingSession) -> set[str]:
    """Return the kinds of layers that only some passes have; the table shows the first pass."""
    first, later = session.trace, session.run_pass(False)
    if later.signature == first.signature:
        return set()
    kinds = [
        {op.kind for op in trace.ops if op.live and op.kind in LAYER_KINDS}
        for trace in (first, later)
    ]
    macs = [sum(op.macs for op in trace.ops if op.live) for trace in (first, later)]
    if kinds[0] == kinds[1] and macs[0] == macs[1]:
        return set()
    session.note_unseen("a later pass executes other layers than the first, which the table shows")
    return {kind for kind in kinds[0] ^ kinds[1] if kind}


def _find_invariant(
    session: TracingSession, training: bool, trace: Trace, kinds: list[str]
) -> set[str] | None:
    """Return those of `kinds` whose noise leaves the output as it is.

    None if another pass does not execute the operations of `trace`.
    """
    try:
        ablation = Ablation(session.copy, partial(session.prepare, training), trace)
        numbers = {kind: _find_numbers(session, trace, kind) for kind in kinds}
        return {
            kind for kind in kinds if numbers[kind] and ablation.is_output_invariant(numbers[kind])
        }
    except (Exception, SystemExit):  # DifferentPass, or noise that the model refuses
        return None


def _find_numbers(session: TracingSession, trace: Trace, kind: str) -> frozenset[int]:
    # results in integers take no noise
    floating = [op for op in trace.ops if not op.name.startswith("quantized")]
    ops: list[Op] = [op for op in floating if op.live and op.kind == kind]
    if kind == "rnn" and trace is session.trace:
        ops += session.recurrent
    return frozenset(op.number for op in ops)
