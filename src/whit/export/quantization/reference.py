"""The NumPy reference of int8 programs; compiled programs must match it bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whit.export.ir.graph import INPUT
from whit.export.ir.interpreter import shift_images
from whit.export.program import OUTPUT, Ints, Program, Step

_BATCH_SIZE = 100


def int8_logits(program: Program, images: Tensor) -> NDArray[np.int64]:
    """Return the logits (N, K) of uint8 images (N, C, H, W), in units of 1/65536."""
    parts = []
    for batch in images.split(_BATCH_SIZE):  # type: ignore[no-untyped-call]
        sums = sum(_run(program, shift_images(batch, *shift)) for shift in program.graph.shifts)
        assert isinstance(sums, np.ndarray)
        parts.append(divide_toward_zero(sums, len(program.graph.shifts)))
    return np.concatenate(parts)


def _run(program: Program, images: Tensor) -> Ints:
    # Maps (N, H, W, C), vectors (N, K) or maps with the same memory layout.
    values: dict[str, Ints] = {INPUT: images.permute(0, 2, 3, 1).numpy().astype(np.int64)}
    for step in program.steps:
        constants = {r: program.constants[n].astype(np.int64) for r, n in step.constants.items()}
        if "offset" in constants:
            # A shared array of offsets may be longer.
            offset = constants["offset"][: step.shape[0]]
            constants["offset"] = offset * step.settings.get("offset_scale", 1)
        inputs = [values[name] for name in step.inputs]
        if len(step.shape) == 1 and step.kernel.elementwise:
            inputs = [value.reshape(len(images), -1) for value in inputs]
        output = run_step(step, inputs, constants)
        if not step.inputs:  # the same for every image
            output = np.broadcast_to(output, (len(images), *output.shape[1:]))
        values[step.name] = output
        assert output.shape[1:] == (*step.shape[1:], step.shape[0]), f"{step.name}: another shape"
        assert step.name == OUTPUT or (output.min() >= 0 and output.max() <= 255)
    return values[OUTPUT]


def run_step(step: Step, inputs: list[Ints], constants: Mapping[str, Ints]) -> Ints:
    """Return the output of one step, (N, H, W, C) or (N, K); inputs have the same layout."""
    assert step.kernel.compute, f"{step.kind} has no int8 kernel"
    sums = step.kernel.compute(step, inputs, constants)
    parameters = {**step.settings, **constants}
    if "factor" in parameters:
        sums = sums * parameters["factor"] + parameters["offset"]
    if "shift" not in parameters:
        return sums
    # Logits are rounded toward zero; for uint8, negative sums are clamped before the shift.
    magnitude: Ints = (np.abs(sums) if step.name == OUTPUT else sums.clip(0)) >> parameters["shift"]
    return np.sign(sums) * magnitude if step.name == OUTPUT else magnitude.clip(max=255)


def divide_toward_zero(numbers: Ints, by: Any) -> Ints:
    """Integer division as in C, rounding toward zero."""
    quotient: Ints = np.sign(numbers) * (np.abs(numbers) // by)
    return quotient


def matmul(x: Ints, weight: Ints) -> Ints:
    """x @ weight.T, in float64: exact for sums below 2**53, and much faster."""
    return (x.astype(np.float64) @ weight.T.astype(np.float64)).astype(np.int64)


def window_taps(step: Step, x: Ints, padding: int) -> Iterator[tuple[Ints, Any]]:
    """Yield the input of each tap of a window, (N, H, W, C), and a mask that excludes padding."""
    settings, (_, height, width) = step.settings, step.shape
    (top, left), (stride_y, stride_x) = settings["padding"], settings["stride"]
    dilation_y, dilation_x = settings.get("dilation", (1, 1))
    kernel_h, kernel_w = settings["kernel"]
    pads = ((0, 0), (top, top), (left, left), (0, 0))
    padded = np.pad(x, pads, constant_values=padding)
    inside = np.pad(np.ones_like(x), pads)
    for ky in range(kernel_h):
        for kx in range(kernel_w):
            y, at = ky * dilation_y, kx * dilation_x
            window = (
                slice(None),
                slice(y, y + (height - 1) * stride_y + 1, stride_y),
                slice(at, at + (width - 1) * stride_x + 1, stride_x),
            )
            yield padded[window], inside[window]
