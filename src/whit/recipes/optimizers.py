"""Update rules of optimizers; each is one entry of OPTIMIZERS, under its name in `[optim]`.

The recipe's schema iterates over the entries. Each calls torch's function in its fused form,
all tensors at once: the classes of `torch.optim` give bit-identical numbers, but import torch's
compiler when they are built, which takes as long as an epoch of a small network. torch is
imported at the first use, so a recipe is read without it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from whit.recipes.field_types import Flag, Real, key_field

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = list[Tensor]
    States = list[dict[str, Tensor]]

Beta = Annotated[Real, Field(ge=0, lt=1)]


class UpdateRule(BaseModel):
    """An optimizer's update; its fields are the keys of `[optim]` that it reads.

    Rules that share a key share its range and default: those of the first entry.
    """

    model_config = ConfigDict(frozen=True)

    def check(self) -> None:
        """Raise ValueError if the hyperparameters contradict each other."""

    @abstractmethod
    def step(self, params: Tensors, grads: Tensors, states: States, **common: Any) -> None:
        """Update `params` in place.

        states: of each parameter, preserved between steps, empty before the first
        common: lr, weight_decay, fused and maximize, which all of torch's functions take
        """


class SGD(UpdateRule):
    momentum: Annotated[Real, Field(ge=0, lt=1)] = key_field(0.9, "momentum of SGD")
    nesterov: Flag = key_field(False, "Nesterov momentum in SGD")

    def check(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")

    def step(self, params: Tensors, grads: Tensors, states: States, **common: Any) -> None:
        from torch.optim.sgd import sgd

        common |= {"momentum": self.momentum, "nesterov": self.nesterov, "dampening": 0.0}
        # a parameter may get its first gradient later than others, as of an expert that no image of
        # the first batches meets: torch takes either all without a buffer or none
        first: list[Any] = []
        later: list[Any] = []
        for step in zip(params, grads, states, strict=True):
            (later if "momentum_buffer" in step[2] else first).append(step)
        for steps in filter(None, (first, later)):
            buffers = [state.get("momentum_buffer") for *_, state in steps]
            sgd([p for p, *_ in steps], [grad for _, grad, _ in steps], buffers, **common)
            for (*_, state), buffer in zip(steps, buffers, strict=True):
                if buffer is not None:  # None without momentum
                    state["momentum_buffer"] = buffer


class AdamW(UpdateRule):
    betas: tuple[Beta, Beta] = key_field(
        (0.9, 0.99), "decay rates of both moment estimates of AdamW"
    )
    eps: Annotated[Real, Field(gt=0, le=1)] = key_field(1e-8, "added to the denominator in AdamW")

    def step(self, params: Tensors, grads: Tensors, states: States, **common: Any) -> None:
        import torch
        from torch.optim.adamw import adamw

        for p, state in zip(params, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=p.device)
                state |= {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq")}
        keys = "exp_avg", "exp_avg_sq", "step"
        means, squares, steps = ([state[key] for state in states] for key in keys)
        common |= {"beta1": self.betas[0], "beta2": self.betas[1], "eps": self.eps}
        adamw(params, grads, means, squares, [], steps, amsgrad=False, **common)


OPTIMIZERS: dict[str, type[UpdateRule]] = {"sgd": SGD, "adamw": AdamW}
