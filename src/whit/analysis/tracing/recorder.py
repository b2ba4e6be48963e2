"""Recording one forward pass on a small batch, operation by operation."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from whit.analysis.receptive_field import AXES, ReceptiveField, image_field, untracked_dims
from whit.analysis.rules.call import OpCall, Operand, OperationMode, get_aten_name, is_numbered
from whit.analysis.rules.composites import (
    ATTENTION_FUNCTIONS,
    LINEAR_FUNCTIONS,
    resolve_composite,
)
from whit.analysis.rules.randomness import classify_random, draws_numbers, plant_extremes
from whit.analysis.rules.registry import apply_rule, find_operator, is_batch_norm, is_opaque
from whit.analysis.sources.executed_code import find_code_line
from whit.analysis.sources.packed_values import PackedModules, count_parts
from whit.analysis.sources.python_numbers import find_numbers
from whit.analysis.tracing import dataflow
from whit.analysis.tracing.call_stack import CallStack
from whit.analysis.tracing.dataflow import tensor_leaves
from whit.analysis.tracing.memory_layout import Layout
from whit.analysis.tracing.read_values import LEAVING
from whit.analysis.tracing.stored_tensors import CONSTANT, TensorRegistry, storage_key
from whit.analysis.tracing.trace import FunctionCall, ModuleCall, Op, StorageInfo, Trace

_WHOLE = {frozenset("h"): "its whole column", frozenset("w"): "its whole row"}


class Recorder(OperationMode):
    """Records every aten operation, under the module and function that called it."""

    def __init__(
        self,
        registry: TensorRegistry,
        paths: dict[int, str],
        attributes: dict[int, str],
        image_constants: frozenset[int] = frozenset(),
        planted_draw: int | None = None,
        earlier: Mapping[int, StorageInfo] | None = None,
    ):
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self._calls = CallStack(self.trace, paths)
        self._registry = registry
        self._attributes = attributes  # names of tensors kept as plain attributes, by storage key
        self._image_constants = image_constants  # constants by number that the image determines
        self.packed = PackedModules()
        self._planted_draw = planted_draw  # which training pass this is; None: for inference
        self._earlier = earlier or {}  # storages of earlier passes, which the model may have kept
        self.storages: dict[int, StorageInfo] = {}
        self._thread = threading.get_ident()
        self._is_inspecting = False
        self._num_leaving = 0  # calls of functions in LEAVING so far

    # --- what is called ---------------------------------------------------------------

    def set_input(self, image: Tensor) -> None:
        """Register `image`, (N, C, H, W), as the input."""
        layout = Layout.bind(image_field(image.shape), image)
        self.storages[storage_key(image)] = StorageInfo(image, layout)

    def enter_module(self, module: nn.Module) -> None:
        if threading.get_ident() == self._thread:
            self._calls.enter_module(module)
        else:
            self.trace.unseen["a module runs in another thread, where it cannot be seen"] = None

    def leave_module(self, arguments: Any, result: Any) -> None:
        if threading.get_ident() != self._thread or not self._calls.modules:
            return
        with self._inspecting():
            self._leave_module(self._calls.modules.pop(), arguments, result)

    @contextmanager
    def _inspecting(self) -> Iterator[None]:
        """Run operations that look into a tensor as none of the model's."""
        self._is_inspecting = True
        try:
            yield
        finally:
            self._is_inspecting = False

    def _leave_module(self, call: ModuleCall, arguments: Any, result: Any) -> None:
        call.returned = result is not None
        tensors = tensor_leaves(result)
        if tensors:
            result = tensors[0]
            call.shape, call.field = tuple(result.shape), self.find_field(result)
            for tensor in tensor_leaves(arguments)[:1]:
                shares = dataflow.shares_storage(tensor, result)
                call.returns_input = tensor is result or (shares and tensor.shape == result.shape)

    def enter_function(self, name: str) -> FunctionCall:
        return self._calls.enter_function(name)

    def leave_function(self, call: FunctionCall, arguments: Any, result: Any) -> None:
        self._calls.functions.pop()
        if call.name in LEAVING:
            with torch._C.DisableTorchFunction(), self._inspecting():
                tensors = tensor_leaves(arguments)
                if any(self.find_field(tensor) for tensor in tensors):
                    self.trace.array_reads.append(self._num_leaving)
                self.trace.left_entries |= self._find_entries(tensors)
                self.trace.read_entries |= self.trace.left_entries
            self._num_leaving += 1
        tensors = tensor_leaves(result)
        if tensors:
            with torch._C.DisableTorchFunction(), self._inspecting():
                if call.name == "rms_norm":
                    self._keep_windows(arguments, tensors[0])
                call.shape, call.field = tuple(tensors[0].shape), self.find_field(tensors[0])

    def _keep_windows(self, arguments: Any, result: Tensor) -> None:
        """Give the result of `rms_norm` the field of its input, as its parts are not one operation.

        A normalization keeps the windows; see `reductions`.
        """
        image = tensor_leaves(arguments)[0]
        before, storage = self.find_field(image), self.storages.get(storage_key(result))
        if before is None or storage is None or image.shape != result.shape:
            return
        normalized = before.dims[len(before.dims) - len(arguments[1]) :]
        axes = {run.axis for dim in normalized for run in dim if run.size > 1} & {*AXES}
        storage.layout = Layout.bind(before.without_flags(), result)
        self._note_whole_axes(frozenset(axes), "layernorm")

    def find_field(self, tensor: Tensor) -> ReceptiveField | None:
        """Return the receptive field of `tensor`; None if it does not depend on the image."""
        try:
            storage = self.storages.get(storage_key(tensor))
        except NotImplementedError:  # no memory of its own, as inside torch.vmap
            return None
        if storage is None or storage.layout is None:
            return None
        field = storage.layout.read(tensor)
        if field.windows is None and storage.layout.field.windows is not None:
            self._note("receptive field unknown after a view that crosses dimensions")
        return field

    def check_output(self, tensor: Tensor) -> None:
        """Note an output that no operation of the pass has computed, as one of another thread."""
        key = storage_key(tensor)
        if key not in self.storages and not self._registry.overlapping(tensor):
            self._note_unseen("the output was not computed where it can be seen")

    def _note(self, text: str) -> None:
        self.trace.notes[text] = None

    def find_computed(self) -> dict[int, StorageInfo]:
        """Return the storages that were computed from the code alone, by key.

        They depend on neither the image, nor stored, nor random numbers.
        """
        return {
            key: storage
            for key, storage in self.storages.items()
            if not (storage.layout or storage.claims or storage.stochastic)
        }

    # --- one operation ------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunction():  # what the recorder does with tensors is not a call
            return self._dispatch(func, args, kwargs or {})

    def _dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread or self._is_inspecting:
            return func(*args, **kwargs)
        packed = self.packed.unpack(args)
        name = get_aten_name(func)
        inputs = [*tensor_leaves((args, kwargs)), *packed]
        operands: list[Operand] | None = None
        try:
            if not func.is_view and not dataflow.is_factory(name):
                written = dataflow.find_mutated(func, args, kwargs)
                self._find_unwritten(
                    tensor for tensor in inputs if all(tensor is not w for w in written)
                )
            operands = [self._make_operand(tensor, name) for tensor in inputs]
        except Exception as error:  # a tensor without plain memory
            self._note_failure(name, error)
        result = func(*args, **kwargs)
        if is_numbered(func):
            self.trace.signature.append(dataflow.sign_operation(func, result))
        if operands is None:
            return result
        try:
            self._record(func, name, args, kwargs, operands, result)
        except Exception as error:
            self._note_failure(name, error)
        return result

    def _note_failure(self, name: str, error: Exception) -> None:
        reason = "".join(str(error).splitlines()[:1])
        self._note_unseen(f"{name} could not be followed: {type(error).__name__}: {reason}")

    def _note_unseen(self, text: str) -> None:
        """Note why what the forward pass does cannot be known completely."""
        self._note(text)
        self.trace.unseen[text] = None

    def _find_unwritten(self, tensors: Iterable[Tensor]) -> None:
        """Take memory that is read and that no operation wrote for numbers from outside.

        TorchScript writes a list of numbers into memory without an operation.
        """
        for tensor in tensors:
            storage = self.storages.get(storage_key(tensor))
            if storage is not None and storage.unwritten and tensor.numel():
                del self.storages[storage_key(tensor)]
                self._add_constant(tensor, literal=True)

    def _make_operand(self, tensor: Tensor, name: str) -> Operand:
        key = storage_key(tensor)
        storage, entries = self.storages.get(key), self._registry.overlapping(tensor)
        if storage is None and not entries and key in self._earlier:
            storage = self.storages[key] = self._earlier[key]  # computed from the code alone
        elif storage is None and not entries:
            self._add_constant(tensor, literal=name == "lift_fresh")
            entries = self._registry.overlapping(tensor)
        elif storage is None and all(entry in self.trace.constants for entry in entries):
            self._add_constant(tensor, literal=False)  # perhaps another part of it
        stored = bool(entries) or bool(storage and storage.claims)
        random = bool(storage and storage.stochastic)
        return Operand(tensor, self.find_field(tensor), stored, random)

    def _add_constant(self, tensor: Tensor, literal: bool) -> None:
        name = self._attributes.get(storage_key(tensor), "constant")
        if len(self.trace.constants) in self._image_constants:
            self._add_python_result(tensor)
        entry = self._registry.add(name, tensor, CONSTANT, literal=literal)
        self.trace.constants[entry.index] = tensor

    def _add_python_result(self, tensor: Tensor) -> None:
        """Record values that went from the image through Python: they may depend on anything."""
        field = ReceptiveField(untracked_dims(tensor.shape), None, cropped=True)
        key = storage_key(tensor)
        self.storages[key] = StorageInfo(tensor, Layout.bind(field, tensor))
        known = frozenset(key for key, storage in self.storages.items() if storage.layout)
        shape = tuple(tensor.shape)
        self.trace.ops.append(
            Op("python", None, self._calls.next_order(), shape, True, known, frozenset({key}))
        )

    def _record(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        operands: list[Operand],
        result: Any,
    ) -> None:
        mutated = dataflow.find_mutated(func, args, kwargs)
        outputs = tensor_leaves(result) or mutated
        if not outputs:
            self._note_scalar(name, operands)
            return
        if not {id(out) for out in outputs} & {id(out) for out in mutated}:
            mutated = []  # written beside the results, such as the noise of RReLU
        views = {storage_key(operand.tensor) for operand in operands}
        reshaped = mutated and name in dataflow.INPLACE_VIEWS
        is_view = (not mutated or reshaped) and all(storage_key(out) in views for out in outputs)
        if mutated and name in dataflow.OVERWRITING_OPS:
            operands = operands[1:] if name == "copy" else []
        used = (
            []
            if dataflow.is_factory(name)
            else dataflow.live_operands(name, args, kwargs, operands)
        )
        by_id = {id(operand.tensor): operand for operand in operands}
        uses_image = any(operand.field for operand in used)
        entries = self._find_entries(operand.tensor for operand in used)
        claims = entries.union(*(self._find_claims(operand.tensor) for operand in used))
        generates = torch.Tag.nondeterministic_seeded in func.tags and draws_numbers(name, args)
        if generates and self._planted_draw is not None and not uses_image:
            plant_extremes(name, args, outputs[0], self._planted_draw)
        stochastic = generates or any(operand.random for operand in used)

        field, kind, inconclusive = None, None, False
        pointwise = torch.Tag.pointwise in func.tags
        operator = find_operator(name, pointwise)
        macs = 0 if is_view or operator.macs is None else operator.macs(name, args, outputs[0])
        call = OpCall(
            name, args, pointwise, used,
            lambda tensor: by_id.get(id(tensor)) or Operand(tensor, self.find_field(tensor), False),
            mutated or outputs, self._calls.is_inside(LINEAR_FUNCTIONS),
            self._calls.is_inside(ATTENTION_FUNCTIONS), kwargs,
        )  # fmt: skip
        if uses_image and not is_view:
            finding, unknown = apply_rule(call, operator)
            field, kind = dataflow.keep_jumps(finding, used), finding.kind
            if unknown and not any(before.windows is None for before in call.fields):
                self._note(unknown)
            if stochastic:
                masks = [o.tensor for o in used if not o.field and o.random]
                kind, inconclusive = classify_random(call, masks, kind, generates)
            if kind == "batchnorm" and not call.uses_batch_statistics:
                kind = "scale"
            self._note_whole_axes(finding.whole_axes, kind)
            vector = prod(call.shape[2:]) == 1
            if kind in ("mean", "sum", "avgpool") and field.windows is None and vector:
                self._note_unseen(
                    f"whether {self._calls.describe_caller()} averages the whole map is unknown, "
                    "as it follows an operation whose positions are unknown"
                )
            if dataflow.has_size_of_image(func, name, args, call):
                self._note_unseen(
                    f"how many values {name} picks depends on the image: the table holds for one "
                    "random image"
                )
            if is_opaque(name):
                self._note_unseen(f"{name} is not known here, and what it does cannot be seen")
            self.trace.macs_unknown |= operator.macs is None or is_opaque(name)
        elif macs:
            kind = "matmul"  # weights with weights: work, but no layer that mixes the image
        numbers = find_numbers(func, name, args, kwargs)
        if kind or (uses_image and not is_view):
            functions = [function.name for function in self._calls.functions]
            kind = resolve_composite(functions, kind, name in ("copy", "clone"))
        statistics = self._find_entries(args[3:5] if is_batch_norm(name) else ())
        module_call, function_call = self._calls.find_caller()
        fills = name in dataflow.OVERWRITING_OPS
        overwritten = [out for out in mutated if fills and dataflow.covers_storage(out)]
        self.trace.ops.append(
            Op(
                name=name,
                kind=kind,
                order=self._calls.next_order(),
                shape=tuple(outputs[0].shape),
                uses_image=uses_image,
                reads=frozenset(storage_key(operand.tensor) for operand in used),
                writes=frozenset(storage_key(out) for out in [*outputs, *mutated]),
                overwrites=frozenset(
                    map(storage_key, overwritten if is_view or mutated else outputs)
                ),
                entries=entries,
                statistics=statistics,
                updates=statistics
                if uses_image and dataflow.updates_running_statistics(call)
                else frozenset(),
                claims=claims,
                macs=macs,
                over_batch=uses_image and dataflow.reduces_batch(name, call.fields, field),
                pairs=kind in ("matmul", "attention") and len(call.fields) > 1,
                field=field,
                module_call=module_call,
                function_call=function_call,
                stochastic=stochastic,
                number=len(self.trace.signature),
                inconclusive=inconclusive,
                numbers=numbers,
                num_parts=count_parts(func, name, args, outputs),
                line=find_code_line() if numbers else None,
            )
        )
        if any(isinstance(arg, torch.UntypedStorage) for arg in args) or name == "from_file":
            for out in outputs:  # memory that no operation wrote: a file, or bytes of Python
                self.storages.pop(storage_key(out), None)
                self._add_constant(out, literal=False)
            return
        if name == "_pack_padded_sequence":
            outputs = outputs[:1]  # the second depends on the lengths alone
        for out in [] if is_view else mutated or outputs:
            info = StorageInfo(out, None, claims, stochastic and not uses_image)
            info.unwritten = name.startswith(("empty", "new_empty"))
            self._store(info, field, bool(mutated))

    def _note_whole_axes(self, axes: frozenset[str], kind: str | None) -> None:
        """Note, once, that values depend on more than the windows that the table gives."""
        if axes and not any(
            "receptive fields are those of the windows" in n for n in self.trace.notes
        ):
            whole = _WHOLE.get(axes, "the whole map")
            self._note(
                f"from {self._calls.describe_caller()} on each value also depends on {whole} "
                f"({kind}); receptive fields are those of the windows"
            )

    def _note_scalar(self, name: str, operands: list[Operand]) -> None:
        """Keep what an operation reads whose result is a number of Python."""
        if name in ("_local_scalar_dense", "equal", "is_nonzero"):
            if any(operand.field for operand in operands):
                self.trace.scalar_reads.append(len(self.trace.signature))
            self.trace.read_entries |= self._find_entries(o.tensor for o in operands)

    def _find_entries(self, tensors: Iterable[Any]) -> frozenset[int]:
        overlapping = (self._registry.overlapping(t) for t in tensors if isinstance(t, Tensor))
        return frozenset(entry for entries in overlapping for entry in entries)

    def _find_claims(self, tensor: Tensor) -> frozenset[int]:
        storage = self.storages.get(storage_key(tensor))
        return storage.claims if storage and storage.layout is None else frozenset()

    def _store(self, info: StorageInfo, field: ReceptiveField | None, mutated: bool) -> None:
        """Keep what is known of a result, or of a part of memory that was written."""
        out = info.tensor
        key = storage_key(out)
        storage = self.storages.get(key)
        if storage is not None and mutated:
            storage.unwritten = False
        if mutated and storage is None and self._registry.overlapping(out):
            return  # a stored number that is updated: still a stored number
        if field is not None and tuple(out.shape) != tuple(
            prod(run.size for run in dim) for dim in field.dims
        ):  # the second result of several, with another shape
            field = ReceptiveField(untracked_dims(out.shape), field.windows, cropped=True)
        if not mutated or storage is None or dataflow.covers_storage(out):
            info.layout = Layout.bind(field, out) if field else None
            self.storages[key] = info
        elif field is None:
            storage.claims |= info.claims
            storage.stochastic |= info.stochastic
        else:
            merged = dataflow.merge_write(storage.tensor, storage.layout, out, field)
            storage.layout = Layout.bind(merged, storage.tensor)
