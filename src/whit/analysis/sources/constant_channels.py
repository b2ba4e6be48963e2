"""Channels of a batch normalization that no image changes: their statistics are storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from whit.analysis.rules.call import OperationMode, get_aten_name
from whit.analysis.rules.registry import is_batch_norm
from whit.analysis.tracing.stored_tensors import storage_key

Test = Callable[[Tensor], Tensor]  # (C, numbers) to a flag for each channel


class ChannelTester(OperationMode):
    """Tests the channels that enter each batch normalization with given statistics."""

    def __init__(self, test: Test):
        super().__init__()  # type: ignore[no-untyped-call]
        self.flags: dict[int, Tensor] = {}  # by storage of the statistics
        self._test = test

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if is_batch_norm(get_aten_name(func)):
            with torch._C.DisableTorchFunction():
                channels = args[0].transpose(0, 1).flatten(1)
                for statistics in args[3:5]:
                    if isinstance(statistics, Tensor):
                        key, flags = storage_key(statistics), self._test(channels)
                        self.flags[key] = self.flags.get(key, torch.tensor(True)) & flags
        return func(*args, **(kwargs or {}))


def count_constant_channels(model: nn.Module, images: Tensor) -> dict[int, int]:
    """Return by storage of running statistics how many channels no image changes.

    A channel counts if it has one value over several images, and images of NaN leave it finite:
    the second tells a channel without an image from one that a ReLU happens to keep at zero.
    """
    constant = _test_channels(model, images, lambda values: values.amax(1) == values.amin(1))
    if not any(flags.any() for flags in constant.values()):
        return {}
    poisoned = torch.full_like(images, torch.nan)
    finite = _test_channels(model, poisoned, lambda values: ~values.isnan().any(1))
    return {
        key: int((flags & finite[key]).sum())
        for key, flags in constant.items()
        if key in finite and finite[key].shape == flags.shape
    }


def _test_channels(model: nn.Module, images: Tensor, test: Test) -> dict[int, Tensor]:
    tester = ChannelTester(test)
    try:
        with torch.no_grad(), tester:
            model(images)
    except Exception:
        return {}
    return tester.flags
