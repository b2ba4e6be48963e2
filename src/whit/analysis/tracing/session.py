"""The passes of one audit over a model, and what they showed."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from whit.analysis.rows import (
    Place,
    place_of,
)
from whit.analysis.tracing.ablation import ignored, wake_zeros
from whit.analysis.tracing.hooks import record
from whit.analysis.tracing.sandbox import set_mode, tiny_batch
from whit.analysis.tracing.storage import Registry, storage_key
from whit.analysis.tracing.trace import Trace

BATCH = 2  # more than one image, so that a stray squeeze() shows
TRAINING_PASSES = 6  # at most; more than one only while a random mask has shown no zero yet
ONLY_TRAINED = frozenset({"batchnorm", "dropout", "droppath", "noise"})


class Examination:
    """The passes of one audit and what they showed."""

    def __init__(self, model: nn.Module, twin: nn.Module, image_shape: tuple[int, int, int]):
        self.models = (model, twin)
        self.twin = twin
        self.image_shape = image_shape
        self.notes: dict[str, None] = {}
        self._materialise()
        self.registry = Registry.of(twin, model)
        self.names = {id(module): _path(path) for path, module in model.named_modules()}
        self.names |= {id(module): _path(path) for path, module in twin.named_modules()}
        self.attributes = _plain_attributes(twin) | _plain_attributes(model)
        self.trace = self._run(training=False, registry=self.registry)
        self.in_training: dict[str, set[Place]] = {}
        self.training_trace = Trace()
        self.updated: frozenset[int] | None = None  # None: the training pass failed
        if self.trace.failure is None:
            self._train()
        self.from_image: set[int] = set()  # entries that are no constants after all
        self._follow_through_python()
        self._single_image()
        self.without_effect = self._without_effect()

    def note(self, text: str) -> None:
        """Keep `text` for the audit's notes, once."""
        self.notes[text] = None

    def _materialise(self) -> None:
        lazy = [name for name, p in self.twin.named_parameters() if nn.parameter.is_lazy(p)]
        if not lazy:
            return
        set_mode(self.models, False)
        try:
            with torch.no_grad():
                self.twin(tiny_batch(self.twin, self.image_shape, BATCH, 0))
        except Exception as error:
            self.note(f"lazy parameters could not be given a shape: {brief(error)}")

    def _run(
        self,
        training: bool,
        registry: Registry,
        draw: int = 0,
        returning: frozenset[int] = frozenset(),
    ) -> Trace:
        set_mode(self.models, training)
        torch.manual_seed(torch.initial_seed() + draw)
        image = tiny_batch(self.twin, self.image_shape, BATCH, draw)
        known = self.names, self.attributes
        with torch.no_grad():
            return record(self.twin, image, registry, *known, returning)

    def _train(self) -> None:
        """Run as in training, again while a random mask has shown no zero."""
        updated: set[int] = set()
        for draw in range(TRAINING_PASSES):
            trace = self._run(True, Registry.of(self.twin, self.models[0]), draw)
            if trace.failure is not None:
                self.note(f"the forward pass fails in training mode: {brief(trace.failure)}")
                return
            self.training_trace = trace
            places = place_of(trace)
            for op in trace.ops:
                updated |= op.updates
                if op.live and op.kind in ONLY_TRAINED:
                    self.in_training.setdefault(op.kind, set()).update(places(op))
            for kind in ONLY_TRAINED:
                self.in_training.setdefault(kind, set())
            if not any(op.undecided and op.live for op in trace.ops):
                break
        self.updated = frozenset(updated)

    def _follow_through_python(self) -> None:
        """Trace again if some constants change with the image: they are made from it.

        That happens when values leave torch, as with `.numpy()`, and come back.
        """
        if not self.trace.foreign or self.trace.failure is not None:
            return
        again = self._run(False, Registry.of(self.twin, self.models[0]), draw=1)
        pairs = zip(self.trace.foreign.values(), again.foreign.values(), strict=False)
        made = frozenset(
            number
            for number, (one, other) in enumerate(pairs)
            if one.shape != other.shape or not torch.equal(one, other)
        )
        if made:
            self.note(
                "values computed from the image leave torch and come back: what happens between "
                "cannot be seen"
            )
            self.registry = Registry.of(self.twin, self.models[0])
            self.trace = self._run(False, self.registry, returning=made)
            entries = list(self.trace.foreign)
            self.from_image = {entries[number] for number in made if number < len(entries)}

    def _single_image(self) -> None:
        """Note if the batch dimension is lost with one image, as a bare `squeeze()` does."""
        if not isinstance(self.trace.output, Tensor):
            return
        set_mode(self.models, False)
        try:
            with torch.no_grad():
                output = self.twin(tiny_batch(self.twin, self.image_shape, 1, 0))
            shape, wanted = tuple(output.shape), (1, *self.trace.output.shape[1:])
            if shape != wanted:
                self.note(f"for one image the output has shape {shape}, not {wanted}")
        except Exception as error:
            self.note(f"the forward pass fails for one image: {brief(error)}")

    def _without_effect(self) -> set[str]:
        """Return the kinds of layers that budgets ask for whose results the output ignores.

        Data flow alone cannot tell: in `x + (d - d)` it goes through d.
        """
        if self.updated is None or self.models[0] is self.models[1]:
            return set()
        wake_zeros(self.twin)
        still: set[str] = set()
        for kind in ("gap", "linear", "batchnorm", "dropout"):
            training = kind in ONLY_TRAINED
            trace = self.training_trace if training else self.trace
            numbers = frozenset(op.number for op in trace.ops if op.live and op.kind == kind)
            if numbers and ignored(self.twin, partial(self._prepare, training), numbers):
                still.add(kind)
                self.note(f"{kind} has no effect on the output and does not count")
        return still

    def _prepare(self, training: bool) -> Tensor:
        set_mode(self.models, training)
        return tiny_batch(self.twin, self.image_shape, BATCH, 0)


def _path(path: str) -> str:
    return path.replace("_orig_mod.", "").replace("_orig_mod", "")


def _plain_attributes(model: nn.Module) -> dict[int, str]:
    """Return the names of tensors that modules keep as plain attributes, by address."""
    found: dict[int, str] = {}
    for path, module in model.named_modules():
        for leaf, value in vars(module).items():
            for tensor in tree_leaves(value) if not leaf.startswith("_") else ():
                if isinstance(tensor, Tensor) and not tensor.is_meta:
                    found[storage_key(tensor)] = f"{path}.{leaf}".lstrip(".")
    return found


def brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    text = text if len(text) <= 200 else text[:199] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
