"""The optimiser of a recipe, and the averaging of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from whit.recipe import AverageSpec, OptimSpec

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def build_optimizer(model: nn.Module, spec: OptimSpec) -> torch.optim.Optimizer:
    """Return SGD or AdamW over the model's trainable parameters, each tensor once.

    Weight decay acts on weights of two or more dimensions outside norms; biases and norms are
    left alone. Each group holds its `peak_lr`, which `set_lr` multiplies.
    """
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    norm_biases: list[Tensor] = []
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if isinstance(module, _NORMS):
                (norm_biases if name == "bias" else plain).append(parameter)
            else:
                (decayed if parameter.ndim >= 2 else plain).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay, "lr": lr, "peak_lr": lr}
        for parameters, decay, lr in (
            (decayed, spec.weight_decay, spec.lr),
            (plain, 0.0, spec.lr),
            (norm_biases, 0.0, spec.lr * spec.bias_lr),
        )
        if parameters
    ]
    # The fused kernels update all tensors in one call, on the processor too.
    if spec.name == "sgd":
        return torch.optim.SGD(
            groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, fused=True
        )
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, eps=spec.eps, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, multiplier: float) -> None:
    """Set each group's learning rate to its peak times `multiplier`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * multiplier


class WeightAverage:
    """An exponential mean of weights and BatchNorm statistics over steps.

    With `decay` d a step keeps d of the mean and takes 1 - d of the model; early steps take
    more, as in Adam's bias correction, so the mean never remembers the initial weights.
    decay 0 does nothing and costs nothing.
    """

    def __init__(self, model: nn.Module, spec: AverageSpec):
        self.spec = spec
        self.live = [t for t in _state(model) if t.is_floating_point()] if spec.decay else []
        self.mean = [tensor.detach().clone() for tensor in self.live]
        self.steps = 0

    @torch.no_grad()
    def update(self, progress: float) -> None:
        """Take in the model after a step; `progress` in [0, 1] says when averaging starts."""
        if not self.live or progress < self.spec.start:
            return
        self.steps += 1
        decay = self.spec.decay
        share = (1 - decay) / (1 - decay**self.steps)
        torch._foreach_lerp_(self.mean, self.live, share)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the mean in the model's place."""
        if self.steps:
            torch._foreach_copy_(self.live, self.mean)


def _state(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
