"""Everything that training changes: what a checkpoint holds, and what an epoch begins with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from whit.chance import chance_state, restore_chance, set_chance
from whit.optim import EMA, build_optimizer
from whit.recipe import Recipe
from whit.rounding import Rounding

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass
class Tally:
    """Running sums of one epoch, which a progress bar may read."""

    loss: float = 0.0
    correct: int = 0
    total: int = 0
    last_loss: float = 0.0

    def add(self, loss: float, logits: Tensor, labels: Tensor) -> None:
        self.last_loss = loss
        self.loss += loss * len(labels)
        self.correct += int((logits.argmax(1) == labels).sum())
        self.total += len(labels)


class TrainingState:
    """A model, its optimiser and average, the random generators, and how far training is.

    Between two steps it is whole: `save` then gives tensors and JSON from which `restore`
    continues to the same bytes, on the same machine with the same threads and versions. What a
    module keeps in plain Python attributes is not in it.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, seed: int, device: torch.device):
        self.model = model
        self.optimizer = build_optimizer(model, recipe.optim)
        self.average = EMA(model, recipe.average)
        self.rounding = Rounding(model, recipe.quantise)
        self.seed = seed
        self.device = device
        self.epoch = 1  # the one under way, or about to begin
        self.batches = 0  # done of it
        self.seen = 0  # images since the run began
        self.steps = 0  # since the run began
        self.seconds = 0.0  # of training in this epoch
        self.tally = Tally()
        self._dropouts = [m for m in model.modules() if isinstance(m, _DropoutNd)]
        self._buffers = list(model.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]

    def begin_epoch(self) -> None:
        """Start the epoch's random numbers, unless the epoch is already under way."""
        if not self.batches:
            set_chance(self.seed, "dropout", self.epoch)
        self.model.train()

    def end_dropout(self) -> None:
        """Drop nothing more in this epoch. A model's own calls of `F.dropout` are not reached."""
        for layer in self._dropouts:
            layer.eval()

    def end_epoch(self) -> None:
        self.epoch += 1
        self.batches = 0
        self.seconds = 0.0
        self.tally = Tally()

    @torch.no_grad()
    def keep_buffers(self) -> None:
        """Remember the buffers: a forward pass that diverges spoils BatchNorm's statistics."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)

    @torch.no_grad()
    def put_buffers_back(self) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)

    def gradients_are_finite(self) -> bool:
        """Whether every gradient is: the largest of all, which no NaN and no infinity hides in."""
        gradients = [p.grad for p in self.optimizer.parameters() if p.grad is not None]
        if not gradients:
            return True
        largest = torch.stack(torch._foreach_norm(gradients, float("inf")))
        return bool(largest.isfinite().all())

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Whether every weight and buffer is a finite number."""
        return all(bool(t.isfinite().all()) for t in _stored(self.model).values())

    def save(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state as tensors by name, on the processor, and JSON."""
        tensors = {f"model.{name}": tensor for name, tensor in _stored(self.model).items()}
        tensors |= {f"optimizer.{name}": t for name, t in self._optimizer_tensors()}
        tensors |= {f"average.{i}": tensor for i, tensor in enumerate(self.average.mean)}
        chance, chance_facts = chance_state(self.device)
        tensors |= {f"chance.{name}": tensor for name, tensor in chance.items()}
        facts = {
            "epoch": self.epoch,
            "batches": self.batches,
            "seen": self.seen,
            "steps": self.steps,
            "seconds": self.seconds,
            "lr": [group.lr for group in self.optimizer.groups],
            "tally": asdict(self.tally),
            "average_steps": self.average.steps,
            "chance": chance_facts,
        }
        plain = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        return plain, facts

    def optimizer_sha256(self) -> str:
        """Return the SHA-256 of the optimiser's tensors and of the mean weights."""
        tensors = [(name, t) for name, t in self.save()[0].items() if not name.startswith("model.")]
        kept = {name: t for name, t in tensors if not name.startswith("chance.")}
        return sha256(safetensors.torch.save(kept)).hexdigest()

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Put everything where `save` found it.

        Raises ValueError or KeyError when it is the state of another model or recipe.
        """
        for name, tensor in _stored(self.model).items():
            _copy(tensors[f"model.{name}"], tensor)
        saved = {name: t for name, t in tensors.items() if name.startswith("optimizer.")}
        for name, tensor in saved.items():
            _, index, key = name.split(".", 2)
            parameter = self.optimizer.parameters()[int(index)]
            own = torch.empty_like(parameter if tensor.shape == parameter.shape else tensor)
            own = own.to(tensor.dtype)  # laid out like the parameter, as fused kernels want it
            _copy(tensor, own)
            self.optimizer.state[parameter][key] = own
        for i, mean in enumerate(self.average.mean):
            _copy(tensors[f"average.{i}"], mean)
        chance = {n.partition(".")[2]: t for n, t in tensors.items() if n.startswith("chance.")}
        restore_chance(chance, facts["chance"], self.device)
        self.average.steps = facts["average_steps"]
        self.epoch, self.batches = facts["epoch"], facts["batches"]
        self.seen, self.steps = facts["seen"], facts["steps"]
        for group, lr in zip(self.optimizer.groups, facts["lr"], strict=True):
            group.lr = lr
        self.seconds = facts["seconds"]
        self.tally = Tally(**facts["tally"])

    def _optimizer_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for index, parameter in enumerate(self.optimizer.parameters()):
            for key, value in sorted(self.optimizer.state[parameter].items()):
                yield f"{index}.{key}", value

    def num_bytes(self) -> int:
        """An upper bound of what `save` gives, before the first step and after it."""
        model = sum(t.numel() * t.element_size() for t in _stored(self.model).values())
        optimizer = sum(2 * p.numel() * p.element_size() + 64 for p in self.optimizer.parameters())
        average = sum(t.numel() * t.element_size() for t in self.average.mean)
        return model + optimizer + average + 100_000  # the generators


def _stored(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each tensor once; those left out of state_dict as well."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _copy(saved: Tensor, own: Tensor) -> None:
    if saved.shape != own.shape or saved.dtype != own.dtype:
        raise ValueError(
            f"a saved tensor is {saved.dtype} {tuple(saved.shape)}, "
            f"wanted is {own.dtype} {tuple(own.shape)}"
        )
    own.copy_(saved)
