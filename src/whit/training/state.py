"""The training state: everything that training changes and a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from whit.data.sampler import ImportanceSampler
from whit.recipes.recipe import Recipe
from whit.system.rng import get_rng_state, seed_all, set_rng_state
from whit.training.optimization.optim import EMA, build_optimizer
from whit.training.optimization.qat import FakeQuantizer

Batches = Iterable[tuple[Tensor, Tensor]]

_POSITION = ("epoch", "batches", "seen", "steps", "seconds")  # attributes, and keys in a checkpoint


@dataclass
class EpochMetrics:
    """Running sums of one epoch, which a progress bar may read."""

    loss: float = 0.0
    correct: int = 0
    total: int = 0
    last_loss: float = 0.0

    def update(self, loss: float, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss, logits (N, K) and labels (N,)."""
        self.last_loss = loss
        self.loss += loss * len(labels)
        self.correct += int((logits.argmax(1) == labels).sum())
        self.total += len(labels)


class TrainingState:
    """A model, its optimizer and averaged weights, the random generators, and the position.

    Between two steps it is consistent: `save` then gives tensors and JSON from which `restore`
    continues to the same bytes, on the same machine with the same threads and versions. Plain
    Python attributes of modules are not part of it.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, seed: int, device: torch.device):
        self.model = model
        self.optimizer = build_optimizer(model, recipe.optim)
        self.ema = EMA(model, recipe.ema)
        self.quantizer = FakeQuantizer(model, recipe.qat)
        self.sampler = ImportanceSampler(recipe.sampling, seed) if recipe.sampling else None
        self.seed = seed
        self.device = device
        self.epoch = 1  # the current one, or about to start
        self.batches = 0  # done in this epoch
        self.seen = 0  # images since the start of the run
        self.steps = 0  # since the start of the run
        self.seconds = 0.0  # of training in this epoch
        self.metrics = EpochMetrics()
        self._dropout_end = recipe.train.dropout_end or 1.0
        self._dropouts = [m for m in model.modules() if isinstance(m, _DropoutNd)]
        self._buffers = list(model.buffers())
        self._snapshot = [buffer.clone() for buffer in self._buffers]

    @property
    def order(self) -> Tensor | None:
        """Indices of the images of this epoch; None: all of them, shuffled by the loader."""
        return self.sampler.order if self.sampler else None

    def begin_epoch(self, num_train: int) -> None:
        """Seed the epoch's random numbers and draw its images, unless it has already started."""
        if not self.batches:
            seed_all(self.seed, "dropout", self.epoch)
        if self.sampler and not (self.batches and self.sampler.fits(num_train)):
            self.sampler.draw(self.epoch, num_train)
        self.model.train()

    def end_epoch(self) -> None:
        self.epoch += 1
        self.batches = 0
        self.seconds = 0.0
        self.metrics = EpochMetrics()

    @torch.no_grad()
    def begin_step(self, progress: float) -> None:
        """Snapshot the buffers, and disable dropout once `progress` in [0, 1] is at its end.

        A forward pass that diverges corrupts BatchNorm's statistics: `restore_buffers` undoes it.
        A model's direct calls of `F.dropout` are not reached.
        """
        if self._buffers:
            torch._foreach_copy_(self._snapshot, self._buffers)
        if progress >= self._dropout_end:
            for layer in self._dropouts:
                layer.eval()

    def end_step(self, logits: Tensor, labels: Tensor) -> None:
        """Count a step that has changed the weights: logits (N, K), labels (N,) of its batch."""
        if self.sampler:
            self.sampler.update(self.metrics.total, logits, labels)
        self.seen += len(labels)
        self.steps += 1
        self.batches += 1

    @torch.no_grad()
    def restore_buffers(self) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._snapshot)

    def gradients_are_finite(self) -> bool:
        """Whether every gradient is finite: NaN and infinity propagate into its maximum norm."""
        gradients = [p.grad for p in self.optimizer.parameters() if p.grad is not None]
        if not gradients:
            return True
        norms = torch.stack(torch._foreach_norm(gradients, float("inf")))
        return bool(norms.isfinite().all())

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Whether every weight and buffer is a finite number."""
        return all(bool(t.isfinite().all()) for t in _named_tensors(self.model).values())

    def save(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state as tensors by name, on the CPU, and JSON."""
        tensors = {f"model.{name}": tensor for name, tensor in _named_tensors(self.model).items()}
        for i, parameter in enumerate(self.optimizer.parameters()):
            entries = sorted(self.optimizer.state[parameter].items())
            tensors |= {f"optimizer.{i}.{key}": tensor for key, tensor in entries}
        tensors |= {f"average.{i}": tensor for i, tensor in enumerate(self.ema.mean)}
        if self.sampler:
            tensors |= {f"sampler.{key}": tensor for key, tensor in self.sampler.save().items()}
        rng_tensors, rng_metadata = get_rng_state(self.device)
        tensors |= {f"rng.{name}": tensor for name, tensor in rng_tensors.items()}
        metadata = {
            **{key: getattr(self, key) for key in _POSITION},
            "lr": [group.lr for group in self.optimizer.groups],
            "metrics": asdict(self.metrics),
            "average_steps": self.ema.steps,
            "rng": rng_metadata,
        }
        copies = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        return copies, metadata

    def optimizer_sha256(self) -> str:
        """Return the SHA-256 of the optimizer's tensors and of the averaged weights."""
        tensors = self.save()[0].items()
        hashed = {n: t for n, t in tensors if not n.startswith(("model.", "rng.", "sampler."))}
        return sha256(safetensors.torch.save(hashed)).hexdigest()

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Restore the state that `save` returned.

        Raises ValueError or KeyError when it is the state of another model or recipe.
        """
        for name, tensor in _named_tensors(self.model).items():
            _copy(tensors[f"model.{name}"], tensor)
        saved = {name: t for name, t in tensors.items() if name.startswith("optimizer.")}
        for name, tensor in saved.items():
            _, index, key = name.split(".", 2)
            parameter = self.optimizer.parameters()[int(index)]
            target = torch.empty_like(parameter if tensor.shape == parameter.shape else tensor)
            target = target.to(tensor.dtype)  # the parameter's layout, as fused kernels want it
            _copy(tensor, target)
            self.optimizer.state[parameter][key] = target
        for i, mean in enumerate(self.ema.mean):
            _copy(tensors[f"average.{i}"], mean)
        if self.sampler:
            self.sampler.restore(_with_prefix("sampler.", tensors))
        set_rng_state(_with_prefix("rng.", tensors), metadata["rng"], self.device)
        self.ema.steps = metadata["average_steps"]
        for key in _POSITION:
            setattr(self, key, metadata[key])
        for group, lr in zip(self.optimizer.groups, metadata["lr"], strict=True):
            group.lr = lr
        self.metrics = EpochMetrics(**metadata["metrics"])

    def num_bytes(self, num_train: int) -> int:
        """Return an upper bound of the size of `save`, before the first step and after it."""
        model = sum(t.numel() * t.element_size() for t in _named_tensors(self.model).values())
        optimizer = sum(2 * p.numel() * p.element_size() + 64 for p in self.optimizer.parameters())
        ema = sum(t.numel() * t.element_size() for t in self.ema.mean)
        sampler = 16 * num_train if self.sampler else 0  # losses and order
        return model + optimizer + ema + sampler + 100_000  # the generators


def _named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each tensor once; non-persistent ones included."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, under the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _copy(saved: Tensor, target: Tensor) -> None:
    if saved.shape != target.shape or saved.dtype != target.dtype:
        raise ValueError(
            f"a saved tensor is {saved.dtype} {tuple(saved.shape)}, "
            f"expected {target.dtype} {tuple(target.shape)}"
        )
    target.copy_(saved)
