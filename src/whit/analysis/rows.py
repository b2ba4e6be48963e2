"""The rows of the table, made from a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from whit.analysis.kinds import PRIORITY
from whit.analysis.receptive_field import Sight
from whit.analysis.tracing.storage import PARAMETER, Registry, Stored
from whit.analysis.tracing.trace import Frame, Function, Op, Trace

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
    jump: Extent  # input pixels between neighbouring positions

    def to_json(self) -> dict[str, object]:
        """Return the row under DESIGN.md's keys; pairs become lists."""
        return {
            "name": self.name,
            "kind": self.kind,
            "output_shape": None if self.output_shape is None else list(self.output_shape),
            "params": self.params,
            "macs": self.macs,
            "receptive_field": as_json(self.receptive_field),
            "jump": as_json(self.jump),
        }


def as_json(extent: Extent) -> object:
    return list(extent) if isinstance(extent, tuple) else extent


def extents(sight: Sight | None) -> tuple[Extent, Extent]:
    """Return receptive field and jump of a sight."""
    if sight is None or sight.windows is None:
        return None, None
    rows, cols = sight.windows
    return _extent(rows.size, cols.size), _extent(sight.jump("h"), sight.jump("w"))


def _extent(rows: Fraction, cols: Fraction) -> Extent:
    return _number(rows) if rows == cols else (_number(rows), _number(cols))


def _number(value: Fraction) -> Number:
    return int(value) if value.denominator == 1 else float(value)


def without_batch(shape: tuple[int, ...] | None, batch: int) -> tuple[int, ...] | None:
    """Return `shape` for one image: without its first dimension, if that is the batch.

    Where it counts several for each image, such as views or patches, it counts those that remain.
    """
    if shape and shape[0] == batch:
        return shape[1:]
    if not shape or shape[0] % batch or len(shape) == 1:  # a row may be of weights
        return shape
    return shape[0] // batch, *shape[1:]


def image_macs(ops: Iterable[Op], batch: int) -> int:
    """Return multiply-adds for one image: work on weights alone is done once for any batch."""
    return sum(op.macs // batch if op.data else op.macs for op in ops)


# A place where dropout can stand without leaving any operation behind in inference:
# (module path, how many calls of it before, function name, how many calls of it before).
Place = tuple[str, int, str, int]


def places(trace: Trace) -> tuple[dict[int, Place], dict[int, Place]]:
    """Return the place of each module call and each function call of a trace, by index."""
    calls: Counter[str] = Counter()
    frames: dict[int, Place] = {}
    for frame in trace.frames:
        frames[frame.index] = (frame.path, calls[frame.path], "", 0)
        calls[frame.path] += 1
    inner: Counter[tuple[int | None, str]] = Counter()
    functions: dict[int, Place] = {}
    for function in trace.functions:
        path, call, _, _ = frames.get(function.frame, ("", 0, "", 0))  # type: ignore[arg-type]
        functions[function.index] = (
            path,
            call,
            function.name,
            inner[function.frame, function.name],
        )
        inner[function.frame, function.name] += 1
    return frames, functions


def place_of(trace: Trace) -> Callable[[Op], set[Place]]:
    """Return a function giving the places an operation of `trace` stands at."""
    frames, functions = places(trace)

    def of(op: Op) -> set[Place]:
        found = set()
        if op.frame is not None:
            found.add(frames[op.frame])
        if op.function is not None:
            found.add(functions[op.function])
        return found

    return of


class Rows:
    """Gathers rows in the order of the forward pass; each stored number goes to one row."""

    def __init__(
        self,
        trace: Trace,
        registry: Registry,
        counted: set[int],
        in_training: dict[str, set[Place]],
        batch: int,
    ):
        self.trace, self.registry, self.counted, self.batch = trace, registry, counted, batch
        self.in_training = in_training  # kind -> places where it really happens
        self.claimed: set[int] = set()
        self.names: Counter[str] = Counter()
        self.rows: list[Layer] = []
        self.frame_places, self.function_places = places(trace)

    def gather(self) -> list[Layer]:
        """Return the rows of everything that was executed."""
        by_frame: dict[int | None, list[Op]] = {}
        for op in self.trace.ops:
            by_frame.setdefault(op.frame, []).append(op)
        pending: list[tuple[int, Callable[[], None]]] = []
        inside: set[int] = set()  # frames within a leaf, which have no rows of their own
        for frame in self.trace.frames:
            if frame.parent is not None and (
                frame.parent in inside or self.trace.frames[frame.parent].leaf
            ):
                inside.add(frame.index)
                continue
            ops = by_frame.pop(frame.index, [])
            if frame.leaf and frame.shape is None and self.trace.failure is not None:
                continue  # it is here that the forward pass failed
            named = [op for op in ops if op.kind]
            if frame.leaf and (frame.own or len(named) <= 1):
                pending.append((frame.clock, self._module_row(frame, ops)))
            else:
                pending += self._function_rows(frame, ops)
        pending += self._function_rows(None, by_frame.pop(None, []))
        for _, add in sorted(pending, key=lambda pair: pair[0]):
            add()
        return self.rows

    def _module_row(self, frame: Frame, ops: list[Op]) -> Callable[[], None]:
        kind = self._kind(ops) or self._silent_kind(frame)
        place = self.frame_places[frame.index]
        for trained in ("dropout", "droppath", "noise"):
            if kind in ("identity", "reshape") and place in self.in_training.get(trained, ()):
                kind = trained
        if kind == "scale" and place in self.in_training.get("batchnorm", ()):
            kind = "batchnorm"
        return lambda: self._add(frame.path, kind, ops, frame.shape, frame.sight)

    def _function_rows(
        self, frame: Frame | None, ops: list[Op]
    ) -> list[tuple[int, Callable[[], None]]]:
        path = (frame.path if frame else "") or "forward"
        groups: dict[tuple[int, int], list[Op]] = {}
        for op in ops:
            key = (0, op.function) if op.function is not None else (1, op.clock)
            groups.setdefault(key, []).append(op)
        index = frame.index if frame else None
        for function in self.trace.functions:
            silent = (0, function.index) not in groups and function.outer is None
            if function.frame == index and silent and "dropout" in function.name:
                groups[0, function.index] = []
        return [
            (clock, add)
            for (by_op, number), group in groups.items()
            for clock, add in self._function_row(path, None if by_op else number, group)
        ]

    def _function_row(
        self, path: str, number: int | None, ops: list[Op]
    ) -> list[tuple[int, Callable[[], None]]]:
        kind = self._kind(ops)
        named = [op for op in ops if op.kind]
        function: Function | None = None if number is None else self.trace.functions[number]
        if function is not None and "dropout" in function.name and not named:
            place = self.function_places[function.index]
            kind = "identity"
            for trained in ("dropout", "droppath", "noise"):
                if place in self.in_training.get(trained, ()):
                    kind = trained
        if kind is None:
            return []
        if function is not None and kind == "scale":
            place = self.function_places[function.index]
            if place in self.in_training.get("batchnorm", ()):
                kind = "batchnorm"
        name = f"{path}.{function.name if function else named[-1].name}"
        shape, sight = (function.shape, function.sight) if function else (None, None)
        if shape is None and named:
            shape, sight = named[-1].shape, named[-1].sight
        clock = function.clock if function else named[-1].clock
        return [(clock, lambda: self._add(name, kind, ops, shape, sight))]

    def _kind(self, ops: list[Op]) -> str | None:
        named = [op for op in ops if op.kind]
        if not named:
            return None
        live = {op.kind for op in named if op.live}
        return next((kind for kind in PRIORITY if kind in live), "unused")

    def _silent_kind(self, frame: Frame) -> str:
        if frame.same or frame.shape is None:
            return "identity"
        return "flatten" if len(frame.shape) == 2 else "reshape"

    def _add(
        self,
        name: str,
        kind: str,
        ops: list[Op],
        shape: tuple[int, ...] | None,
        sight: Sight | None,
    ) -> None:
        self.names[name] += 1
        if self.names[name] > 1:
            name = f"{name} ({self.names[name]})"
        new = set().union(*(op.claims for op in ops)) & self.counted - self.claimed
        self.claimed |= new
        params = sum(self.registry.entries[entry].numbers for entry in new)
        field, jump = extents(sight)
        macs = image_macs(ops, self.batch)
        self.rows.append(
            Layer(name, kind, without_batch(shape, self.batch), params, macs, field, jump)
        )


def left_over(rows: Rows, model: nn.Module, live: set[int]) -> list[Layer]:
    """Return rows for modules never called and for stored numbers that no row has claimed."""
    added: list[Layer] = []
    called = {frame.path for frame in rows.trace.frames}
    remaining: dict[tuple[str, str], int] = {}
    for entry in rows.registry.entries:
        if entry.index in rows.counted - rows.claimed:
            key = _home(entry, live, called)
            remaining[key] = remaining.get(key, 0) + entry.numbers
    claimed_elsewhere = {
        entry.name.rpartition(".")[0]
        for entry in rows.registry.entries
        if entry.index in rows.claimed
    }
    for path, module in model.named_modules():
        leaf = not any(True for _ in module.children()) and not isinstance(module, CONTAINERS)
        silent = path not in called and path not in claimed_elsewhere
        if leaf and path and silent and "parametrizations" not in path.split("."):
            remaining.setdefault((path, "unused"), 0)
    order = {path: at for at, (path, _) in enumerate(model.named_modules())}
    for (name, kind), numbers in sorted(
        remaining.items(), key=lambda item: order.get(item[0][0], 0)
    ):
        added.append(Layer(name, kind, None, numbers, 0, None, None))
    return added


def _home(entry: Stored, live: set[int], called: set[str]) -> tuple[str, str]:
    """Return name and kind of the row for a stored number that no operation's row has."""
    owner = entry.name.rpartition(".")[0]
    kind = "unused" if entry.role == PARAMETER else "constant"
    if entry.index in live:
        kind = "parameter" if entry.role == PARAMETER else "constant"
    return (owner if owner and owner not in called else entry.name), kind


def untraced(model: nn.Module, registry: Registry, counted: set[int]) -> list[Layer]:
    """Return rows for a model whose forward pass could not be run: parameters only."""
    numbers: dict[str, int] = {}
    for entry in registry.entries:
        if entry.index in counted:
            owner = entry.name.rpartition(".")[0]
            numbers[owner] = numbers.get(owner, 0) + entry.numbers
    rows = []
    for path, module in model.named_modules():
        leaf = not any(True for _ in module.children())
        if numbers.get(path) or (leaf and path and not isinstance(module, CONTAINERS)):
            rows.append(
                Layer(path or "forward", "module", None, numbers.pop(path, 0), None, None, None)
            )
    rows += [Layer(name, "module", None, left, None, None, None) for name, left in numbers.items()]
    return rows
