"""The optimizer of a recipe, and the exponential moving average of weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whit.recipes.optimizers import UpdateRule
from whit.recipes.recipe_tables import EMASpec, OptimSpec

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


@dataclass
class ParamGroup:
    """Parameters that share a learning rate and a weight decay."""

    params: list[Tensor]
    weight_decay: float
    peak_lr: float
    lr: float


class Optimizer:
    """Groups of parameters, their state, and the rule that updates them."""

    def __init__(self, groups: list[ParamGroup], rule: UpdateRule):
        self.groups = groups
        self.rule = rule
        self.state: dict[Tensor, dict[str, Tensor]] = {p: {} for p in self.parameters()}

    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.groups for parameter in group.params]

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.groups:
            grads = {p: p.grad for p in group.params if p.grad is not None}
            if grads:
                states = [self.state[parameter] for parameter in grads]
                common = {"lr": group.lr, "weight_decay": group.weight_decay}
                common |= {"fused": True, "maximize": False}
                self.rule.step([*grads], [*grads.values()], states, **common)


def build_optimizer(model: nn.Module, spec: OptimSpec) -> Optimizer:
    """Return the optimizer of the model's trainable parameters, each tensor once.

    Weight decay acts on weights of two or more dimensions outside norms, not on biases and norms.
    """
    decayed: list[Tensor] = []
    not_decayed: list[Tensor] = []
    norm_biases: list[Tensor] = []
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if isinstance(module, _NORMS):
                (norm_biases if name == "bias" else not_decayed).append(parameter)
            else:
                (decayed if parameter.ndim >= 2 else not_decayed).append(parameter)
    groups = [
        ParamGroup(parameters, decay, lr, lr)
        for parameters, decay, lr in (
            (decayed, spec.weight_decay, spec.lr),
            (not_decayed, 0.0, spec.lr),
            (norm_biases, 0.0, spec.lr * spec.bn_bias_lr_scale),
        )
        if parameters
    ]
    return Optimizer(groups, spec.update_rule())


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Set each group's learning rate to its peak times `factor`."""
    for group in optimizer.groups:
        group.lr = group.peak_lr * factor


class EMA:
    """Exponential moving average of weights and BatchNorm statistics over steps.

    A step with `decay` d gives d times the mean plus 1 - d times the model. Early steps weigh the
    model more, as in Adam's bias correction, so the initial weights have no influence. A decay of
    0 turns averaging off at no cost.
    """

    def __init__(self, model: nn.Module, spec: EMASpec):
        self.spec = spec
        tensors = [*model.parameters(), *model.buffers()] if spec.decay else []
        self.tensors = [tensor for tensor in tensors if tensor.is_floating_point()]
        self.mean = [tensor.detach().clone() for tensor in self.tensors]
        self.steps = 0

    @torch.no_grad()
    def update(self, progress: float) -> None:
        """Include the model after a step, if training is at `progress` of `start` or later."""
        if not self.tensors or progress < self.spec.start:
            return
        self.steps += 1
        decay = self.spec.decay
        weight = (1 - decay) / (1 - decay**self.steps)
        torch._foreach_lerp_(self.mean, self.tensors, weight)

    @torch.no_grad()
    def apply(self) -> None:
        """Copy the mean into the model."""
        if self.steps:
            torch._foreach_copy_(self.tensors, self.mean)
