"""Running an unknown model without side effects on it: copy, modes, random numbers."""

from __future__ import annotations

import copy
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from whit.analysis.tracing.stored_tensors import memory_parts

BATCH = 2  # images of a pass: more than one, so that a stray squeeze() shows
SEED = 20_000  # any fixed number: an audit of one model is always the same


def initialized_tensors(model: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers of `model` that have a shape."""
    tensors = [*model.parameters(), *model.buffers()]
    return [tensor for tensor in tensors if not isinstance(tensor, UninitializedTensorMixin)]


def safe_copy(model: nn.Module) -> tuple[nn.Module, str | None]:
    """Return a copy of `model` on the CPU, or the model itself and a note saying why."""
    try:
        clones = {  # torch can clone these, and not copy them deeply
            id(tensor): _clone_like(tensor)
            for tensor in initialized_tensors(model)
            if tensor.layout != torch.strided or tensor.is_nested
        }
        copied = copy.deepcopy(model, clones)
    except Exception as error:
        return model, f"the model cannot be copied ({type(error).__name__}); it was run itself"
    if any(tensor.is_meta for tensor in initialized_tensors(copied)):
        copied.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in (*copied.parameters(), *copied.buffers()):
                tensor.fill_(0.5)
    return copied.cpu(), None


@contextmanager
def preserve_model(model: nn.Module) -> Iterator[None]:
    """Restore modes, parameters and buffers of `model`, and every global random state."""
    # a frozen script module has no mode
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    saved = [
        (part, part._version, copied)
        for tensor in initialized_tensors(model)
        if not tensor.is_meta
        for part in memory_parts(tensor.detach())
        if (copied := _copy_values(part)) is not None
    ]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    grad_enabled, fastpath = torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()
    try:
        with warnings.catch_warnings(), ExitStack() as stack:
            warnings.simplefilter("ignore")
            torch.backends.mha.set_fastpath_enabled(False)  # one fused operation shows no layers
            # compiled modules run as plain Python; without dynamo, slow to import, there are none
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        torch.set_grad_enabled(grad_enabled)
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for tensor, version, value in saved:
                # batch_norm moves its running statistics without raising their version
                if tensor._version != version or not torch.equal(tensor, value):
                    tensor.copy_(value)


def _clone_like(tensor: Tensor) -> Tensor:
    """Return a copy of a parameter or buffer that is one too."""
    copied = tensor.detach().clone()
    return (
        nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied
    )


def _copy_values(tensor: Tensor) -> Tensor | None:
    """Return a copy of a dense tensor; None for the rare data type that torch cannot copy."""
    try:
        return tensor.clone()
    except RuntimeError:
        return None


def set_mode(models: tuple[nn.Module, nn.Module], training: bool) -> None:
    """Set the mode of the copy and of the original, which closures of the copy may call."""
    torch.manual_seed(SEED)
    random.seed(SEED)
    np.random.seed(SEED)
    for model in dict.fromkeys(models):
        model.train(training)


def probe_batch(
    model: nn.Module, image_shape: tuple[int, int, int], batch: int, draw: int
) -> Tensor:
    """Return `batch` random images in the model's floating type, (N, C, H, W)."""
    floating = (
        parameter.dtype
        for parameter in model.parameters()
        if not isinstance(parameter, UninitializedTensorMixin) and parameter.is_floating_point()
    )
    generator = torch.Generator().manual_seed(SEED + draw)
    images = torch.randn(batch, *image_shape, generator=generator, device="cpu")
    return images.to(next(floating, torch.float32))
