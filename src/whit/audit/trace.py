"""One forward pass on a tiny batch, recorded operation by operation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from whit.audit.kinds import BATCH_NORMS
from whit.audit.macs import UNCOUNTED, multiply_adds
from whit.audit.rules import (
    Call,
    Finding,
    Operand,
    base_name,
    is_pointwise,
    judge,
    uses_batch_statistics,
)
from whit.audit.sight import AXES, Layout, Sight, image_sight, plain_dims
from whit.audit.stored import CONSTANT, Registry, storage_key

# Functions that are fully connected by name, wherever they are applied.
LINEAR = frozenset({"linear", "bilinear", "multi_head_attention_forward"})
# In-place operations whose result does not depend on what stood there before.
OVERWRITING = frozenset(
    {"copy", "fill", "zero", "bernoulli", "normal", "uniform", "random", "exponential", "set_"}
)
# Results that take only shape and type from their arguments.
MADE_PREFIXES = ("new_", "empty", "zeros", "ones", "full", "arange", "linspace", "eye", "scalar")


@dataclass
class Frame:
    """One call of a module."""

    index: int
    path: str  # "" for the model itself
    leaf: bool  # has no submodules: its operations are one row
    own: bool  # one of torch's own modules
    clock: int
    functions: int  # how many function calls were open when it began
    parent: int | None
    shape: tuple[int, ...] | None = None
    sight: Sight | None = None
    same: bool = False  # the result is the argument itself


@dataclass
class Function:
    """One call of a torch function from Python, such as `F.dropout` or `x + y`."""

    index: int
    name: str
    frame: int | None
    clock: int
    outer: int | None
    shape: tuple[int, ...] | None = None
    sight: Sight | None = None


@dataclass
class Op:
    """One aten operation."""

    name: str
    kind: str | None
    macs: int
    data: bool  # depends on the image
    reads: frozenset[int]  # storages
    writes: frozenset[int]
    erases: frozenset[int]  # storages overwritten in full
    entries: frozenset[int]  # stored numbers it reads itself
    statistics: frozenset[int]  # of these, those read as BatchNorm's running statistics
    updates: frozenset[int]  # running statistics that it moves
    claims: frozenset[int]  # stored numbers behind its operands
    frame: int | None
    function: int | None
    clock: int
    shape: tuple[int, ...]
    sight: Sight | None
    drawn: bool = False  # takes random numbers
    number: int = 0  # place in the order of all aten operations, from 1
    undecided: bool = False  # a random mask that happened to have no zero
    live: bool = True


@dataclass
class Memory:
    """What is known of one storage."""

    tensor: Tensor  # kept, so that its address is not used again
    layout: Layout | None  # None: does not depend on the image
    claims: frozenset[int] = frozenset()
    random: bool = False


@dataclass
class Trace:
    """What happened in one forward pass."""

    ops: list[Op] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)  # ordered, each once
    failure: BaseException | None = None
    output: Any = None
    sight_of_output: Sight | None = None
    foreign: dict[int, Tensor] = field(default_factory=dict)  # constants, by entry
    uncounted: bool = False  # some operation's multiply-adds are not known

    def mark_live(self, outputs: Iterable[Tensor]) -> None:
        """Mark the operations that the outputs depend on, walking backwards."""
        wanted = {storage_key(tensor) for tensor in outputs}
        for op in reversed(self.ops):
            op.live = bool(op.writes & wanted)
            if op.live:
                wanted = (wanted - op.erases) | op.reads


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every aten operation, under the module and function that called it."""

    def __init__(
        self,
        registry: Registry,
        names: dict[int, str],
        attributes: dict[int, str],
        returning: frozenset[int] = frozenset(),
    ):
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self._registry = registry
        self._names = names  # id of module -> path
        self._attributes = attributes  # address -> name of a tensor kept as a plain attribute
        self._returning = returning  # numbers of constants that are in truth made from the image
        self._memory: dict[int, Memory] = {}
        self._frames: list[Frame] = []
        self._functions: list[Function] = []
        self._linear = 0
        self._clock = 0
        self._count = 0  # of aten operations
        self._thread = threading.get_ident()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Answer torch: no need to shield this mode from dynamo, whose import takes seconds."""
        return False

    # --- what is called ---------------------------------------------------------------

    def show(self, image: Tensor) -> None:
        """Make `image`, (N, C, H, W), known as the input."""
        layout = Layout.bind(image_sight(image.shape), image)
        self._memory[storage_key(image)] = Memory(image, layout)

    def tick(self) -> int:
        self._clock += 1
        return self._clock

    def enter_module(self, module: nn.Module) -> None:
        if threading.get_ident() != self._thread:
            return
        children = {name for name, _ in module.named_children()} - {"parametrizations"}
        path = self._names.get(id(module))
        frame = Frame(
            index=len(self.trace.frames),
            path=type(module).__name__ if path is None else path,
            leaf=not children and path != "",
            own=type(module).__module__.startswith("torch."),
            clock=self.tick(),
            functions=len(self._functions),
            parent=self._frames[-1].index if self._frames else None,
        )
        self.trace.frames.append(frame)
        self._frames.append(frame)

    def leave_module(self, arguments: Any, result: Any) -> None:
        if threading.get_ident() != self._thread or not self._frames:
            return
        frame = self._frames.pop()
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if tensors:
            frame.shape, frame.sight = tuple(tensors[0].shape), self.sight(tensors[0])
            given = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
            frame.same = bool(given) and (
                storage_key(given[0]) == storage_key(tensors[0])
                and given[0].shape == tensors[0].shape
            )

    def enter_function(self, name: str) -> Function:
        function = Function(
            index=len(self.trace.functions),
            name=name,
            frame=self._frames[-1].index if self._frames else None,
            clock=self.tick(),
            outer=self._functions[-1].index if self._functions else None,
        )
        self.trace.functions.append(function)
        self._functions.append(function)
        self._linear += name in LINEAR
        return function

    def leave_function(self, function: Function, result: Any) -> None:
        self._functions.pop()
        self._linear -= function.name in LINEAR
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if tensors:
            with torch._C.DisableTorchFunction():
                function.shape, function.sight = tuple(tensors[0].shape), self.sight(tensors[0])

    def sight(self, tensor: Tensor) -> Sight | None:
        """Return what `tensor` sees; None if it does not depend on the image."""
        memory = self._memory.get(storage_key(tensor))
        if memory is None or memory.layout is None:
            return None
        sight = memory.layout.read(tensor)
        if sight.windows is None and memory.layout.sight.windows is not None:
            self.trace.notes["receptive field unknown after a view that crosses dimensions"] = None
        return sight

    # --- one operation ------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunction():  # our own questions to tensors are no calls
            return self._dispatch(func, args, kwargs or {})

    def _dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return func(*args, **kwargs)
        self._count += 1
        name = base_name(func)
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        try:
            operands = [self._operand(tensor, name) for tensor in inputs]
        except Exception as error:  # a tensor without plain memory
            self._give_up(name, error)
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        try:
            self._record(func, name, args, kwargs, inputs, operands, result)
        except Exception as error:
            self._give_up(name, error)
        return result

    def _give_up(self, name: str, error: Exception) -> None:
        self.trace.notes[f"{name} could not be followed: {type(error).__name__}: {error}"] = None

    def _operand(self, tensor: Tensor, name: str) -> Operand:
        key = storage_key(tensor)
        memory = self._memory.get(key)
        entries = self._registry.overlapping(tensor)
        if memory is None and not entries:
            self._found_constant(tensor, literal=name == "lift_fresh")
            entries = self._registry.overlapping(tensor)
        elif memory is None and all(entry in self.trace.foreign for entry in entries):
            self._found_constant(tensor, literal=False)  # perhaps another part of it
        stored = bool(entries) or bool(memory and memory.claims)
        return Operand(tensor, self.sight(tensor), stored)

    def _found_constant(self, tensor: Tensor, literal: bool) -> None:
        kept = self._attributes.get(storage_key(tensor), "constant")
        if len(self.trace.foreign) in self._returning:
            self._return(tensor)
        entry = self._registry.add(kept, tensor, CONSTANT, literal=literal)
        self.trace.foreign[entry.index] = tensor

    def _return(self, tensor: Tensor) -> None:
        """Take in values that went from the image through Python: they may depend on anything."""
        sight = Sight(plain_dims(tensor.shape), None, cut=True)
        self._memory[storage_key(tensor)] = Memory(tensor, Layout.bind(sight, tensor))
        known = frozenset(key for key, memory in self._memory.items() if memory.layout)
        here, nothing = frozenset({storage_key(tensor)}), frozenset[int]()
        self.trace.ops.append(
            Op("python", None, 0, True, known, here, nothing, nothing, nothing, nothing, nothing,
               None, None, self.tick(), tuple(tensor.shape), None)
        )  # fmt: skip

    def _record(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: list[Tensor],
        operands: list[Operand],
        result: Any,
    ) -> None:
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if not outputs:
            self._escaped(name, operands)
            return
        made = name.startswith(MADE_PREFIXES) or name.endswith("_like")
        changed = _changed(func, args, kwargs)
        if changed and name in OVERWRITING:
            operands = operands[1:] if name == "copy" else []
        used = [] if made else _effective(name, args, kwargs, operands)
        by_id = {id(operand.tensor): operand for operand in operands}
        data = any(operand.sight for operand in used)
        entries = self._entries(used)
        claims = entries.union(*(self._claims(operand.tensor) for operand in used))
        random = torch.Tag.nondeterministic_seeded in func.tags
        drawn = random or any(self._random(operand.tensor) for operand in used)

        sight, kind, undecided = None, None, False
        views = {storage_key(tensor) for tensor in inputs}
        is_view = not changed and all(storage_key(out) in views for out in outputs)
        call = Call(
            name, args, is_pointwise(func), used,
            lambda tensor: by_id.get(id(tensor)) or Operand(tensor, self.sight(tensor), False),
            changed or outputs, self._linear > 0,
        )  # fmt: skip
        if data and not is_view:
            finding, unknown = judge(call)
            sight, kind = _with_jumps(finding, used), finding.kind
            if unknown and not any(op.sight and op.sight.windows is None for op in used):
                self.trace.notes[unknown] = None
            if drawn:
                kind, undecided = self._met_random(name, args, used, kind, random)
            if kind == "batchnorm" and not uses_batch_statistics(call):
                kind = "scale"
            self.trace.uncounted |= name in UNCOUNTED
        elif not is_view and multiply_adds(name, args, outputs[0]):
            kind = "matmul"  # weights with weights: work, but no layer that mixes the image
        moved = self._statistics(name, args, range(3, 5)) if name in BATCH_NORMS else frozenset()
        frame, function = self._owner()
        self.trace.ops.append(
            Op(
                name=name,
                kind=kind,
                macs=0 if is_view else multiply_adds(name, args, outputs[0]),
                data=data,
                reads=frozenset(storage_key(operand.tensor) for operand in used),
                writes=frozenset(storage_key(out) for out in [*outputs, *changed]),
                erases=frozenset(
                    storage_key(out) for out in changed if name in OVERWRITING and _is_all(out)
                )
                | (frozenset() if is_view or changed else frozenset(map(storage_key, outputs))),
                entries=entries,
                statistics=moved,
                updates=moved if call.pointwise is False and _moves(call) else frozenset(),
                claims=frozenset(claims),
                frame=frame,
                function=function,
                clock=self.tick(),
                shape=tuple(outputs[0].shape),
                sight=sight,
                drawn=drawn,
                number=self._count,
                undecided=undecided,
            )
        )
        if is_view:
            return
        for out in changed or outputs:
            self._remember(out, sight, frozenset(claims), drawn and not data, bool(changed))

    def _escaped(self, name: str, operands: list[Operand]) -> None:
        if name in ("_local_scalar_dense", "equal", "is_nonzero") and any(
            operand.sight for operand in operands
        ):
            self.trace.notes[
                "a number computed from the image goes through Python: "
                "the table holds for one random image"
            ] = None

    def _owner(self) -> tuple[int | None, int | None]:
        """Return the module call and the function call whose row an operation belongs to."""
        for frame in self._frames:
            if frame.leaf:
                at = frame
                break
        else:
            at = self._frames[-1] if self._frames else None  # type: ignore[assignment]
        start = at.functions if at else 0
        function = self._functions[start].index if len(self._functions) > start else None
        return (at.index if at else None), function

    def _entries(self, operands: list[Operand]) -> frozenset[int]:
        found: set[int] = set()
        for operand in operands:
            found.update(self._registry.overlapping(operand.tensor))
        return frozenset(found)

    def _claims(self, tensor: Tensor) -> frozenset[int]:
        memory = self._memory.get(storage_key(tensor))
        return memory.claims if memory and memory.layout is None else frozenset()

    def _random(self, tensor: Tensor) -> bool:
        memory = self._memory.get(storage_key(tensor))
        return bool(memory and memory.random)

    def _statistics(
        self, name: str, args: tuple[Any, ...], positions: Iterable[int]
    ) -> frozenset[int]:
        tensors = [args[at] for at in positions if at < len(args)]
        found = [self._registry.overlapping(t) for t in tensors if isinstance(t, Tensor)]
        return frozenset(entry for entries in found for entry in entries)

    def _met_random(
        self, name: str, args: tuple[Any, ...], used: list[Operand], kind: str | None, drawing: bool
    ) -> tuple[str | None, bool]:
        """Return the kind of an operation in which data meets random numbers."""
        if name == "native_dropout":
            return ("dropout" if args[2] is not False and args[1] > 0 else kind), False
        if name in ("rrelu_with_noise", "rrelu_with_noise_functional"):
            return kind, False
        if drawing or name not in ("mul", "where", "masked_fill"):
            return "noise", False
        for operand in used:
            if operand.sight or not self._random(operand.tensor):
                continue
            values = operand.tensor.detach().reshape(-1)
            distinct = torch.unique(values[:4096])
            if len(distinct) > 2:
                return "noise", False
            if len(distinct) == 1:
                return kind, True
            if bool((distinct != 0).all()):
                return "noise", False
            mask = operand.tensor
            per_image = any(
                mask.dim() == other.tensor.dim() and mask.numel() == mask.shape[0]
                for other in used
                if other.sight
            )
            return ("droppath" if per_image else "dropout"), False
        return kind, False

    def _remember(
        self, out: Tensor, sight: Sight | None, claims: frozenset[int], random: bool, changed: bool
    ) -> None:
        """Keep what is known of a result, or of a part of memory that was written."""
        key = storage_key(out)
        memory = self._memory.get(key)
        if changed and memory is None and self._registry.overlapping(out):
            return  # a stored number that moves: still a stored number
        if sight is not None and tuple(out.shape) != tuple(
            prod(run.size for run in dim) for dim in sight.dims
        ):  # the second result of several, with another shape
            sight = Sight(plain_dims(out.shape), sight.windows, cut=True)
        if not changed or memory is None or _is_all(out):
            layout = Layout.bind(sight, out) if sight else None
            self._memory[key] = Memory(out, layout, claims, random)
            return
        if sight is None:
            memory.claims |= claims
            memory.random |= random
            return
        base = memory.tensor
        memory.layout = Layout.bind(_spread(base, memory.layout, out, sight), base)


class Functions(TorchFunctionMode):
    """Tells the recorder which torch function the user's Python called."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "size", "dim", "is_floating_point", ""):
            return func(*args, **kwargs)
        function = self._recorder.enter_function(name.strip("_"))
        result = None
        try:
            result = func(*args, **kwargs)
        finally:
            self._recorder.leave_function(function, result)
        return result


class Hooks:
    """Module hooks for all modules while a recorder runs, taken off at the end."""

    def __init__(self, recorder: Recorder):
        self._recorder = recorder
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        recorder = self._recorder

        def before(module: nn.Module, arguments: Any) -> None:
            recorder.enter_module(module)

        def after(module: nn.Module, arguments: Any, result: Any) -> None:
            with torch._C.DisableTorchFunction():
                recorder.leave_module(arguments, result)

        self._handles.append(register_module_forward_pre_hook(before))
        self._handles.append(register_module_forward_hook(after, always_call=True))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()


def record(
    forward: Callable[[Tensor], Any],
    image: Tensor,
    registry: Registry,
    names: dict[int, str],
    attributes: dict[int, str],
    returning: frozenset[int] = frozenset(),
) -> Trace:
    """Run `forward` on `image`, (N, C, H, W), and return what happened, also if it failed."""
    recorder = Recorder(registry, names, attributes, returning)
    trace = recorder.trace
    try:
        with Hooks(recorder), Functions(recorder), recorder:
            recorder.show(image)
            trace.output = forward(image)
            if isinstance(trace.output, Tensor):
                trace.sight_of_output = recorder.sight(trace.output)
    except Exception as error:
        trace.failure = error
    if trace.failure is None:
        leaves = tree_leaves(trace.output)
        trace.mark_live(leaf for leaf in leaves if isinstance(leaf, Tensor))
    return trace


def _changed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that an in-place operation or an `out=` argument writes to."""
    if not func._schema.is_mutable:
        return []
    written = []
    for at, parameter in enumerate(func._schema.arguments):
        if parameter.alias_info is not None and parameter.alias_info.is_write:
            value = args[at] if at < len(args) else kwargs.get(parameter.name)
            written += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return written if base_name(func) not in BATCH_NORMS else []


def _effective(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], operands: list[Operand]
) -> list[Operand]:
    """Return the operands that can change the result: nothing survives a product with zero."""
    if name == "mul":
        scalars = [argument for argument in args[:2] if isinstance(argument, (int, float))]
        if 0 in scalars or any(operand.same_value() == 0 for operand in operands):
            return [operand for operand in operands if operand.same_value() == 0]
    if name in ("add", "sub") and kwargs.get("alpha") == 0:
        return operands[:1]
    if name == "where" and len(operands) == 3:
        choice = operands[0].same_value()
        if choice is not None:
            return [operands[1 if choice else 2]]
    if name == "lerp" and len(args) == 3 and args[2] in (0, 1) and not torch.is_tensor(args[2]):
        return [operands[int(args[2])]]
    return [operand for operand in operands if operand.tensor.numel()]


def _with_jumps(finding: Finding, used: list[Operand]) -> Sight:
    """Keep the jump of an axis whose positions are all gone; a global mean is one big stride."""
    before = [operand.sight for operand in used if operand.sight]
    jumps = []
    for axis in AXES:
        jump = max(sight.jump(axis) for sight in before)
        if any(run.axis == axis for dim in finding.sight.dims for run in dim):
            jump = finding.sight.jump(axis)
        elif finding.kind == "gap":
            jump *= max(prod(run.size for run in sight.runs(axis)) for sight in before)
        jumps.append(jump)
    return replace(finding.sight, jumps=(jumps[0], jumps[1]))


def _moves(call: Call) -> bool:
    """Tell whether a batch normalisation in this pass moves its running statistics."""
    return call.name in BATCH_NORMS and uses_batch_statistics(call) and call.at(6, 0.1) != 0


def _is_all(tensor: Tensor) -> bool:
    """Tell whether `tensor` is the whole of its storage."""
    return tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes()


def _spread(base: Tensor, layout: Layout | None, part: Tensor, sight: Sight) -> Sight:
    """Return the sight of `base` after `part`, a view of it, was written with `sight`."""
    before = layout.read(base) if layout else None
    dims = list(before.dims if before else plain_dims(base.shape))
    shift = dict.fromkeys(AXES, Fraction(0))
    offset = int(part.storage_offset() - base.storage_offset())
    order = sorted(range(base.dim()), key=base.stride, reverse=True)
    starts = {}
    for at in order:
        starts[at], offset = divmod(offset, max(base.stride(at), 1))
    for at in range(base.dim()):
        same = [i for i in range(part.dim()) if part.stride(i) == base.stride(at)]
        same = [i for i in same if part.shape[i] > 1]
        if base.shape[at] > 1 and same and len(sight.dims[same[0]]) == 1:
            run = sight.dims[same[0]][0]
            if run.axis in shift:
                shift[run.axis] = -starts[at] * run.step
            dims[at] = (replace(run, size=base.shape[at]),)
    if sight.windows is None or (before and before.windows is None):
        return Sight(tuple(dims), None, cut=True)
    rows, cols = (
        replace(window, start=window.start + shift[axis])
        for axis, window in zip(AXES, sight.windows, strict=True)
    )
    if before is not None and before.windows is not None:
        pairs = list(zip(before.windows, (rows, cols), strict=True))
        starts_at = [min(a.start, b.start) for a, b in pairs]
        sizes = [max(a.stop, b.stop) - s for (a, b), s in zip(pairs, starts_at, strict=True)]
        rows, cols = (
            replace(b, start=s, size=n)
            for (_, b), s, n in zip(pairs, starts_at, sizes, strict=True)
        )
    return Sight(tuple(dims), (rows, cols), cut=bool(before and before.cut))
