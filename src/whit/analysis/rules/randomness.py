"""Random numbers combined with the data: dropout, dropped paths, noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from whit.analysis.rules.call import OpCall

# Attention with dropout inside, by the position of its probability.
_ATTENTION_DROPOUT = {
    "_scaled_dot_product_flash_attention_for_cpu": 3,
    "_scaled_dot_product_flash_attention": 3,
    "_scaled_dot_product_fused_attention_overrideable": 4,
    "_scaled_dot_product_efficient_attention": 5,
    "_scaled_dot_product_cudnn_attention": 5,
}

_WITH_WEIGHTS = frozenset({"linear", "conv", "rnn", "attention", "embedding", "matmul"})


def draws_numbers(name: str, args: tuple[Any, ...]) -> bool:
    """Return whether an operation that torch calls random draws numbers with these arguments."""
    if name in _ATTENTION_DROPOUT:
        position = _ATTENTION_DROPOUT[name]
        return len(args) > position and args[position] > 0
    if name == "native_dropout":
        return len(args) < 3 or args[2] is not False
    if name in ("rrelu_with_noise", "rrelu_with_noise_functional"):
        return len(args) > 4 and bool(args[4])
    return True


def plant_extremes(name: str, args: tuple[Any, ...], drawn: Tensor, draw: int) -> None:
    """Set two of the numbers just drawn to the smallest and the largest that can be drawn.

    A mask with p = 0.000001 then has a zero in the first pass. Of a single number, the passes
    `draw` 1, 2, ... show either extreme in turn, and pass 0 none.
    """
    if drawn.numel() == 0 or drawn.is_complex():
        return
    positions = _first_positions(drawn)
    if len(positions) == 1:
        extremes = {} if draw == 0 else {positions[0]: draw % 2 == 0}  # whether the largest
    else:
        extremes = {positions[0]: False, positions[1]: True}
    for position, largest in extremes.items():
        value = _find_extreme(name, args, drawn, position, largest)
        if value is not None:
            drawn[position] = value


def _first_positions(tensor: Tensor) -> list[tuple[int, ...]]:
    """Return the indices of the first two elements, or of the only one."""
    first = [0] * tensor.dim()
    longest = next((i for i in reversed(range(tensor.dim())) if tensor.shape[i] > 1), None)
    if longest is None:
        return [tuple(first)]
    second = [*first]
    second[longest] = 1
    return [tuple(first), tuple(second)]


def _find_extreme(
    name: str, args: tuple[Any, ...], drawn: Tensor, position: tuple[int, ...], largest: bool
) -> float | None:
    """Return the extreme that can be drawn at `position`; None if it is not known."""
    if name in ("rand", "rand_like", "uniform"):
        bounds = [0.0, 1.0]
        if name == "uniform":
            bounds[: len(args) - 1] = map(float, args[1:3])
        below = bounds[1] - (bounds[1] - bounds[0]) * torch.finfo(drawn.dtype).eps / 2
        return below if largest else bounds[0]
    if name == "exponential":
        return None if largest else 0.0
    if name in ("randint", "randint_like", "random"):
        limits = [value for value in args[name != "randint" :][:2] if isinstance(value, int)]
        low, stop = [0, 0, *limits][-2:] if len(limits) < 2 else limits
        return (stop - 1 if largest else low) if stop > low else None
    if name == "multinomial":
        if len(args) < 3 or not args[2] or args[0].dim() != 1:
            return None
        possible = args[0].nonzero().flatten()
        return int(possible[-1 if largest else 0])
    if name == "bernoulli":
        chance = args[1] if len(args) > 1 else args[0]
        if isinstance(chance, Tensor):
            if chance is drawn or chance.shape != drawn.shape:
                return None
            chance = chance[position]
        return float(largest) if 0 < float(chance) < 1 else None
    return None


def classify_random(
    call: OpCall, masks: list[Tensor], kind: str | None, generates: bool
) -> tuple[str | None, bool]:
    """Return the kind of `call`, which combines data with the random `masks`.

    The second result is true if the pass is inconclusive: the mask happened to be all ones.
    `generates`: the operation itself takes random numbers.
    """
    if call.name == "native_dropout":
        return ("dropout" if call.arg(1) > 0 else kind), False
    if call.name in _ATTENTION_DROPOUT or call.name.startswith(("rrelu_with", "fractional_max")):
        return kind, False
    if kind in _WITH_WEIGHTS:
        return kind, False  # weights drawn in the pass are weights
    if generates or not _sets_to_zero(call):
        return "noise", False
    for mask in masks:
        zeros = mask == 0
        if call.name != "mul" and mask.dtype != torch.bool:
            return "noise", False
        if mask.numel() == 1:
            return ("droppath", False) if zeros.all() else (kind, True)
        rest = mask[~zeros]
        if rest.numel() in (0, mask.numel()) and (rest == rest[:1]).all():
            return kind, True
        if not zeros.any() or not (rest == rest[:1]).all():
            return "noise", False
        per_image = any(
            mask.dim() == operand.tensor.dim() and mask.numel() == mask.shape[0]
            for operand in call.operands
            if operand.field
        )
        return ("droppath" if per_image else "dropout"), False
    return kind, False


def _sets_to_zero(call: OpCall) -> bool:
    """Return whether the operation can put zeros, and nothing else, in place of data."""
    if call.name == "mul":
        return True
    values: list[Any] = []
    if call.name == "masked_fill":
        values = [call.arg(2)]
    elif call.name == "where":
        values = [
            value
            for value in call.args[1:3]
            if not (isinstance(value, Tensor) and call.find_operand(value).field)
        ]
    elif call.name == "index_put":
        values = [call.arg(2)]
    return bool(values) and all(_is_zero(value) for value in values)


def _is_zero(value: Any) -> bool:
    return not value.any() if isinstance(value, Tensor) else value == 0
