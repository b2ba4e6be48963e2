"""Update rules of optimizers; each is one entry of OPTIMIZERS, under its name in `[optim]`.

The recipe's schema iterates over the entries. Each calls torch's own function in its fused form,
all tensors at once: the classes of `torch.optim` give bit-identical numbers, but import torch's
compiler when they are built, which takes as long as an epoch of a small network. torch is
imported at the first use, so a recipe is read without it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from whit.field_types import Flag, Real

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = list[Tensor]
    States = list[dict[str, Tensor]]

Beta = Annotated[Real, Field(ge=0, lt=1)]


@dataclass
class ParamGroup:
    """Parameters that share a learning rate and a weight decay."""

    params: list[Tensor]
    weight_decay: float
    peak_lr: float
    lr: float


class UpdateRule(BaseModel):
    """An optimizer's update; its fields are the keys of `[optim]` that it reads.

    Rules that share a key share its range and default: those of the first entry.
    """

    model_config = ConfigDict(frozen=True)

    def check(self) -> None:
        """Raise ValueError if the hyperparameters contradict each other."""

    @abstractmethod
    def step(self, params: Tensors, grads: Tensors, states: States, group: ParamGroup) -> None:
        """Update the `params` of `group` that have gradients, in place.

        states: kept between steps for each parameter, empty before the first
        """


class SGD(UpdateRule):
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    nesterov: Flag = False

    def check(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")

    def step(self, params: Tensors, grads: Tensors, states: States, group: ParamGroup) -> None:
        from torch.optim.sgd import sgd

        buffers = [state.get("momentum_buffer") for state in states]
        sgd(
            params,
            grads,
            buffers,
            fused=True,
            weight_decay=group.weight_decay,
            momentum=self.momentum,
            lr=group.lr,
            dampening=0.0,
            nesterov=self.nesterov,
            maximize=False,
        )
        for state, buffer in zip(states, buffers, strict=True):
            if buffer is not None:  # None without momentum
                state["momentum_buffer"] = buffer


class AdamW(UpdateRule):
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    eps: Annotated[Real, Field(gt=0, le=1)] = 1e-8

    def step(self, params: Tensors, grads: Tensors, states: States, group: ParamGroup) -> None:
        import torch
        from torch.optim.adamw import adamw

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
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=group.lr,
            weight_decay=group.weight_decay,
            eps=self.eps,
            maximize=False,
        )


OPTIMIZERS: dict[str, type[UpdateRule]] = {"sgd": SGD, "adamw": AdamW}
