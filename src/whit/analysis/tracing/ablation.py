"""Whether the output depends on given operations: they get noise, and it must change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from whit.analysis.rules.call import is_numbered
from whit.analysis.tracing.dataflow import tensor_leaves

NOISE_SCALES = (1.0, 100.0)  # the second gets past a saturated activation


class NoiseInjector(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds noise to the results of the operations with given numbers in the order of execution."""

    def __init__(self, numbers: frozenset[int], scale: float):
        super().__init__()  # type: ignore[no-untyped-call]
        self._numbers = numbers
        self._scale = scale
        self._generator = torch.Generator().manual_seed(1)
        self._thread = threading.get_ident()
        self._count = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if threading.get_ident() == self._thread and is_numbered(func):
            self._count += 1
            if self._count in self._numbers:
                for leaf in tensor_leaves(result):
                    if leaf.is_floating_point():
                        noise = torch.randn(leaf.shape, generator=self._generator)
                        leaf += noise.to(leaf) * self._scale
        return result


def perturb_zero_weights(model: nn.Module) -> None:
    """Give weights that start at zero another value: a gate that training opens has an effect."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and not parameter.any():
                parameter.uniform_(0.5, 1.0)


def is_output_invariant(
    model: nn.Module, make_images: Callable[[], Tensor], numbers: frozenset[int]
) -> bool:
    """Return whether the output of `model` stays the same when operations `numbers` get noise.

    `make_images` sets mode and random state, and returns the images, the same way each time.
    """

    def run(noisy: frozenset[int], scale: float) -> list[Tensor]:
        images = make_images()
        with torch.no_grad(), NoiseInjector(noisy, scale):
            output = model(images)
        return tensor_leaves(output)

    expected = run(frozenset(), 0.0)
    for scale in NOISE_SCALES:
        for one, other in zip(expected, run(numbers, scale), strict=False):
            if one.shape != other.shape or not torch.allclose(
                one.double(), other.double(), rtol=1e-5, atol=1e-5
            ):
                return False
    return True
