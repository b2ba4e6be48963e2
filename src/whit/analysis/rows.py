"""The rows of the table, made from a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from torch import nn

from whit.analysis.kinds import KINDS
from whit.analysis.receptive_field import ReceptiveField
from whit.analysis.tracing.stored_tensors import PARAMETER, StoredTensor, TensorRegistry
from whit.analysis.tracing.trace import CallSite, FunctionCall, ModuleCall, Op, Trace

Number = int | float
Extent = Number | tuple[Number, Number] | None  # one number if rows and columns agree

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


@dataclass(frozen=True)
class Layer:
    """One row: a call of a module without submodules, or one functional operation."""

    name: str
    kind: str
    output_shape: tuple[int, ...] | None  # without the batch; None: could not be known
    params: int
    macs: int | None  # for one image
    receptive_field: Extent  # input pixels
    jump: Extent  # input pixels between neighboring positions

    def to_json(self) -> dict[str, object]:
        """Return the row by field name; tuples become lists."""
        return {name: to_json_value(value) for name, value in vars(self).items()}


def to_json_value(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def field_and_jump(field: ReceptiveField | None) -> tuple[Extent, Extent]:
    """Return the size of a receptive field and its jump, in input pixels."""
    if field is None or field.windows is None:
        return None, None
    rows, columns = field.windows
    return _make_extent(rows.size, columns.size), _make_extent(field.jump("h"), field.jump("w"))


def _make_extent(rows: Fraction, columns: Fraction) -> Extent:
    sizes: list[Number] = [
        int(size) if size.denominator == 1 else float(size) for size in (rows, columns)
    ]
    return sizes[0] if rows == columns else (sizes[0], sizes[1])


def drop_batch(shape: tuple[int, ...] | None, batch: int) -> tuple[int, ...] | None:
    """Return `shape` for one image: without its first dimension, if that is the batch.

    Where it counts several for each image, such as views or patches, it counts those that remain.
    """
    if shape and shape[0] == batch:
        return shape[1:]
    if not shape or shape[0] % batch or len(shape) == 1:  # a row may be of weights
        return shape
    return shape[0] // batch, *shape[1:]


def sum_macs(ops: Iterable[Op], batch: int) -> int:
    """Return multiply-adds for one image: work on weights alone is done once for any batch."""
    total = 0
    for op in ops:
        alone = op.macs if op.macs_of_one is None else op.macs_of_one
        total += op.macs // batch if op.uses_image else alone
    return total


class _Row(NamedTuple):
    """A row whose stored numbers are not yet counted."""

    order: int
    name: str
    kind: str
    ops: list[Op]
    shape: tuple[int, ...] | None
    field: ReceptiveField | None


class RowBuilder:
    """Builds rows in the order of the forward pass; each stored number goes to one row."""

    def __init__(
        self,
        trace: Trace,
        registry: TensorRegistry,
        counted: set[int],
        in_training: dict[str, set[CallSite]],
        batch: int,
    ):
        self.trace, self.registry, self.counted, self.batch = trace, registry, counted, batch
        self.in_training = in_training  # kind -> sites where it takes effect in training
        self.claimed: set[int] = set()
        self._names: Counter[str] = Counter()

    def build(self) -> list[Layer]:
        """Return the rows of everything that was executed."""
        by_module: dict[int | None, list[Op]] = {}
        for op in self.trace.ops:
            by_module.setdefault(op.module_call, []).append(op)
        rows: list[_Row] = []
        inside: set[int] = set()  # calls within a leaf, which have no rows of their own
        for call in self.trace.module_calls:
            if call.parent is not None and (
                call.parent in inside or self.trace.module_calls[call.parent].leaf
            ):
                inside.add(call.index)
                continue
            ops = by_module.pop(call.index, [])
            if call.leaf and call.shape is None and self.trace.failure is not None:
                continue  # it is here that the forward pass failed
            if call.leaf and (call.builtin or sum(bool(op.kind) for op in ops) <= 1):
                rows.append(self._module_row(call, ops))
            else:
                rows += self._function_rows(call, ops)
        rows += self._function_rows(None, by_module.pop(None, []))
        return [self._count(row) for row in sorted(rows, key=lambda row: row.order)]

    def _module_row(self, call: ModuleCall, ops: list[Op]) -> _Row:
        kind = self._find_kind(ops)
        if kind is None and (call.returns_input or call.shape is None):
            kind = "identity"
        elif kind is None:
            kind = "flatten" if call.shape and len(call.shape) == 2 else "reshape"
        if kind in ("identity", "reshape"):
            kind = [*self._random_kinds(call.site), kind][0]
        kind = self._resolve_scale(kind, call.site)
        return _Row(call.order, call.path, kind, ops, call.shape, call.field)

    def _function_rows(self, call: ModuleCall | None, ops: list[Op]) -> list[_Row]:
        by_function: dict[int | None, list[Op]] = {}
        for op in ops:
            by_function.setdefault(op.function_call, []).append(op)
        for function in self.trace.function_calls:
            without_ops = function.index not in by_function and function.parent is None
            here = function.module_call == (call.index if call else None)
            if here and without_ops and "dropout" in function.name:
                by_function[function.index] = []
        path = (call.path if call else "") or "forward"
        rows = [self._function_row(path, None, [op]) for op in by_function.pop(None, [])]
        for index, group in by_function.items():
            assert index is not None
            rows.append(self._function_row(path, self.trace.function_calls[index], group))
        return [row for row in rows if row]

    def _function_row(self, path: str, function: FunctionCall | None, ops: list[Op]) -> _Row | None:
        kind = self._find_kind(ops)
        last = next((op for op in reversed(ops) if op.kind), None)
        if function and last is None and "dropout" in function.name:
            kind = ["identity", *self._random_kinds(function.site)][-1]
        if kind is None:
            return None
        if function:
            kind = self._resolve_scale(kind, function.site)
        first = function or last
        source = last if last and (function is None or function.shape is None) else function
        assert first is not None
        assert source is not None
        name = f"{path}.{first.name}"
        return _Row(first.order, name, kind, ops, source.shape, source.field)

    def _find_kind(self, ops: list[Op]) -> str | None:
        """Return the first kind in the order of KINDS; None if no operation has one."""
        live = {op.kind for op in ops if op.kind and op.live}
        if not live and not any(op.kind for op in ops):
            return None
        return next((kind for kind in KINDS if kind in live), "unused")

    def _random_kinds(self, site: CallSite) -> list[str]:
        kinds = ("dropout", "droppath", "noise")
        return [kind for kind in kinds if site in self.in_training.get(kind, ())]

    def _resolve_scale(self, kind: str, site: CallSite) -> str:
        """Return `batchnorm` for a scale that takes statistics of the batch in training."""
        in_training = site in self.in_training.get("batchnorm", ())
        return "batchnorm" if kind == "scale" and in_training else kind

    def _count(self, row: _Row) -> Layer:
        """Return the finished row; its stored numbers are counted here and in no later row."""
        self._names[row.name] += 1
        calls = self._names[row.name]
        name = row.name if calls == 1 else f"{row.name} ({calls})"
        new = set().union(*(op.claims for op in row.ops)) & self.counted - self.claimed
        self.claimed |= new
        params = sum(self.registry.entries[entry].num_elements for entry in new)
        shape, macs = drop_batch(row.shape, self.batch), sum_macs(row.ops, self.batch)
        return Layer(name, row.kind, shape, params, macs, *field_and_jump(row.field))


def unclaimed_rows(builder: RowBuilder, model: nn.Module, live: set[int]) -> list[Layer]:
    """Return rows for modules never called and for stored numbers that no row has claimed."""
    called = {call.path for call in builder.trace.module_calls}
    remaining: Counter[tuple[str, str]] = Counter()
    claimed_paths = set()
    for entry in builder.registry.entries:
        if entry.index in builder.claimed:
            claimed_paths.add(entry.module_path)
        elif entry.index in builder.counted:
            remaining[_find_row(entry, live, called)] += entry.num_elements
    order: dict[str, int] = {}
    for index, (path, module) in enumerate(model.named_modules()):
        order[path] = index
        uncalled = path not in called and path not in claimed_paths
        if path and uncalled and _is_leaf(module) and "parametrizations" not in path.split("."):
            remaining.setdefault((path, "unused"), 0)
    in_order = sorted(remaining.items(), key=lambda item: order.get(item[0][0], 0))
    return [Layer(name, kind, None, numbers, 0, None, None) for (name, kind), numbers in in_order]


def _is_leaf(module: nn.Module) -> bool:
    return not any(True for _ in module.children()) and not isinstance(module, CONTAINERS)


def _find_row(entry: StoredTensor, live: set[int], called: set[str]) -> tuple[str, str]:
    """Return name and kind of the row for a stored number that no operation's row has."""
    kind = "unused" if entry.role == PARAMETER else "constant"
    if entry.index in live and entry.role == PARAMETER:
        kind = "parameter"
    path = entry.module_path
    return (path if path and path not in called else entry.name), kind


def fallback_rows(model: nn.Module, registry: TensorRegistry, counted: set[int]) -> list[Layer]:
    """Return rows for a model whose forward pass could not be run: parameters only."""
    numbers: Counter[str] = Counter()
    for entry in registry.entries:
        if entry.index in counted:
            numbers[entry.module_path] += entry.num_elements
    rows: list[tuple[str, int]] = []
    for path, module in model.named_modules():
        if numbers[path] or (path and _is_leaf(module)):
            rows.append((path or "forward", numbers.pop(path, 0)))
    rows += numbers.items()
    return [Layer(name, "module", None, count, None, None, None) for name, count in rows]
