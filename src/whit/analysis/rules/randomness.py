"""Random numbers combined with the data: dropout, dropped paths, noise."""

from __future__ import annotations

import torch
from torch import Tensor

from whit.analysis.rules.call import OpCall


def classify_random(
    call: OpCall, masks: list[Tensor], kind: str | None, generates: bool
) -> tuple[str | None, bool]:
    """Return the kind of `call`, which combines data with the random `masks`.

    The second result is true if the pass is inconclusive: the mask happened to be all ones.
    `generates`: the operation itself takes random numbers.
    """
    if call.name == "native_dropout":
        return ("dropout" if call.arg(2) is not False and call.arg(1) > 0 else kind), False
    if call.name in ("rrelu_with_noise", "rrelu_with_noise_functional"):
        return kind, False
    if generates or call.name not in ("mul", "where", "masked_fill"):
        return "noise", False
    for mask in masks:
        distinct = torch.unique(mask.detach().reshape(-1)[:4096])
        if len(distinct) == 1:
            return kind, True
        if len(distinct) > 2 or not bool((distinct == 0).any()):
            return "noise", False
        per_image = any(
            mask.dim() == operand.tensor.dim() and mask.numel() == mask.shape[0]
            for operand in call.operands
            if operand.field
        )
        return ("droppath" if per_image else "dropout"), False
    return kind, False
