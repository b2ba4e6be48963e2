"""The numbers a model keeps: registered parameters and buffers, and constants found on the way.

A number is a place in memory, so tied weights and overlapping views are counted once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

PARAMETER, BUFFER, CONSTANT = "parameter", "buffer", "constant"
RUNNING = ("running_mean", "running_var", "num_batches_tracked")


@dataclass
class Stored:
    """One registered parameter or buffer, or one constant that inference reads."""

    index: int
    name: str
    role: str  # PARAMETER, BUFFER or CONSTANT
    trainable: bool
    numbers: int  # places in memory that no earlier entry holds
    running: bool  # a running statistic registered by a BatchNorm or InstanceNorm
    literal: bool = False  # written inside forward, as `torch.tensor([...])` is

    @property
    def scalar_literal(self) -> bool:
        """One number written in the code of forward is code, as `x * 0.5` is."""
        return self.literal and self.numbers <= 1


def storage_key(tensor: Tensor) -> int:
    """Return the address of the memory under `tensor`; views of one storage share it."""
    storage = tensor.untyped_storage()
    return storage.data_ptr() or -int(storage._cdata)


def byte_span(tensor: Tensor) -> tuple[int, int]:
    """Return the first byte of `tensor` in its storage and one past the last."""
    if tensor.numel() == 0:
        return 0, 0
    first = int(tensor.storage_offset())
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    last = first + sum((size - 1) * int(stride) for size, stride in strides)
    return first * tensor.element_size(), (last + 1) * tensor.element_size()


@dataclass
class Registry:
    """Every stored number of one model, found by where it lies in memory."""

    entries: list[Stored] = field(default_factory=list)
    lazy: list[str] = field(default_factory=list)  # parameters that have no shape yet
    _spans: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    _marks: dict[int, np.ndarray] = field(default_factory=dict)
    _alive: list[Tensor] = field(default_factory=list)  # so that no address is used twice

    @classmethod
    def of(cls, model: nn.Module, original: nn.Module) -> Registry:
        """Register `model`, a copy; the tensors of `original` are known as the same numbers.

        Closures and hooks survive a deep copy with their old references, so a forward pass of
        the copy may read the original's weights.
        """
        registry = cls()
        twins: dict[str, Tensor] = dict(original.named_parameters(remove_duplicate=False))
        twins |= dict(original.named_buffers(remove_duplicate=False))
        # trainable first: a frozen view of a trainable weight adds nothing
        named = sorted(model.named_parameters(remove_duplicate=False), key=_frozen)
        for name, parameter in named:
            if isinstance(parameter, UninitializedTensorMixin):
                registry.lazy.append(name)
                continue
            registry._add_twin(
                name, parameter, twins.get(name), PARAMETER, trainable=parameter.requires_grad
            )
        for path, module in model.named_modules():
            for leaf, buffer in module.named_buffers(recurse=False):
                if isinstance(buffer, UninitializedTensorMixin):
                    continue
                name = f"{path}.{leaf}".lstrip(".")
                running = isinstance(module, _NormBase) and leaf in RUNNING
                registry._add_twin(name, buffer, twins.get(name), BUFFER, running=running)
        return registry

    def add(
        self,
        name: str,
        tensor: Tensor,
        role: str,
        literal: bool = False,
    ) -> Stored:
        """Add an entry for `tensor`; its count is the numbers that no earlier entry holds."""
        entry = Stored(len(self.entries), name, role, False, self._mark(tensor), False, literal)
        self.entries.append(entry)
        self._place(entry.index, tensor)
        return entry

    def overlapping(self, tensor: Tensor) -> list[int]:
        """Return the entries that `tensor` shares memory with."""
        first, last = byte_span(tensor)
        spans = self._spans.get(storage_key(tensor), ())
        return [index for start, stop, index in spans if start < last and first < stop]

    def _place(self, index: int, tensor: Tensor) -> None:
        self._spans.setdefault(storage_key(tensor), []).append((*byte_span(tensor), index))
        self._alive.append(tensor)

    def _add_twin(
        self,
        name: str,
        tensor: Tensor,
        twin: Tensor | None,
        role: str,
        trainable: bool = False,
        running: bool = False,
    ) -> None:
        """Add `tensor` of the copy, counted and also found by its twin in the original.

        The original is counted: copying takes parameters apart that were views of one memory.
        """
        if twin is None or isinstance(twin, UninitializedTensorMixin):
            twin = tensor
        numbers, index = self._mark(twin), len(self.entries)
        self.entries.append(Stored(index, name, role, trainable, numbers, running))
        for place in {storage_key(tensor): tensor, storage_key(twin): twin}.values():
            if not place.is_meta:
                self._place(index, place)

    def _mark(self, tensor: Tensor) -> int:
        """Mark the places of `tensor` as counted; return how many were new."""
        tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        if tensor.numel() == 0:
            return 0
        if tensor.layout != torch.strided:
            return int(tensor.values().numel()) if tensor.layout == torch.sparse_coo else 0
        size, offset = tensor.element_size(), tensor.storage_offset()
        marks = self._marks.get(storage_key(tensor))
        if marks is None:
            marks = np.zeros(tensor.untyped_storage().nbytes(), dtype=bool)
            self._marks[storage_key(tensor)] = marks
        places = np.lib.stride_tricks.as_strided(  # the first byte of every number
            marks[offset * size :], tensor.shape, [stride * size for stride in tensor.stride()]
        )
        before = int(np.count_nonzero(marks))
        places[...] = True
        return int(np.count_nonzero(marks)) - before


def _frozen(named: tuple[str, nn.Parameter]) -> bool:
    return not named[1].requires_grad
