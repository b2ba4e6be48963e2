"""Max pooling of 2x2 within the convolution before it, in int8 programs.

Rounding and clamping are monotonic, so the largest of four sums, or the smallest where the factor
of a channel is negative, gives the largest of the four outputs. A quarter of the outputs is
rounded, and the map in front of the pooling is never stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from whit.export.ir.ops.layers import CONV_INT8
from whit.export.program import Ints, Program, Step


def _compute(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    """Pool the sums of the convolution; a last odd row or column has no window."""
    channels, height, width = step.shape
    conv = replace(step, shape=(channels, *step.settings["conv_size"]))
    assert CONV_INT8.compute
    sign = np.where(constants["factor"] < 0, -1, 1)
    sums = CONV_INT8.compute(conv, inputs, constants) * sign
    windows = sums[:, : 2 * height, : 2 * width].reshape(-1, height, 2, width, 2, channels)
    pooled: Ints = windows.max((2, 4)) * sign
    return pooled


CONV_MAXPOOL = replace(
    CONV_INT8,
    name="conv_maxpool",
    call=CONV_INT8.call.replace("{groups}, 0,", "{groups}, 1,"),
    compute=_compute,
    file="int8/conv.c",
)


def fuse_max_pools(program: Program) -> Program:
    """Return the program with each 2x2 max pooling of a convolution within its step."""
    num_uses = Counter(name for step in program.steps for name in step.inputs)
    steps: list[Step] = []
    for step in program.steps:
        conv = next((other for other in steps if step.inputs[:1] == (other.name,)), None)
        if conv and num_uses[conv.name] == 1 and _is_fusible(conv, step):
            settings = {**conv.settings, "conv_size": conv.shape[1:]}
            fused = replace(
                conv, name=step.name, kernel=CONV_MAXPOOL, shape=step.shape, settings=settings
            )
            steps[steps.index(conv)] = fused
        else:
            steps.append(step)
    return replace(program, steps=tuple(steps))


def _is_fusible(conv: Step, pool: Step) -> bool:
    settings = pool.settings
    return (
        conv.kernel is CONV_INT8
        and "types" in conv.settings
        and pool.kind == "maxpool"
        and (settings["kernel"], settings["stride"]) == ((2, 2), (2, 2))
        and not any(settings["padding"])
        and settings.get("dilation", (1, 1)) == (1, 1)
        and pool.shape == (conv.shape[0], conv.shape[1] // 2, conv.shape[2] // 2)
    )
