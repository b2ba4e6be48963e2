"""Which operation makes the output for one image depend on the others of its batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from whit.analysis.rules.call import get_aten_name
from whit.analysis.sources.executed_code import CodeLine, find_code_line
from whit.analysis.tracing.dataflow import tensor_leaves

MAX_OPERATIONS = 20_000

# Names that say little, with what they do.
_NAMES = {
    "native_batch_norm": "normalization by the statistics of the batch",
    "_native_batch_norm_legit": "normalization by the statistics of the batch",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "quantized::linear_dynamic": "a linear layer with one quantization scale for the batch",
}


class _Executed(NamedTuple):
    name: str
    module: str
    line: CodeLine | None
    part: Tensor | None  # of the results, what belongs to the first image


class PartRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps of every result the part that belongs to the first of `batch` images."""

    def __init__(self, batch: int, paths: dict[int, str]):
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[_Executed] = []
        self._batch = batch
        self._paths = paths
        self._modules: list[str] = []
        self._thread = threading.get_ident()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    @contextmanager
    def hook_modules(self) -> Iterator[None]:
        def enter(module: nn.Module, arguments: Any) -> None:
            self._modules.append(self._paths.get(id(module), type(module).__name__))

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
            part = self._part_of_first(leaves[0])
        module = self._modules[-1] if self._modules else ""
        self.operations.append(_Executed(name, module, find_code_line(), part))

    def _part_of_first(self, tensor: Tensor) -> Tensor:
        """Return the part of the first image; all of it where no dimension has the images."""
        batch = self._batch
        if tensor.dim() and tensor.shape[0] % batch == 0:
            return tensor[: tensor.shape[0] // batch].clone()
        for dim, size in enumerate(tensor.shape):
            if size == batch:
                return tensor.narrow(dim, 0, 1).clone()
        return tensor.clone()


def describe_mixing(run: Any, model: nn.Module, images: Tensor, others: Tensor) -> str | None:
    """Return which operation mixes images, from two batches that share only the first image.

    `run(images)` runs `model` in the same mode and random state each time.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    passes = []
    for batch in (images, others):
        recorder = PartRecorder(len(batch), paths)
        with recorder.hook_modules(), recorder:
            if run(batch) is None:
                return None
        passes.append(recorder.operations)
    for one, other in zip(*passes, strict=False):
        if one.name != other.name:
            return None
        if one.part is not None and other.part is not None and _differ(one.part, other.part):
            return _describe(one)
    return None


def _differ(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return True
    if one.is_quantized:
        one, other = one.dequantize(), other.dequantize()
    return not torch.allclose(one.double(), other.double(), rtol=0, atol=0, equal_nan=True)


def _describe(operation: _Executed) -> str:
    name = _NAMES.get(operation.name, operation.name)
    module = f" in {operation.module}" if operation.module else ""
    line = f" ({operation.line})" if operation.line else ""
    return f"{name}{module}{line} mixes them"
