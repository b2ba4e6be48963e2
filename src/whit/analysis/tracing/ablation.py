"""Whether the output depends on given operations: they get noise, and it must change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from whit.analysis.rules.call import OperationMode, is_numbered
from whit.analysis.tracing.dataflow import sign_operation, tensor_leaves
from whit.analysis.tracing.stored_tensors import memory_parts
from whit.analysis.tracing.trace import Signature, Trace

NOISE_SCALES = (1.0, 100.0)  # the second gets past a saturated activation


class DifferentPass(Exception):
    """A pass executed other operations than the one whose numbers are used, or took no noise."""


class NoiseInjector(OperationMode):
    """Adds noise to the results of the operations with given numbers in the order of execution.

    `expected` is the signature of the pass that these numbers are from. The operations before
    the last of them must be the same here; `matches` tells.
    """

    def __init__(self, numbers: frozenset[int], scale: float, expected: list[Signature]):
        super().__init__()  # type: ignore[no-untyped-call]
        self._numbers = numbers
        self._last = max(numbers, default=len(expected))
        self._scale = scale
        self._expected = expected
        self._generator = torch.Generator().manual_seed(1)
        self._thread = threading.get_ident()
        self._count = 0
        self._differs = False
        self.injected = False  # whether any result could take noise: integers cannot

    @property
    def matches(self) -> bool:
        """Whether the pass executed the expected operations, as far as they are used."""
        complete = self._count >= self._last if self._numbers else self._count == self._last
        return complete and not self._differs

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if threading.get_ident() == self._thread and is_numbered(func):
            self._count += 1
            if self._count <= self._last:
                with torch._C.DisableTorchFunction():
                    signature = sign_operation(func, result)
                self._differs |= (
                    self._count > len(self._expected)
                    or signature != self._expected[self._count - 1]
                )
            if self._count in self._numbers and not self._differs:
                for leaf in tensor_leaves(result):
                    if leaf.is_floating_point() or leaf.is_complex():
                        noise = torch.randn(leaf.shape, generator=self._generator)
                        leaf += noise.to(leaf) * self._scale
                        self.injected = True
        return result


def perturb_zero_weights(model: nn.Module) -> None:
    """Give weights that start at zero another value: a gate that training opens has an effect."""
    with torch.no_grad():
        for parameter in model.parameters():
            for part in memory_parts(parameter):
                if part.is_floating_point() and not part.any():
                    part.uniform_(0.5, 1.0)


def _to_real(tensor: Tensor) -> Tensor:
    """Return the numbers of an output in double precision."""
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).double()


class Ablation:
    """Passes of one mode with noise, compared with the pass without.

    `make_images` sets mode and random state, and returns the images, the same way each time.
    Numbers of operations are those of `trace`. Raises DifferentPass if a pass in the same mode
    executes other operations.
    """

    def __init__(self, model: nn.Module, make_images: Callable[[], Tensor], trace: Trace):
        self._model, self._make_images, self._trace = model, make_images, trace
        self._expected = self._run(frozenset(), 0.0)

    def _run(self, numbers: frozenset[int], scale: float) -> list[Tensor]:
        images = self._make_images()
        injector = NoiseInjector(numbers, scale, self._trace.signature)
        with torch.no_grad(), injector:
            output = self._model(images)
        if not injector.matches or (numbers and not injector.injected):
            raise DifferentPass
        return tensor_leaves(output)

    def is_output_invariant(self, numbers: frozenset[int]) -> bool:
        """Return whether the output stays the same when operations `numbers` get noise."""
        for scale in NOISE_SCALES:
            for one, other in zip(self._expected, self._run(numbers, scale), strict=False):
                if one.shape != other.shape or not torch.allclose(
                    _to_real(one), _to_real(other), rtol=1e-5, atol=1e-5
                ):
                    return False
        return True
