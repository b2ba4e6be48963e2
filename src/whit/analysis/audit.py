"""The audit of a model: what it stores, computes and sees, from what its forward pass does."""

from __future__ import annotations

from torch import Tensor, nn

from whit.analysis.independence.probe import NUM_IMAGES, SMALL, find_batch_dependence
from whit.analysis.kinds import TRAINING_KINDS
from whit.analysis.logits import describe_probabilities
from whit.analysis.rows import (
    Layer,
    RowBuilder,
    drop_batch,
    fallback_rows,
    field_and_jump,
    sum_macs,
    unclaimed_rows,
)
from whit.analysis.sources.accounting import account_for_sources
from whit.analysis.summary import Audit, ParamCounts
from whit.analysis.tracing.dataflow import tensor_leaves
from whit.analysis.tracing.sandbox import BATCH, preserve_model, probe_batch, safe_copy
from whit.analysis.tracing.session import TracingSession
from whit.analysis.tracing.stored_tensors import BUFFER, CONSTANT, PARAMETER
from whit.system.user_lines import describe_error

EVALUATION_BATCH = 500  # images that an evaluation runs at once
MAX_PROBE_MACS = 400_000_000  # of one such batch: larger models are probed with fewer images


def audit_model(
    model: nn.Module,
    image_shape: tuple[int, int, int] = (1, 28, 28),
    num_classes: int | None = None,
    name: str = "",
) -> Audit:
    """Audit `model` on images of `image_shape` (C, H, W). Needs no data and changes nothing.

    Runs a copy on two random images: once as for inference, for structure and counts, and as in
    training, to see whether BatchNorm and Dropout take effect. A model whose forward pass fails
    is audited too: its parameters are counted and the notes say what failed.
    """
    with preserve_model(model):
        copy, problem = safe_copy(model)
        return _build_audit(
            TracingSession(model, copy, image_shape, name), num_classes, name, problem
        )


def _build_audit(
    session: TracingSession, num_classes: int | None, name: str, problem: str | None
) -> Audit:
    """Return the audit; `problem` is a note from before the session."""
    trace = session.trace
    counted, live = _find_counted(session)
    unverified = account_for_sources(session, counted)
    dependence, problem_of_probe = _find_batch_dependence(session)
    unverified += problem_of_probe
    logits = describe_probabilities(trace, session.training_trace)
    layers = _build_layers(session, counted, live)
    params = _count_params(session, counted, live)
    assert sum(layer.params for layer in layers) == params.total, "rows must sum to the total"
    output = session.output if isinstance(session.output, Tensor) else None
    if problem:
        session.note(problem)
    _write_notes(session, counted, live, params)
    for sentence in (logits, dependence, *unverified):
        if sentence:
            session.note(sentence)
    macs = None if trace.failure or trace.macs_unknown else sum_macs(trace.ops, BATCH)
    assert macs is None or macs == sum(layer.macs or 0 for layer in layers)
    return Audit(
        params=params,
        macs=macs,
        receptive_field=field_and_jump(trace.output_field)[0],
        layers=tuple(layers),
        kinds=_find_kinds(session),
        notes=tuple(session.notes),
        output_shape=None if output is None else drop_batch(tuple(output.shape), BATCH),
        output_problem=_find_output_problem(session, num_classes),
        name=name,
        unverified=unverified,
        batch_dependence=dependence,
        expects_logits=logits,
        failure=session.failure,
        kinds_known=not (session.failure or session.unseen),
    )


def _find_batch_dependence(session: TracingSession) -> tuple[str | None, tuple[str, ...]]:
    """Return why the output for an image depends on more than that image, if it does.

    And a sentence if this could not be determined.
    """
    if session.trace.failure is not None:
        return None, ()
    macs = sum_macs(session.trace.ops, BATCH)
    large = min(EVALUATION_BATCH, MAX_PROBE_MACS // max(macs, 1))
    model, _ = safe_copy(session.models[0])
    images = probe_batch(model, session.image_shape, max(NUM_IMAGES, large), 2)
    try:
        return find_batch_dependence(model, images, large, quick=large <= SMALL), ()
    except (Exception, SystemExit) as error:
        problem = describe_error(error)
        return None, (f"whether each image is judged alone could not be determined: {problem}",)


def _find_counted(session: TracingSession) -> tuple[set[int], set[int]]:
    """Return the registry entries that the budget counts, and those that reach the output."""
    trace, registry, updated = session.trace, session.registry, session.updated_statistics
    if updated is None:
        updated = frozenset(entry.index for entry in registry.entries if entry.running)
    live: set[int] = set()
    weights: set[int] = set()
    for op in trace.ops:
        if op.live:
            live |= op.entries
            excused = op.statistics & updated if op.uses_image else frozenset[int]()
            weights |= op.entries - excused
    live |= trace.read_entries
    weights |= trace.read_entries
    if trace.failure is None:
        for output in tensor_leaves(trace.output):
            live.update(registry.overlapping(output))
            weights.update(registry.overlapping(output))
    for index, count in session.stored_statistics.items():
        if index not in weights:
            registry.entries[index].num_elements = count
            weights.add(index)
    counted = set()
    for entry in registry.entries:
        if entry.role == PARAMETER:
            is_counted = True
        elif entry.role == BUFFER and trace.failure is not None:
            is_counted = not entry.running
        else:
            determined = entry.index in session.image_entries or entry.is_scalar_literal
            is_counted = entry.index in weights and not determined
        if is_counted:
            counted.add(entry.index)
    return counted, live


def _build_layers(session: TracingSession, counted: set[int], live: set[int]) -> list[Layer]:
    builder = RowBuilder(session.trace, session.registry, counted, session.in_training, BATCH)
    layers = builder.build()
    if session.trace.failure is None:
        return layers + unclaimed_rows(builder, session.copy, live)
    finished = {call.path for call in session.trace.module_calls if call.shape is not None}
    rest = fallback_rows(session.copy, session.registry, counted - builder.claimed)
    return layers + [row for row in rest if row.params or row.name not in finished]


def _count_params(session: TracingSession, counted: set[int], live: set[int]) -> ParamCounts:
    entries = [entry for entry in session.registry.entries if entry.index in counted]
    parameters = [entry for entry in entries if entry.role == PARAMETER]
    total = sum(entry.num_elements for entry in entries)
    registered = sum(entry.num_elements for entry in parameters)
    trainable = sum(entry.num_elements for entry in parameters if entry.trainable)
    unused = 0
    if session.trace.failure is None:
        unused = sum(entry.num_elements for entry in parameters if entry.index not in live)
    return ParamCounts(total, trainable, registered - trainable, total - registered, unused)


def _find_output_problem(session: TracingSession, num_classes: int | None) -> str | None:
    if session.failure is not None:
        return session.failure
    if session.no_tensor is not None:
        return session.no_tensor
    output = session.output
    if not isinstance(output, Tensor):
        return f"the output is a {type(output).__name__}, not a tensor"
    shape = tuple(output.shape)
    if len(shape) == 2 and shape[0] == BATCH and num_classes in (None, shape[1]):
        return None
    expected = "the number of classes" if num_classes is None else str(num_classes)
    return (
        f"for {BATCH} images of shape {session.image_shape} the output has shape {shape}; "
        f"it must be ({BATCH}, {expected})"
    )


def _find_kinds(session: TracingSession) -> frozenset[str]:
    inference = {op.kind for op in session.trace.ops if op.live and op.kind} - TRAINING_KINDS
    if session.recurrent:
        inference.add("rnn")
    training = {kind for kind, sites in session.in_training.items() if sites}
    if "batchnorm" in training:
        inference.discard("scale")
    return frozenset((inference | training) - session.ineffective)


def _write_notes(
    session: TracingSession, counted: set[int], live: set[int], params: ParamCounts
) -> None:
    entries, trace = session.registry.entries, session.trace
    if trace.failure is not None:
        session.note(
            "shapes, MACs and fields after the forward pass fails are unknown, and every buffer "
            "is counted"
        )
    for name in session.registry.lazy:
        session.note(f"lazy parameter {name} has no shape yet and is not counted")
    if params.unused:
        names = [e.name for e in entries if e.role == PARAMETER and e.index not in live]
        unread = (
            "do not reach the output in this pass" if session.unseen else "never reach the output"
        )
        session.note(f"{params.unused:,} parameters {unread}: {_join_names(names)}")
    for role, plural in ((BUFFER, "buffers"), (CONSTANT, "constants")):
        matching = [e for e in entries if e.role == role and e.index in counted]
        matching = [entry for entry in matching if entry.num_elements]
        if matching:
            total = sum(entry.num_elements for entry in matching)
            names = list(dict.fromkeys(entry.name for entry in matching))
            session.note(f"{total:,} numbers in {plural} are counted: {_join_names(names)}")
    if any(op.stochastic for op in trace.ops if op.live):
        session.note("random numbers are drawn in inference")
    session.notes |= trace.notes


def _join_names(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
