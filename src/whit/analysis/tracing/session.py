"""The passes of one audit over a model, and what they showed."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial

import torch
from torch import Tensor, nn

from whit.analysis.kinds import TRAINING_KINDS
from whit.analysis.layer_effects import find_ineffective_kinds
from whit.analysis.sources.changed_constants import find_changed, is_comparable
from whit.analysis.sources.executed_code import CodeLine, ExecutedCode, watch_code
from whit.analysis.sources.file_access import watch_files
from whit.analysis.sources.stored_statistics import find_stored_statistics
from whit.analysis.tracing.dataflow import tensor_leaves
from whit.analysis.tracing.failures import describe_failure
from whit.analysis.tracing.hooks import record_forward
from whit.analysis.tracing.patterns import find_recurrent
from whit.analysis.tracing.read_values import have_effect
from whit.analysis.tracing.recorder import Recorder
from whit.analysis.tracing.sandbox import BATCH, probe_batch, safe_copy, set_mode
from whit.analysis.tracing.stored_tensors import TensorRegistry, storage_key
from whit.analysis.tracing.trace import CallSite, StorageInfo, Trace
from whit.system.user_lines import describe_error

MAX_TRAINING_PASSES = 6  # more than one only while a random mask has shown no zero yet
# Operations by which a mask of zeros drops values.
_MASKING = frozenset({"mul", "div", "where", "masked_fill", "index_put", "copy", "minimum"})


class TracingSession:
    """The passes of one audit and what they showed; `model` is run only where `copy` calls it."""

    def __init__(
        self,
        model: nn.Module,
        copy: nn.Module,
        image_shape: tuple[int, int, int],
        name: str = "",
    ):
        self.models = (model, copy)
        self._name = name or type(model).__name__
        self.copy = copy
        self.image_shape = image_shape
        self.notes: dict[str, None] = {}
        self._materialize_lazy_parameters()
        self.registry = TensorRegistry.build(copy, model)
        self._paths = {
            id(module): path.replace("_orig_mod.", "").replace("_orig_mod", "")
            for traced in self.models
            for path, module in traced.named_modules()
        }
        self.executed = ExecutedCode()
        self.files: dict[str, CodeLine | None] = {}  # what inference reads from outside
        self.unread: dict[str, None] = {}  # packed weights of these types cannot be read
        self._attributes = _name_plain_attributes(copy) | _name_plain_attributes(model)
        self.failure: str | None = None  # the user's line and why the forward pass fails there
        self.unseen: dict[str, None] = {}  # why it is not known completely what the model does
        self._computed: dict[int, StorageInfo] = {}  # by passes, from the code alone; may be kept
        self.trace = self.run_pass(training=False, registry=self.registry)
        self._watch_code()
        self._trace_created_tensors()
        self.output = self.trace.output
        self.no_tensor: str | None = None  # what `forward` returns, if no tensor is in it
        if self.trace.failure is not None:
            self._explain_failure(self.trace.failure)
        elif not tensor_leaves(self.output):
            self.no_tensor = _describe_no_tensor(self.models[0], self.output)
            self.unseen[self.no_tensor] = None
        self.in_training: dict[str, set[CallSite]] = {kind: set() for kind in TRAINING_KINDS}
        self.training_trace = Trace()
        self.updated_statistics: frozenset[int] | None = None  # None: the training pass failed
        self._trace_training()
        self.unsaved: str | None = None  # what inference reads and the weights do not hold
        self.image_entries: set[int] = set()  # constants that the image determines
        self._trace_image_constants()
        self._count_macs_of_one()
        self._check_single_image()
        # of running statistics, how many belong to channels that no image changes
        self.stored_statistics = find_stored_statistics(self)
        self.recurrent = find_recurrent(self.trace)
        self._note_recurrence()
        self.ineffective = find_ineffective_kinds(self)
        # whether values of the image that Python reads change what inference does
        self.reads_have_effect = self._check_read_values(training=False)
        self._check_read_values(training=True)
        for text in self.trace.unseen | self.training_trace.unseen:
            self.note_unseen(text)

    def note(self, text: str) -> None:
        """Keep `text` for the audit's notes, once."""
        self.notes[text] = None

    def _materialize_lazy_parameters(self) -> None:
        if not any(nn.parameter.is_lazy(parameter) for parameter in self.copy.parameters()):
            return
        try:
            images = self.prepare(training=False)
            with torch.no_grad():
                self.copy(images)
        except Exception as error:
            self.note(f"lazy parameters could not be given a shape: {describe_error(error)}")

    def run_pass(
        self,
        training: bool,
        registry: TensorRegistry | None = None,
        draw: int = 0,
        image_constants: frozenset[int] = frozenset(),
        batch: int = BATCH,
        planted: bool = False,
    ) -> Trace:
        """Record one pass; `planted`: random masks get a zero, however rare zeros are."""
        registry = registry or TensorRegistry.build(self.copy, self.models[0])
        try:
            set_mode(self.models, training)
        except (Exception, SystemExit) as error:
            mode = "training" if training else "evaluation"
            return Trace(failure=error, failed_step=f"the change to {mode} mode fails")
        torch.manual_seed(torch.initial_seed() + draw)
        image = probe_batch(self.copy, self.image_shape, batch, draw)
        recorder = Recorder(
            registry, self._paths, self._attributes, image_constants,
            draw if planted else None, self._computed,
        )  # fmt: skip
        with torch.no_grad(), ExitStack() as stack:
            if not training:
                stack.enter_context(watch_files(self.files))
            trace = record_forward(self.copy, image, recorder)
        self._computed = {**recorder.find_computed(), **self._computed}
        self.unread.update(dict.fromkeys(recorder.packed.unread))
        return trace

    def _watch_code(self) -> None:
        """Run a fresh copy, as in its first call, to see which functions it executes."""
        model, _ = safe_copy(self.models[0])
        self.searched = model  # for numbers that its code can read
        images = probe_batch(model, self.image_shape, BATCH, 0)
        with suppress(Exception, SystemExit), torch.no_grad():
            set_mode((self.models[0], model), training=False)
            with watch_code(self.executed):
                model(images)

    def _trace_created_tensors(self) -> None:
        """Trace again if the first pass registered what the weights hold: it counts as such.

        A buffer that is not persistent is made again by the code wherever the model is built.
        """
        if self.copy.state_dict().keys() - {entry.name for entry in self.registry.entries}:
            self.registry = TensorRegistry.build(self.copy, self.models[0])
            self.trace = self.run_pass(training=False, registry=self.registry)

    def _explain_failure(self, error: BaseException) -> None:
        """Find out whether the model itself fails, or only cannot be traced."""
        try:
            images = self.prepare(training=False)
            with torch.no_grad():
                self.output = self.copy(images)
        except (Exception, SystemExit) as plain:
            self.failure = describe_failure(plain, self.trace, self._name)
        else:
            self.note_unseen(f"the forward pass cannot be traced: {describe_error(error)}")

    def _trace_training(self) -> None:
        """Run as in training, again while a random mask has shown no zero."""
        updated: set[str] = set()
        for draw in range(MAX_TRAINING_PASSES):
            registry = TensorRegistry.build(self.copy, self.models[0])
            trace = self.run_pass(True, registry, draw=draw, planted=True)
            self.training_trace = trace
            for op in trace.ops:
                updated |= {registry.entries[entry].name for entry in op.updates}
                if op.live and op.kind in TRAINING_KINDS:
                    self.in_training[op.kind] |= trace.call_sites(op)
            if trace.failure is not None:
                if self.failure is None and self.trace.failure is None:
                    mode = " in training mode" if trace.ops else ""
                    self.failure = describe_failure(trace.failure, trace, self._name, mode)
                    self.note("what the forward pass does in training mode is unknown")
                return
            if not any(op.inconclusive and op.live for op in trace.ops):
                break
        self._check_outside_numbers()
        # by name: a buffer that the first pass registers moves the numbers of those after it
        self.updated_statistics = frozenset(
            entry.index for entry in self.registry.entries if entry.name in updated
        )

    def _check_outside_numbers(self) -> None:
        """Note numbers in training that inference has not and torch does not make.

        A mask made by numpy is one: whether it is one of dropout is not known.
        """
        if _count_outside(self.training_trace) > _count_outside(self.trace):
            self.note_unseen(
                "in training mode numbers from outside the pass are combined with the data: "
                "whether they drop some of it is unknown"
            )

    def _trace_image_constants(self) -> None:
        """Trace again if some constants change with the image: they are made from it.

        This is so when values leave torch, as with `.numpy()`, and come back.
        """
        if not self.trace.constants or self.trace.failure is not None:
            return
        reference, again = self.trace, self.run_pass(False, draw=1)
        if not is_comparable(reference, again):  # the first pass made what the model keeps
            reference = self.run_pass(False)
        if not is_comparable(reference, again):
            self.note_unseen("passes on different images execute different operations")
            return
        changed = find_changed(reference, again)
        if changed:  # perhaps training in between, which moves averages that the model keeps
            reference = self.run_pass(False)
            if is_comparable(reference, again):
                changed = find_changed(reference, again)
                self._note_unsaved(reference, changed)
        if changed:
            self.note_unseen(
                "values computed from the image leave torch and come back: what happens between "
                "cannot be seen"
            )
            self.registry = TensorRegistry.build(self.copy, self.models[0])
            self.trace = self.run_pass(False, self.registry, image_constants=changed)
            entries = list(self.trace.constants)
            self.image_entries = {entries[number] for number in changed if number < len(entries)}

    def _note_unsaved(self, later: Trace, of_image: frozenset[int]) -> None:
        """Note what training changes and the weights do not hold, as averages in attributes."""
        if not is_comparable(self.trace, later):
            return
        entries = [*self.trace.constants]
        moved = sorted(find_changed(self.trace, later) - of_image)
        names = dict.fromkeys(self.registry.entries[entries[number]].name for number in moved)
        if names:
            self.unsaved = (
                f"training changes {', '.join(names)}, outside parameters and buffers: the weights "
                "file does not hold what inference reads, and the result cannot be recomputed. "
                "Use register_buffer"
            )

    def _check_read_values(self, training: bool) -> bool:
        """Note, and return, whether a pass depends on values of the image that Python reads."""
        trace = self.training_trace if training else self.trace
        if not (trace.scalar_reads or trace.array_reads) or trace.failure is not None:
            return False
        try:  # a new pass: the first may have made what the model keeps
            now = self.run_pass(training)
            effective = have_effect(self.copy, partial(self.prepare, training), now)
        except (Exception, SystemExit):
            effective = True
        if effective:
            self.note_unseen(
                "a number computed from the image goes through Python: "
                "the table holds for one random image"
            )
        return effective

    def note_unseen(self, text: str) -> None:
        """Note why it is not known completely what the model does."""
        self.note(text)
        self.unseen[text] = None

    def _count_macs_of_one(self) -> None:
        """Count products that use no image in a pass of one image, as their batch is not known.

        The first step of a recurrent layer multiplies zeros, as many as there are images.
        """
        if not any(op.macs and not op.uses_image for op in self.trace.ops):
            return
        both = [
            [op for op in trace.ops if op.macs]
            for trace in (self.trace, self.run_pass(False, batch=1))
        ]
        # views differ with the batch, and calls do not
        callers = [[(op.module_call, op.function_call) for op in ops] for ops in both]
        if callers[0] == callers[1]:
            for op, alone in zip(*both, strict=True):
                op.macs_of_one = None if op.uses_image else alone.macs

    def _note_recurrence(self) -> None:
        names = dict.fromkeys(
            self.registry.entries[entry].name for op in self.recurrent for entry in op.claims
        )
        if names:
            self.note(f"recurrent: applied to their own earlier results are {', '.join(names)}")

    def _check_single_image(self) -> None:
        """Note if the batch dimension is lost with one image, as a bare `squeeze()` does."""
        if not isinstance(self.trace.output, Tensor):
            return
        image = self.prepare(training=False, batch=1)
        try:
            with torch.no_grad():
                output = self.copy(image)
            shape, expected = tuple(output.shape), (1, *self.trace.output.shape[1:])
            if shape != expected:
                self.note(f"for one image the output has shape {shape}, not {expected}")
        except (Exception, SystemExit) as error:
            self.note(f"the forward pass fails for one image: {describe_error(error)}")

    def prepare(self, training: bool, batch: int = BATCH) -> Tensor:
        """Set mode and random state; return the first probe images."""
        set_mode(self.models, training)
        return probe_batch(self.copy, self.image_shape, batch, 0)


def _describe_no_tensor(model: nn.Module, output: object) -> str:
    """Return where `forward` is and what it returns instead of a tensor."""
    code = getattr(type(model).forward, "__code__", None)
    at = f"{code.co_filename}, line {code.co_firstlineno}: " if code else ""
    if output is None:
        return f"{at}forward returns None, as without a `return` statement; it must return logits"
    return f"{at}forward returns a {type(output).__name__} without a tensor; it must return logits"


def _count_outside(trace: Trace) -> int:
    """Return how many tensors of several numbers from outside may mask the image in a pass."""
    masking = (op for op in trace.ops if op.live and op.uses_image and op.name in _MASKING)
    used = frozenset().union(*(op.claims for op in masking))
    found = {
        storage_key(tensor)
        for entry, tensor in trace.constants.items()
        if entry in used and tensor.numel() > 1
    }
    return len(found)


def _name_plain_attributes(model: nn.Module) -> dict[int, str]:
    """Return the names of tensors that modules keep as plain attributes, by storage key."""
    names: dict[int, str] = {}
    for path, module in model.named_modules():
        for leaf, value in vars(module).items():
            for tensor in tensor_leaves(value) if not leaf.startswith("_") else ():
                if not tensor.is_meta:
                    names[storage_key(tensor)] = f"{path}.{leaf}".lstrip(".")
    return names
