"""From what the passes showed to the audit's numbers, rows and notes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from whit.analysis.rows import (
    Rows,
    extents,
    image_macs,
    left_over,
    untraced,
    without_batch,
)
from whit.analysis.summary import Audit, ParamCounts
from whit.analysis.tracing.session import BATCH, ONLY_TRAINED, Examination, brief
from whit.analysis.tracing.storage import BUFFER, CONSTANT, PARAMETER


class Report:
    """Counts and describes what an examination has seen."""

    def __init__(self, seen: Examination):
        self.seen = seen
        self.trace = seen.trace
        self.registry = seen.registry

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
            if isinstance(leaf, Tensor) and self.trace.failure is None:
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
            elif entry.index in weights - self.seen.from_image and not entry.scalar_literal:
                counted.add(entry.index)
        return counted, live

    def _running(self, entry: int) -> bool:
        if self.seen.updated is None:
            return self.registry.entries[entry].running
        return entry in self.seen.updated

    def audit(self, num_classes: int | None, name: str, problem: str | None) -> Audit:
        """Return the audit; `problem` is a note from before the examination."""
        counted, live = self.counted()
        failed = self.trace.failure
        rows = Rows(self.trace, self.registry, counted, self.seen.in_training, BATCH)
        layers = rows.gather()
        if failed is None:
            layers += left_over(rows, self.seen.twin, live)
        else:
            rest = {entry for entry in counted if entry not in rows.claimed}
            seen = {frame.path for frame in self.trace.frames if frame.shape is not None}
            layers += [
                row
                for row in untraced(self.seen.twin, self.registry, rest)
                if row.params or row.name not in seen
            ]
        params = self._params(counted, live)
        assert sum(layer.params for layer in layers) == params.total, "rows must sum to the total"
        output, shape = self._output()
        field, _ = extents(output)
        if problem:
            self.seen.note(problem)
        self._write_notes(counted, live, params)
        macs = None if failed or self.trace.uncounted else image_macs(self.trace.ops, BATCH)
        assert macs is None or macs == sum(layer.macs or 0 for layer in layers)
        return Audit(
            params=params,
            macs=macs,
            receptive_field=field,
            layers=tuple(layers),
            kinds=self._kinds(),
            notes=tuple(self.seen.notes),
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
            return f"the forward pass fails: {brief(self.trace.failure)}"
        output = self.trace.output
        if not isinstance(output, Tensor):
            return f"the output is a {type(output).__name__}, not a tensor"
        shape = tuple(output.shape)
        wanted = "the number of classes" if num_classes is None else str(num_classes)
        right = len(shape) == 2 and shape[0] == BATCH and num_classes in (None, shape[1])
        if not right:
            given = f"for {BATCH} images of shape {self.seen.image_shape}"
            return f"{given} the output has shape {shape}; it must be ({BATCH}, {wanted})"
        return None

    def _kinds(self) -> frozenset[str]:
        happening = {op.kind for op in self.trace.ops if op.live and op.kind}
        trained = {kind for kind, places in self.seen.in_training.items() if places}
        if self.seen.updated is None:
            return frozenset(happening - ONLY_TRAINED - self.seen.without_effect)
        scale = {"scale"} if "scale" in happening and not trained & {"batchnorm"} else set()
        present = (happening - ONLY_TRAINED - {"scale"}) | trained | scale
        return frozenset(present - self.seen.without_effect)

    def _write_notes(self, counted: set[int], live: set[int], params: ParamCounts) -> None:
        entries = self.registry.entries
        if self.trace.failure is not None:
            self.seen.note(
                f"the forward pass fails: {brief(self.trace.failure)}; shapes, MACs and fields "
                "after that are unknown, and every buffer is counted"
            )
        for name in self.registry.lazy:
            self.seen.note(f"lazy parameter {name} has no shape yet and is not counted")
        if params.unused:
            names = [e.name for e in entries if e.role == PARAMETER and e.index not in live]
            self.seen.note(f"{params.unused:,} parameters never reach the output: {_listed(names)}")
        for role, what in ((BUFFER, "buffers"), (CONSTANT, "constants")):
            found = [e for e in entries if e.role == role and e.index in counted]
            if found:
                numbers = sum(entry.numbers for entry in found)
                names = list(dict.fromkeys(entry.name for entry in found))
                self.seen.note(f"{numbers:,} numbers in {what} are counted: {_listed(names)}")
        if any(op.drawn for op in self.trace.ops if op.live):
            self.seen.note("random numbers are drawn in inference")
        self.seen.notes |= self.trace.notes


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
