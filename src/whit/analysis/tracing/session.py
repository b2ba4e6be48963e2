"""The passes of one audit over a model, and what they showed."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial

import torch
from torch import Tensor, nn

from whit.analysis.sources.constant_channels import count_constant_channels
from whit.analysis.sources.executed_code import CodeLine, ExecutedCode, watch_code
from whit.analysis.sources.file_access import watch_files
from whit.analysis.tracing.ablation import is_output_invariant, perturb_zero_weights
from whit.analysis.tracing.dataflow import tensor_leaves
from whit.analysis.tracing.hooks import record_forward
from whit.analysis.tracing.recorder import Recorder
from whit.analysis.tracing.sandbox import probe_batch, safe_copy, set_mode
from whit.analysis.tracing.stored_tensors import TensorRegistry, storage_key
from whit.analysis.tracing.trace import CallSite, Trace

BATCH = 2  # more than one image, so that a stray squeeze() shows
MAX_TRAINING_PASSES = 6  # more than one only while a random mask has shown no zero yet
TRAINING_KINDS = frozenset({"batchnorm", "dropout", "droppath", "noise"})


class TracingSession:
    """The passes of one audit and what they showed; `model` is run only where `copy` calls it."""

    def __init__(self, model: nn.Module, copy: nn.Module, image_shape: tuple[int, int, int]):
        self.models = (model, copy)
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
        self._derived: dict[int, Tensor] = {}  # computed in earlier passes from nothing stored
        self._attributes = _name_plain_attributes(copy) | _name_plain_attributes(model)
        self.trace = self._trace(training=False, registry=self.registry)
        self._watch_code()
        self._trace_created_tensors()
        self.in_training: dict[str, set[CallSite]] = {}
        self._training_trace = Trace()
        self.updated_statistics: frozenset[int] | None = None  # None: the training pass failed
        if self.trace.failure is None:
            self._trace_training()
        self.image_entries: set[int] = set()  # constants that the image determines
        self._trace_image_constants()
        self._check_single_image()
        # of running statistics, how many belong to channels that no image changes
        self.stored_statistics = self._find_stored_statistics()
        self.ineffective = self._find_ineffective_kinds()

    def note(self, text: str) -> None:
        """Keep `text` for the audit's notes, once."""
        self.notes[text] = None

    def _materialize_lazy_parameters(self) -> None:
        if not any(nn.parameter.is_lazy(parameter) for parameter in self.copy.parameters()):
            return
        images = self._prepare(training=False)
        try:
            with torch.no_grad():
                self.copy(images)
        except Exception as error:
            self.note(f"lazy parameters could not be given a shape: {describe_error(error)}")

    def _trace(
        self,
        training: bool,
        registry: TensorRegistry | None = None,
        draw: int = 0,
        image_constants: frozenset[int] = frozenset(),
    ) -> Trace:
        registry = registry or TensorRegistry.build(self.copy, self.models[0])
        set_mode(self.models, training)
        torch.manual_seed(torch.initial_seed() + draw)
        image = probe_batch(self.copy, self.image_shape, BATCH, draw)
        recorder = Recorder(registry, self._paths, self._attributes, image_constants, self._derived)
        with torch.no_grad(), ExitStack() as stack:
            if not training:
                stack.enter_context(watch_files(self.files))
            trace = record_forward(self.copy, image, recorder)
        self._derived |= recorder.find_derived()
        self.unread.update(dict.fromkeys(recorder.packed.unread))
        return trace

    def _watch_code(self) -> None:
        """Run a fresh copy, as in its first call, to see which functions it executes."""
        model, _ = safe_copy(self.models[0])
        set_mode((self.models[0], model), training=False)
        images = probe_batch(model, self.image_shape, BATCH, 0)
        with suppress(Exception), torch.no_grad(), watch_code(self.executed):
            model(images)

    def _trace_created_tensors(self) -> None:
        """Trace again if the first pass registered parameters or buffers: they count as such."""
        names = [*self.copy.named_parameters(), *self.copy.named_buffers()]
        if {name for name, _ in names} - {entry.name for entry in self.registry.entries}:
            self.registry = TensorRegistry.build(self.copy, self.models[0])
            self.trace = self._trace(training=False, registry=self.registry)

    def _trace_training(self) -> None:
        """Run as in training, again while a random mask has shown no zero."""
        updated: set[int] = set()
        for draw in range(MAX_TRAINING_PASSES):
            trace = self._trace(True, draw=draw)
            if trace.failure is not None:
                problem = describe_error(trace.failure)
                self.note(f"the forward pass fails in training mode: {problem}")
                return
            self._training_trace = trace
            for kind in TRAINING_KINDS:
                self.in_training.setdefault(kind, set())
            for op in trace.ops:
                updated |= op.updates
                if op.live and op.kind in TRAINING_KINDS:
                    self.in_training[op.kind] |= trace.call_sites(op)
            if not any(op.inconclusive and op.live for op in trace.ops):
                break
        self.updated_statistics = frozenset(updated)

    def _trace_image_constants(self) -> None:
        """Trace again if some constants change with the image: they are made from it.

        This is so when values leave torch, as with `.numpy()`, and come back.
        """
        if not self.trace.constants or self.trace.failure is not None:
            return
        again = self._trace(False, draw=1)
        pairs = zip(self.trace.constants.values(), again.constants.values(), strict=False)
        changed = frozenset(
            number
            for number, (one, other) in enumerate(pairs)
            if one.shape != other.shape or not torch.equal(one, other)
        )
        if changed:
            self.note(
                "values computed from the image leave torch and come back: what happens between "
                "cannot be seen"
            )
            self.registry = TensorRegistry.build(self.copy, self.models[0])
            self.trace = self._trace(False, self.registry, image_constants=changed)
            entries = list(self.trace.constants)
            self.image_entries = {entries[number] for number in changed if number < len(entries)}

    def _find_stored_statistics(self) -> dict[int, int]:
        """Return by registry entry how many running statistics are storage, not statistics.

        Those of channels that no image changes, and those that a change of the mode writes.
        """
        if self.trace.failure is not None:
            return {}
        running = {
            entry.index: tensor
            for entry in self.registry.entries
            if (tensor := self.registry.find_tensor(entry.index)) is not None
            and any(entry.index in op.statistics for op in self.trace.ops)
        }
        if not running:
            return {}
        stored = self._find_switched(running)
        images = self._prepare(training=False, batch=2 * BATCH)
        constant = count_constant_channels(self.copy, images)
        for index, tensor in running.items():
            if count := constant.get(storage_key(tensor)):
                stored.setdefault(index, count)
        return stored

    def _find_switched(self, running: dict[int, Tensor]) -> dict[int, int]:
        """Return which of the tensors a change to evaluation mode writes, and their sizes."""
        before = {index: tensor.clone() for index, tensor in running.items()}
        set_mode(self.models, training=True)
        with torch.no_grad():
            for tensor in running.values():
                tensor.fill_(1.5)
        set_mode(self.models, training=False)
        switched = {
            index: tensor.numel()
            for index, tensor in running.items()
            if not bool((tensor == 1.5).all())
        }
        with torch.no_grad():
            for index, tensor in running.items():
                tensor.copy_(before[index])
        return switched

    def _check_single_image(self) -> None:
        """Note if the batch dimension is lost with one image, as a bare `squeeze()` does."""
        if not isinstance(self.trace.output, Tensor):
            return
        image = self._prepare(training=False, batch=1)
        try:
            with torch.no_grad():
                output = self.copy(image)
            shape, expected = tuple(output.shape), (1, *self.trace.output.shape[1:])
            if shape != expected:
                self.note(f"for one image the output has shape {shape}, not {expected}")
        except Exception as error:
            self.note(f"the forward pass fails for one image: {describe_error(error)}")

    def _find_ineffective_kinds(self) -> set[str]:
        """Return the kinds of layers that budgets ask for and whose results the output ignores.

        Data flow alone does not show it: in `x + (d - d)` data flows through d.
        """
        if self.updated_statistics is None or self.models[0] is self.models[1]:
            return set()
        perturb_zero_weights(self.copy)
        ineffective: set[str] = set()
        for kind in ("gap", "linear", "batchnorm", "dropout"):
            training = kind in TRAINING_KINDS
            trace = self._training_trace if training else self.trace
            ops = [op for op in trace.ops if op.live and op.kind == kind]
            # results in integers take no noise
            ops = [op for op in ops if not op.name.startswith("quantized_")]
            numbers = frozenset(op.number for op in ops)
            make_images = partial(self._prepare, training)
            if numbers and is_output_invariant(self.copy, make_images, numbers):
                ineffective.add(kind)
                self.note(f"{kind} has no effect on the output and does not count")
        return ineffective

    def _prepare(self, training: bool, batch: int = BATCH) -> Tensor:
        """Set mode and random state; return the first probe images."""
        set_mode(self.models, training)
        return probe_batch(self.copy, self.image_shape, batch, 0)


def _name_plain_attributes(model: nn.Module) -> dict[int, str]:
    """Return the names of tensors that modules keep as plain attributes, by storage key."""
    names: dict[int, str] = {}
    for path, module in model.named_modules():
        for leaf, value in vars(module).items():
            for tensor in tensor_leaves(value) if not leaf.startswith("_") else ():
                if not tensor.is_meta:
                    names[storage_key(tensor)] = f"{path}.{leaf}".lstrip(".")
    return names


def describe_error(error: BaseException) -> str:
    """Return type and first line of `error`, shortened."""
    text = "".join(str(error).strip().splitlines()[:1])
    text = text if len(text) <= 200 else text[:199] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
