"""Random numbers that meet the data: dropout, dropped paths, noise."""

from __future__ import annotations

import torch
from torch import Tensor

from whit.analysis.rules.call import Call


def met_random(
    call: Call, masks: list[Tensor], kind: str | None, drawing: bool
) -> tuple[str | None, bool]:
    """Return the kind of `call`, in which data meets the random `masks`.

    The second result is true if this draw cannot tell, because the mask happened to be all ones.
    `drawing`: the operation itself draws.
    """
    if call.name == "native_dropout":
        return ("dropout" if call.at(2) is not False and call.at(1) > 0 else kind), False
    if call.name in ("rrelu_with_noise", "rrelu_with_noise_functional"):
        return kind, False
    if drawing or call.name not in ("mul", "where", "masked_fill"):
        return "noise", False
    for mask in masks:
        distinct = torch.unique(mask.detach().reshape(-1)[:4096])
        if len(distinct) == 1:
            return kind, True
        if len(distinct) > 2 or not bool((distinct == 0).any()):
            return "noise", False
        per_image = any(
            mask.dim() == operand.tensor.dim() and mask.numel() == mask.shape[0]
            for operand in call.data
        )
        return ("droppath" if per_image else "dropout"), False
    return kind, False
