"""The numbers a model stores: registered parameters and buffers, and constants found in a pass.

A number is a position in memory, so tied weights and overlapping views are counted once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

PARAMETER, BUFFER, CONSTANT = "parameter", "buffer", "constant"
RUNNING_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass
class StoredTensor:
    """One registered parameter or buffer, or one constant that inference reads."""

    index: int
    name: str
    role: str  # PARAMETER, BUFFER or CONSTANT
    num_elements: int  # positions in memory that no earlier entry holds
    trainable: bool = False
    running: bool = False  # a running statistic registered by a BatchNorm or InstanceNorm
    literal: bool = False  # written inside forward, as `torch.tensor([...])` is
    is_integer: bool = False

    @property
    def module_path(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def is_scalar_literal(self) -> bool:
        """One number written in the code of forward is code, as `x * 0.5` is."""
        return self.literal and self.num_elements <= 1


def memory_parts(tensor: Tensor) -> list[Tensor]:
    """Return the tensors that hold the numbers of `tensor`: itself, if it is dense.

    A sparse tensor has values and indices, a nested one the values of all its parts. Empty for a
    tensor whose memory cannot be seen, as in the format of oneDNN.
    """
    if tensor.is_nested:
        return [tensor.values()]
    if tensor.layout == torch.sparse_coo:
        return [tensor._values(), tensor._indices()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.values(), tensor.crow_indices(), tensor.col_indices()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.values(), tensor.ccol_indices(), tensor.row_indices()]
    if tensor.layout != torch.strided:
        return []
    return [tensor.conj() if tensor.is_conj() else tensor]


def storage_key(tensor: Tensor) -> int:
    """Return the address of the memory under `tensor`; views of one storage share it.

    Raises NotImplementedError for a tensor without memory of its own, as inside torch.vmap.
    """
    parts = memory_parts(tensor)
    if not parts:
        return -int(tensor._cdata)
    storage = parts[0].untyped_storage()
    return storage.data_ptr() or -int(storage._cdata)


def byte_span(tensor: Tensor) -> tuple[int, int]:
    """Return the first byte of `tensor` in its storage and one past the last."""
    if tensor.numel() == 0:
        return 0, 0
    first = int(tensor.storage_offset())
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    last = first + sum((size - 1) * int(stride) for size, stride in strides)
    return first * tensor.element_size(), (last + 1) * tensor.element_size()


def _find_spans(tensor: Tensor) -> list[tuple[int, tuple[int, int]]]:
    """Return the storage key and the span of bytes of each part of the memory of `tensor`."""
    if tensor.is_meta:
        return []
    parts = memory_parts(tensor)
    if not parts:
        return [(storage_key(tensor), (0, 1))]
    return [(storage_key(part), byte_span(part)) for part in parts]


@dataclass
class TensorRegistry:
    """Every stored number of one model, found by its position in memory."""

    entries: list[StoredTensor] = field(default_factory=list)
    lazy: list[str] = field(default_factory=list)  # parameters that have no shape yet
    _spans: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    _counted: dict[int, np.ndarray] = field(default_factory=dict)  # by storage: a flag a byte
    _tensors: dict[int, Tensor] = field(default_factory=dict)  # by entry
    _alive: list[Tensor] = field(default_factory=list)  # so that no address is used twice

    @classmethod
    def build(cls, copy: nn.Module, original: nn.Module) -> TensorRegistry:
        """Register the tensors of `copy`; those of `original` are known as the same numbers.

        Closures and hooks survive a deep copy with their old references, so a forward pass of
        the copy may read the original's weights.
        """
        registry = cls()
        parameters = original.named_parameters(remove_duplicate=False)
        originals = dict([*parameters, *original.named_buffers(remove_duplicate=False)])
        # trainable first: a frozen view of a trainable weight adds nothing
        named = sorted(
            copy.named_parameters(remove_duplicate=False),
            key=lambda pair: not pair[1].requires_grad,
        )
        for name, parameter in named:
            if isinstance(parameter, UninitializedTensorMixin):
                registry.lazy.append(name)
                continue
            registry.add(
                name, parameter, PARAMETER, originals.get(name), trainable=parameter.requires_grad
            )
        for path, module in copy.named_modules():
            for leaf, buffer in module.named_buffers(recurse=False):
                if isinstance(buffer, UninitializedTensorMixin):
                    continue
                name = f"{path}.{leaf}".lstrip(".")
                running = isinstance(module, _NormBase) and leaf in RUNNING_STATISTICS
                registry.add(name, buffer, BUFFER, originals.get(name), running=running)
        return registry

    def add(
        self,
        name: str,
        tensor: Tensor,
        role: str,
        original: Tensor | None = None,
        *,
        trainable: bool = False,
        running: bool = False,
        literal: bool = False,
    ) -> StoredTensor:
        """Add an entry for `tensor`, also found by the memory of `original`, of which it is a copy.

        Its count is the numbers of the original that no earlier entry holds: copying takes
        parameters apart that were views of one memory.
        """
        if original is None or isinstance(original, UninitializedTensorMixin):
            original = tensor
        index, count = len(self.entries), self._count_new(original)
        is_integer = not (tensor.is_floating_point() or tensor.is_complex())
        entry = StoredTensor(index, name, role, count, trainable, running, literal, is_integer)
        self._tensors[index] = tensor
        self.entries.append(entry)
        for whole in {storage_key(tensor): tensor, storage_key(original): original}.values():
            self._alive.append(whole)
            for key, span in _find_spans(whole):
                self._spans.setdefault(key, []).append((*span, index))
        return entry

    def overlapping(self, tensor: Tensor) -> list[int]:
        """Return the entries that `tensor` shares memory with."""
        return [
            index
            for key, (first, last) in _find_spans(tensor)
            for start, stop, index in self._spans.get(key, ())
            if start < last and first < stop
        ]

    def add_numbers(self, name: str, count: int) -> StoredTensor:
        """Add an entry for `count` stored numbers that are not in a tensor."""
        entry = StoredTensor(len(self.entries), name, CONSTANT, count)
        self.entries.append(entry)
        return entry

    def find_tensor(self, index: int) -> Tensor | None:
        """Return the tensor of an entry; None where the numbers are in no plain tensor."""
        return self._tensors.get(index)

    def _count_new(self, tensor: Tensor) -> int:
        """Mark the numbers of `tensor` as counted; return how many were new."""
        parts = memory_parts(tensor)
        if len(parts) != 1 or parts[0] is not tensor:
            return sum(map(self._count_new, parts)) if parts else tensor.numel()
        tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        if tensor.numel() == 0:
            return 0
        size, offset = tensor.element_size(), tensor.storage_offset()
        flags = self._counted.get(storage_key(tensor))
        if flags is None:
            flags = np.zeros(tensor.untyped_storage().nbytes(), dtype=bool)
            self._counted[storage_key(tensor)] = flags
        first_bytes = np.lib.stride_tricks.as_strided(
            flags[offset * size :], tensor.shape, [stride * size for stride in tensor.stride()]
        )
        before = int(np.count_nonzero(flags))
        first_bytes[...] = True
        return int(np.count_nonzero(flags)) - before
