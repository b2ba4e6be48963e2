"""A graph with random constants, for images that reach every bound of its operators.

The images of a data set may leave a bound unreached, so an export that lacks it gives equal logits.
With other weights, the same operations receive values far beyond each bound.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from whit.export.ir.graph import INPUT, Graph, Operation, with_batch

_NUM_IMAGES = 16
_MIN_SPREAD = 6.0  # standard deviations of values; hardswish and relu6 have bounds up to 6
_MAX_SPREAD = 1e4


def random_images(graph: Graph) -> Tensor:
    """Return a few uint8 images of noise (N, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    shape = (_NUM_IMAGES, *graph.image_shape)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@torch.inference_mode()
def with_random_weights(graph: Graph, images: Tensor) -> Graph:
    """Return the graph with random constants; outputs of layers have one standard deviation.

    It exceeds every number among the attributes of the operations. Deterministic.
    """
    generator = torch.Generator().manual_seed(1)
    spread = _spread(graph)
    constants = dict(graph.constants)
    drawn: set[str] = set()
    values = {INPUT: images.float()}

    def draw(name: str, scale: float) -> None:
        if name not in drawn:
            random = torch.randn(constants[name].shape, generator=generator)
            constants[name] = random * scale
        drawn.add(name)

    def run(op: Operation) -> Tensor:
        given = {role: constants[name] for role, name in op.constants.items()}
        output = op.operator.run(op, [values[name] for name in op.inputs], given)
        return output if op.inputs else output.expand(with_batch(op.shape, len(images)))

    for op in graph.operations:
        factor, term = next(
            (
                pair
                for pair in (("weight", "bias"), ("scale", "offset"))
                if set(pair) == {*op.constants}
            ),
            ("", ""),
        )
        if factor:
            weight, bias = op.constants[factor], op.constants[term]
            is_new = weight not in drawn
            draw(weight, 1.0)
            draw(bias, spread / 2)
            if is_new and (deviation := float(run(op).std())) > 0:
                constants[weight] = constants[weight] * (spread / deviation)
        else:
            for role, name in op.constants.items():
                if role in ("slope", "value"):
                    draw(name, 1.0 if role == "slope" else spread)
        values[op.name] = run(op)
    return replace(graph, constants=constants)


def _spread(graph: Graph) -> float:
    numbers = [
        abs(float(number))
        for op in graph.operations
        for number in op.attributes.values()
        if isinstance(number, int | float)
    ]
    return max([_MIN_SPREAD, *(2 * number for number in numbers if 2 * number <= _MAX_SPREAD)])
