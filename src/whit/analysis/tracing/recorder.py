"""Recording one forward pass on a tiny batch, operation by operation."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from whit.analysis.kinds import BATCH_NORMS
from whit.analysis.macs import UNCOUNTED, multiply_adds
from whit.analysis.receptive_field import (
    Layout,
    Sight,
    image_sight,
    plain_dims,
)
from whit.analysis.rules.call import (
    Call,
    Operand,
    base_name,
    is_counted,
    is_pointwise,
    uses_batch_statistics,
)
from whit.analysis.rules.randomness import met_random
from whit.analysis.rules.registry import judge
from whit.analysis.tracing.dataflow import (
    MADE_PREFIXES,
    OVERWRITING,
    changed_by,
    effective,
    is_all,
    moves_statistics,
    same_memory,
    with_jumps,
    written_into,
)
from whit.analysis.tracing.storage import CONSTANT, Registry, storage_key
from whit.analysis.tracing.trace import Frame, Function, Memory, Op, Trace

# Functions that are fully connected by name, wherever they are applied.
LINEAR = frozenset({"linear", "bilinear", "multi_head_attention_forward"})


ATTENDING = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})


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
                given[0] is tensors[0]
                or (same_memory(given[0], tensors[0]) and given[0].shape == tensors[0].shape)
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
        try:
            memory = self._memory.get(storage_key(tensor))
        except NotImplementedError:  # no memory of its own, as inside torch.vmap
            return None
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
        self._count += is_counted(func)
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
        changed = changed_by(func, args, kwargs)
        if changed and name in OVERWRITING:
            operands = operands[1:] if name == "copy" else []
        used = [] if made else effective(name, args, kwargs, operands)
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
            changed or outputs, self._linear > 0, self._in_attention(),
        )  # fmt: skip
        if data and not is_view:
            finding, unknown = judge(call)
            sight, kind = with_jumps(finding, used), finding.kind
            if unknown and not any(op.sight and op.sight.windows is None for op in used):
                self.trace.notes[unknown] = None
            if drawn:
                masks = [op.tensor for op in used if not op.sight and self._random(op.tensor)]
                kind, undecided = met_random(call, masks, kind, random)
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
                    storage_key(out) for out in changed if name in OVERWRITING and is_all(out)
                )
                | (frozenset() if is_view or changed else frozenset(map(storage_key, outputs))),
                entries=entries,
                statistics=moved,
                updates=moved
                if call.pointwise is False and moves_statistics(call)
                else frozenset(),
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

    def _in_attention(self) -> bool:
        return any(function.name in ATTENDING for function in self._functions)

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
        if not changed or memory is None or is_all(out):
            layout = Layout.bind(sight, out) if sight else None
            self._memory[key] = Memory(out, layout, claims, random)
            return
        if sight is None:
            memory.claims |= claims
            memory.random |= random
            return
        base = memory.tensor
        memory.layout = Layout.bind(written_into(base, memory.layout, out, sight), base)
