"""The audit of a model: what it stores, computes and sees, judged from what forward really does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from whit.audit import table
from whit.audit.effect import ignored, wake_zeros
from whit.audit.layers import (
    Extent,
    Layer,
    Place,
    Rows,
    as_json,
    extents,
    image_macs,
    left_over,
    place_of,
    untraced,
    without_batch,
)
from whit.audit.passes import copied, set_mode, tiny_batch, untouched
from whit.audit.stored import BUFFER, CONSTANT, PARAMETER, Registry, storage_key
from whit.audit.trace import Trace, record

BATCH = 2  # more than one image, so that a stray squeeze() shows
TRAINING_PASSES = 6  # at most; more than one only while a random mask has shown no zero yet
ONLY_TRAINED = frozenset({"batchnorm", "dropout", "droppath", "noise"})


@dataclass(frozen=True)
class ParamCounts:
    """Stored numbers. `total` is what a budget counts: trainable + frozen + buffers."""

    total: int
    trainable: int
    frozen: int
    buffers: int  # buffers and constants that inference reads, without running statistics
    unused: int  # of the registered parameters, those that never reach the output

    def to_json(self) -> dict[str, int]:
        return {
            "total": self.total,
            "trainable": self.trainable,
            "frozen": self.frozen,
            "buffers": self.buffers,
            "unused": self.unused,
        }


@dataclass(frozen=True)
class Audit:
    """What one model stores, computes and sees. Prints as a table."""

    params: ParamCounts
    macs: int | None  # multiply-adds for one image; None: could not be known
    receptive_field: Extent  # input pixels, the output's
    layers: tuple[Layer, ...]
    kinds: frozenset[str]  # what is truly there, from KINDS
    notes: tuple[str, ...]
    output_shape: tuple[int, ...] | None  # without the batch
    output_problem: str | None  # why the output cannot be trained on, if it cannot
    name: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return DESIGN.md's keys; verdict and violations are the budget's to add."""
        return {
            "params": self.params.to_json(),
            "macs": self.macs,
            "receptive_field": as_json(self.receptive_field),
            "layers": [layer.to_json() for layer in self.layers],
        }

    def table(self, width: int = 100) -> str:
        """Return the table as text of at most `width` columns."""
        return table.plain_text(self, width)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return table.html(self)


def audit_model(
    model: nn.Module,
    image_shape: tuple[int, int, int] = (1, 28, 28),
    num_classes: int | None = None,
    name: str = "",
) -> Audit:
    """Audit `model` on images of `image_shape` (C, H, W). Needs no data and changes nothing.

    Runs a copy on two random images: once as for inference, for structure and counts, and as in
    training, to see whether BatchNorm and Dropout really happen.
    """
    with untouched(model):
        twin, problem = copied(model)
        return _Examination(model, twin, image_shape).report(num_classes, name, problem)


class _Examination:
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

    def _materialise(self) -> None:
        lazy = [name for name, p in self.twin.named_parameters() if nn.parameter.is_lazy(p)]
        if not lazy:
            return
        set_mode(self.models, False)
        try:
            with torch.no_grad():
                self.twin(tiny_batch(self.twin, self.image_shape, BATCH, 0))
        except Exception as error:
            self.notes[f"lazy parameters could not be given a shape: {_brief(error)}"] = None

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
                self.notes[f"the forward pass fails in training mode: {_brief(trace.failure)}"] = (
                    None
                )
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
            self.notes[
                "values computed from the image leave torch and come back: what happens between "
                "cannot be seen"
            ] = None
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
                self.notes[f"for one image the output has shape {shape}, not {wanted}"] = None
        except Exception as error:
            self.notes[f"the forward pass fails for one image: {_brief(error)}"] = None

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
                self.notes[f"{kind} has no effect on the output and does not count"] = None
        return still

    def _prepare(self, training: bool) -> Tensor:
        set_mode(self.models, training)
        return tiny_batch(self.twin, self.image_shape, BATCH, 0)

    # --- what it shows -----------------------------------------------------------------

    def counted(self) -> tuple[set[int], set[int]]:
        """Return the entries that the budget counts, and those that reach the output."""
        live: set[int] = set()
        weights: set[int] = set()
        for op in self.trace.ops:
            if op.live:
                live |= op.entries
                weights |= op.entries - op.statistics
                weights |= {entry for entry in op.statistics if not self._running(entry)}
        for leaf in tree_leaves(self.trace.output):
            if isinstance(leaf, Tensor):
                found = self.registry.overlapping(leaf)
                live.update(found)
                weights.update(found)
        counted = set()
        for entry in self.registry.entries:
            if entry.role == PARAMETER:
                counted.add(entry.index)
            elif self.trace.failure is not None and entry.role == BUFFER:
                if not entry.running:
                    counted.add(entry.index)
            elif entry.index in weights - self.from_image and not entry.scalar_literal:
                counted.add(entry.index)
        return counted, live

    def _running(self, entry: int) -> bool:
        if self.updated is None:
            return self.registry.entries[entry].running
        return entry in self.updated

    def report(self, num_classes: int | None, name: str, problem: str | None) -> Audit:
        counted, live = self.counted()
        failed = self.trace.failure
        rows = Rows(self.trace, self.registry, counted, self.in_training, BATCH)
        layers = rows.gather()
        if failed is None:
            layers += left_over(rows, self.twin, live)
        else:
            rest = {entry for entry in counted if entry not in rows.claimed}
            seen = {frame.path for frame in self.trace.frames if frame.shape is not None}
            layers += [
                row
                for row in untraced(self.twin, self.registry, rest)
                if row.params or row.name not in seen
            ]
        params = self._params(counted, live)
        assert sum(layer.params for layer in layers) == params.total, "rows must sum to the total"
        output, shape = self._output()
        field, _ = extents(output)
        if problem:
            self.notes[problem] = None
        self._write_notes(counted, live, params)
        macs = None if failed or self.trace.uncounted else image_macs(self.trace.ops, BATCH)
        assert macs is None or macs == sum(layer.macs or 0 for layer in layers)
        return Audit(
            params=params,
            macs=macs,
            receptive_field=field,
            layers=tuple(layers),
            kinds=self._kinds(),
            notes=tuple(self.notes),
            output_shape=shape,
            output_problem=self._output_problem(num_classes),
            name=name,
        )

    def _params(self, counted: set[int], live: set[int]) -> ParamCounts:
        trainable = frozen = buffers = unused = 0
        for entry in self.registry.entries:
            if entry.index not in counted:
                continue
            if entry.role != PARAMETER:
                buffers += entry.numbers
            elif entry.trainable:
                trainable += entry.numbers
            else:
                frozen += entry.numbers
            if entry.role == PARAMETER and not self.trace.failure and entry.index not in live:
                unused += entry.numbers
        return ParamCounts(trainable + frozen + buffers, trainable, frozen, buffers, unused)

    def _output(self) -> tuple[Any, tuple[int, ...] | None]:
        if isinstance(self.trace.output, Tensor):
            shape = tuple(self.trace.output.shape)
            return self.trace.sight_of_output, without_batch(shape, BATCH)
        return None, None

    def _output_problem(self, num_classes: int | None) -> str | None:
        if self.trace.failure is not None:
            return f"the forward pass fails: {_brief(self.trace.failure)}"
        output = self.trace.output
        if not isinstance(output, Tensor):
            return f"the output is a {type(output).__name__}, not a tensor"
        shape = tuple(output.shape)
        wanted = "the number of classes" if num_classes is None else str(num_classes)
        right = len(shape) == 2 and shape[0] == BATCH and num_classes in (None, shape[1])
        if not right:
            return (
                f"for {BATCH} images of shape {self.image_shape} the output has shape {shape}; "
                f"it must be ({BATCH}, {wanted})"
            )
        return None

    def _kinds(self) -> frozenset[str]:
        happening = {op.kind for op in self.trace.ops if op.live and op.kind}
        trained = {kind for kind, places in self.in_training.items() if places}
        if self.updated is None:
            return frozenset(happening - ONLY_TRAINED - self.without_effect)
        scale = {"scale"} if "scale" in happening and not trained & {"batchnorm"} else set()
        present = (happening - ONLY_TRAINED - {"scale"}) | trained | scale
        return frozenset(present - self.without_effect)

    def _write_notes(self, counted: set[int], live: set[int], params: ParamCounts) -> None:
        entries = self.registry.entries
        if self.trace.failure is not None:
            self.notes[
                f"the forward pass fails: {_brief(self.trace.failure)}; shapes, MACs and fields "
                "after that are unknown, and every buffer is counted"
            ] = None
        for name in self.registry.lazy:
            self.notes[f"lazy parameter {name} has no shape yet and is not counted"] = None
        if params.unused:
            names = [e.name for e in entries if e.role == PARAMETER and e.index not in live]
            self.notes[f"{params.unused:,} parameters never reach the output: {_listed(names)}"] = (
                None
            )
        for role, what in ((BUFFER, "buffers"), (CONSTANT, "constants")):
            found = [e for e in entries if e.role == role and e.index in counted]
            if found:
                numbers = sum(entry.numbers for entry in found)
                names = list(dict.fromkeys(entry.name for entry in found))
                self.notes[f"{numbers:,} numbers in {what} are counted: {_listed(names)}"] = None
        if any((op.live and op.kind == "noise") or op.drawn for op in self.trace.ops if op.live):
            self.notes["random numbers are drawn in inference"] = None
        self.notes |= self.trace.notes


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


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    text = text if len(text) <= 200 else text[:199] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
