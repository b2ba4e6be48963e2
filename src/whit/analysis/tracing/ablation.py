"""Whether the output takes any notice of given operations: they get noise, and it must change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from whit.analysis.rules.call import is_counted

STRENGTHS = (1.0, 100.0)  # of the noise; the second gets past a saturated activation


class Disturber(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds noise to the results of the operations at given places in the order of execution."""

    def __init__(self, numbers: frozenset[int], strength: float):
        super().__init__()  # type: ignore[no-untyped-call]
        self._numbers = numbers
        self._strength = strength
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
        if threading.get_ident() == self._thread:
            counted = is_counted(func)
            self._count += counted
            if counted and self._count in self._numbers:
                for leaf in tree_leaves(result):
                    if isinstance(leaf, Tensor) and leaf.is_floating_point():
                        noise = torch.randn(leaf.shape, generator=self._generator)
                        leaf += noise.to(leaf) * self._strength
        return result


def wake_zeros(model: nn.Module) -> None:
    """Give weights that start at zero another value: a gate that training opens is no cheat."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and not parameter.any():
                parameter.uniform_(0.5, 1.0)


def ignored(model: nn.Module, prepare: Callable[[], Tensor], numbers: frozenset[int]) -> bool:
    """Tell whether the output of `model` stays the same when operations `numbers` get noise.

    `prepare` returns the images, and sets mode and random state the same way each time.
    """

    def disturbed(chosen: frozenset[int], strength: float) -> list[Tensor]:
        images = prepare()
        with torch.no_grad(), Disturber(chosen, strength):
            output = model(images)
        return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]

    plain = disturbed(frozenset(), 0.0)
    for strength in STRENGTHS:
        for one, other in zip(plain, disturbed(numbers, strength), strict=False):
            if one.shape != other.shape or not torch.allclose(
                one.double(), other.double(), rtol=1e-5, atol=1e-5
            ):
                return False
    return True
