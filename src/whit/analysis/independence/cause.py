"""Which operation makes the output for one image depend on the others of its batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from whit.analysis.rules.call import OperationMode, get_aten_name
from whit.analysis.sources.executed_code import CodeLine, find_code_line
from whit.analysis.tracing.dataflow import sign_operation, tensor_leaves
from whit.analysis.tracing.trace import Signature

MAX_OPERATIONS = 20_000

# Names that say little, with what they do.
_NAMES = {
    "native_batch_norm": "normalization by the statistics of the batch",
    "_native_batch_norm_legit": "normalization by the statistics of the batch",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "quantized::linear_dynamic": "a linear layer with one quantization scale for the batch",
}
# Modules of torch whose single operations say less than the layer.
_LAYERS: tuple[tuple[type[nn.Module], str], ...] = (
    (
        nn.RNNBase,
        "a recurrent layer that takes the batch for time steps (without batch_first=True)",
    ),
    (nn.MultiheadAttention, "attention between the images of the batch"),
)


class _Executed(NamedTuple):
    name: str
    module: str
    layer: str | None  # what the module is, where it says more than the operation
    line: CodeLine | None
    part: Tensor | None  # of the results, what belongs to the image
    is_view: bool = False


class PartRecorder(OperationMode):
    """Keeps of every result the part that belongs to the first, or last, of `batch` images."""

    def __init__(self, batch: int, paths: dict[int, str], last: bool = False):
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[_Executed] = []
        self._batch = batch
        self._last = last
        self._paths = paths
        self._modules: list[nn.Module] = []
        self._thread = threading.get_ident()

    @contextmanager
    def hook_modules(self) -> Iterator[None]:
        def enter(module: nn.Module, arguments: Any) -> None:
            self._modules.append(module)

        def leave(module: nn.Module, arguments: Any, result: Any) -> None:
            if self._modules:
                self._modules.pop()

        hooks = (
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if threading.get_ident() == self._thread and len(self.operations) < MAX_OPERATIONS:
            with torch._C.DisableTorchFunction():
                self._keep(func, args, result)
        return result

    def _keep(self, func: Any, args: tuple[Any, ...], result: Any) -> None:
        name = get_aten_name(func)
        leaves = tensor_leaves(result)
        part = None
        # a view holds what its source holds, which may not have the images apart
        if leaves and leaves[0].numel() and not func.is_view:
            part = self._part_of_image(leaves[0])
        path, layer = "", None
        if self._modules:
            module = self._modules[-1]
            path = self._paths.get(id(module), type(module).__name__)
            layer = next((text for kind, text in _LAYERS if isinstance(module, kind)), None)
        self.operations.append(_Executed(name, path, layer, find_code_line(), part, func.is_view))

    def _part_of_image(self, tensor: Tensor) -> Tensor:
        """Return the part of the image; all of it where no dimension has the images."""
        batch = self._batch
        if tensor.dim() and tensor.shape[0] % batch == 0:
            size = tensor.shape[0] // batch
            return tensor.narrow(0, tensor.shape[0] - size if self._last else 0, size).clone()
        for dim, size in enumerate(tensor.shape):
            if size == batch:
                return tensor.narrow(dim, batch - 1 if self._last else 0, 1).clone()
        return tensor.clone()


class SignatureRecorder(OperationMode):
    """Keeps the name and the shapes of the results of every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.signature: list[Signature] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if len(self.signature) < MAX_OPERATIONS:
            with torch._C.DisableTorchFunction():
                self.signature.append(sign_operation(func, result))
        return result


def describe_mixing(
    run: Any, model: nn.Module, images: Tensor, others: Tensor, last: bool = False
) -> str | None:
    """Return which operation mixes images, from two batches that share only one image.

    It is the first of both batches, or the last. `run(images)` runs `model` in the same mode and
    random state each time.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    passes = []
    for batch in (images, others):
        recorder = PartRecorder(len(batch), paths, last)
        with recorder.hook_modules(), recorder:
            if run(batch) is None:
                return None
        passes.append(recorder.operations)
    rearranging = None  # the last of the model's operations that only rearranges
    for one, other in zip(*passes, strict=False):
        if one.name != other.name:
            return None
        if one.is_view and one.line is not None:
            rearranging = one
        if one.part is not None and other.part is not None and _differ(one.part, other.part):
            # outside the model nothing mixes: what it returns is arranged otherwise
            outside = one.line is None and not one.module
            return _describe(rearranging if outside and rearranging else one)
    return None


def _differ(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return True
    if one.is_quantized:
        one, other = one.dequantize(), other.dequantize()
    return not torch.allclose(one.double(), other.double(), rtol=0, atol=0, equal_nan=True)


def _describe(operation: _Executed) -> str:
    name = operation.layer or _NAMES.get(operation.name, operation.name)
    module = f" in {operation.module}" if operation.module else ""
    line = f" ({operation.line})" if operation.line else ""
    return f"{name}{module}{line} mixes them"
