"""The optimiser of a recipe, and the averaging of weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from whit.recipe import AverageSpec, OptimSpec

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


@dataclass
class Group:
    """Parameters that share a rate and a weight decay; `set_lr` multiplies `peak_lr`."""

    params: list[Tensor]
    weight_decay: float
    peak_lr: float
    lr: float


class Optimizer:
    """SGD or AdamW by torch's own functions, in their fused form: all tensors in one call.

    The classes of `torch.optim` give the same numbers to the bit, but import torch's compiler
    when they are made, which takes as long as an epoch of a small network.
    """

    def __init__(self, groups: list[Group], spec: OptimSpec):
        self.groups = groups
        self.spec = spec
        self.state: dict[Tensor, dict[str, Tensor]] = {p: {} for p in self.parameters()}

    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.groups for parameter in group.params]

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change every parameter that has a gradient."""
        for group in self.groups:
            params = [parameter for parameter in group.params if parameter.grad is not None]
            if params:
                step = self._sgd if self.spec.name == "sgd" else self._adamw
                step(params, [p.grad for p in params if p.grad is not None], group)

    def _sgd(self, params: list[Tensor], grads: list[Tensor], group: Group) -> None:
        states = [self.state[parameter] for parameter in params]
        buffers = [state.get("momentum_buffer") for state in states]
        sgd(
            params,
            grads,
            buffers,
            fused=True,
            weight_decay=group.weight_decay,
            momentum=self.spec.momentum,
            lr=group.lr,
            dampening=0.0,
            nesterov=self.spec.nesterov,
            maximize=False,
        )
        for state, buffer in zip(states, buffers, strict=True):
            if buffer is not None:  # none without momentum
                state["momentum_buffer"] = buffer

    def _adamw(self, params: list[Tensor], grads: list[Tensor], group: Group) -> None:
        states = [self.state[parameter] for parameter in params]
        for parameter, state in zip(params, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        adamw(
            params,
            grads,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=self.spec.betas[0],
            beta2=self.spec.betas[1],
            lr=group.lr,
            weight_decay=group.weight_decay,
            eps=self.spec.eps,
            maximize=False,
        )


def build_optimizer(model: nn.Module, spec: OptimSpec) -> Optimizer:
    """Return SGD or AdamW over the model's trainable parameters, each tensor once.

    Weight decay acts on weights of two or more dimensions outside norms; biases and norms are
    left alone.
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
        Group(parameters, decay, lr, lr)
        for parameters, decay, lr in (
            (decayed, spec.weight_decay, spec.lr),
            (plain, 0.0, spec.lr),
            (norm_biases, 0.0, spec.lr * spec.bias_lr),
        )
        if parameters
    ]
    return Optimizer(groups, spec)


def set_lr(optimizer: Optimizer, multiplier: float) -> None:
    """Set each group's learning rate to its peak times `multiplier`."""
    for group in optimizer.groups:
        group.lr = group.peak_lr * multiplier


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
