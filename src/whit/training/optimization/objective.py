"""The training objective: the loss of a batch, with several columns and with a teacher."""

# N images, C channels, H W pixels, K classes, M columns

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.recipes.recipe import Recipe
from whit.training.optimization.distillation import Distillation


class Objective:
    """The recipe's loss of `model`: cross-entropy with label smoothing, blended with distillation.

    The forward pass has the recipe's precision, the loss is computed in float32.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, distillation: Distillation | None = None):
        self.model = model
        self.label_smoothing = recipe.train.label_smoothing
        self.distillation = distillation
        self.precision = autocast(recipe.train.precision, next(model.parameters()).device.type)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss (), and logits (N, K), of images (N, C, H, W) and labels (N,)."""
        with self.precision:
            logits = self.model(images)  # (N, K), or (N, K, M) of a multi-column network
        targets, per_column = labels, logits
        if logits.ndim == 3:  # each column has its own loss; they are evaluated together
            targets, logits = labels[:, None].expand(-1, logits.shape[2]), logits.mean(2)
        loss = F.cross_entropy(per_column.float(), targets, label_smoothing=self.label_smoothing)
        if self.distillation:
            loss = self.distillation.loss(loss, logits.float(), images)
        return loss, logits


def has_bf16(device: str = "cpu") -> bool:
    """Whether the device multiplies bf16 in hardware; emulated, it is slower than fp32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def resolve_precision(precision: str, device: str) -> str:
    """Return `fp32` or `bf16`: `auto` is bf16 where the device has it in hardware."""
    if precision == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    return precision


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """Return the context of a forward pass in `fp32`, `bf16` or `auto`."""
    if resolve_precision(precision, device) == "fp32":
        return nullcontext()
    return torch.autocast(device, torch.bfloat16)
