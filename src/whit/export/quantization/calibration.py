"""Calibration: activation ranges over training images, and the QuantParams that fit them best."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import frexp, gcd, inf, ldexp

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whit.export.ir.graph import Graph
from whit.export.ir.interpreter import run_graph
from whit.training.optimization.qat import qmax

NUM_IMAGES = 1000  # evenly spaced, since training images may be sorted by class
_BATCH_SIZE = 100
_MAX_SAMPLES = 20_000  # elements of one value that are sampled
_RANGE_FRACTIONS = np.linspace(1, 0.5, 51)


@dataclass(frozen=True)
class QuantParams:
    """An affine mapping of uint8: q represents (q - zero_point) * scale."""

    scale: float
    zero_point: int

    @property
    def lowest(self) -> float:
        return -self.zero_point * self.scale

    @property
    def highest(self) -> float:
        return (255 - self.zero_point) * self.scale

    def values(self) -> NDArray[np.float64]:
        """Return the value of each uint8, (256,)."""
        return (np.arange(256, dtype=np.float64) - self.zero_point) * self.scale

    def quantize(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the nearest integer from 0 to 255 of each value."""
        nearest: NDArray[np.float64] = np.floor(values / self.scale + self.zero_point + 0.5)
        return nearest.clip(0, 255)


def calibration_images(images: Tensor) -> Tensor:
    """Return up to 1,000 evenly spaced images of uint8 images (N, C, H, W)."""
    count = min(NUM_IMAGES, len(images))
    return images[torch.arange(count) * len(images) // count]


def collect_activations(graph: Graph, images: Tensor) -> dict[str, NDArray[np.float64]]:
    """Return evenly spaced samples of every value of the graph over these images.

    Computed in float64, so that the result does not depend on the summation order of a machine.
    """
    constants = {name: tensor.double() for name, tensor in graph.constants.items()}
    exact = replace(graph, constants=constants)
    samples: dict[str, list[NDArray[np.float64]]] = {}
    batches = -(-len(images) // _BATCH_SIZE)
    for batch in images.split(_BATCH_SIZE):  # type: ignore[no-untyped-call]
        for name, value in run_graph(exact, batch).items():
            flat = value.flatten()
            step = max(1, flat.numel() * batches // _MAX_SAMPLES)
            while (
                gcd(step, value[0].numel()) > 1
            ):  # else the same pixels of every image would be sampled
                step += 1
            extremes = torch.stack([flat.min(), flat.max()])
            samples.setdefault(name, []).append(torch.cat([flat[::step], extremes]).numpy())
    return {name: np.concatenate(parts) for name, parts in samples.items()}


def choose_qparams(
    samples: NDArray[np.float64], lowest: float = -inf, highest: float = inf
) -> QuantParams:
    """Return the QuantParams of least mean squared error; zero is always represented exactly.

    Consumers of the value saturate below `lowest` and above `highest`.
    """
    clipped = np.clip(samples, lowest, highest)
    low, high = min(0.0, float(clipped.min())), max(0.0, float(clipped.max()))
    if low == high:
        return QuantParams(1.0, 0)

    def error(qparams: QuantParams) -> float:
        nearest = (qparams.quantize(clipped) - qparams.zero_point) * qparams.scale
        return float(np.square(nearest - clipped).mean())

    return min((_qparams(low * part, high * part) for part in _RANGE_FRACTIONS), key=error)


def _qparams(low: float, high: float) -> QuantParams:
    # Rounded to 16 bits, so that rounding errors of sums do not change it.
    fraction, exponent = frexp((high - low) / 255)
    scale = ldexp(round(fraction * 65536), exponent - 16)
    return QuantParams(scale, min(255, max(0, round(-low / scale))))


def quantize_weights(
    weights: NDArray[np.float64], bits: int = 8
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return integer weights (O, ...) and a scale per output channel (O,).

    Symmetric: from -127 to 127 with 8 bits.
    """
    max_value = qmax(bits)
    largest = np.abs(weights.reshape(len(weights), -1)).max(1)
    scales = (largest / max_value).astype(np.float32)
    # A row of zeros may have any scale, but a large one would widen the factors of all rows.
    positive = scales[scales > 0]
    scales[scales == 0] = positive.min() if positive.size else 1
    shaped = scales.astype(np.float64).reshape(-1, *(1,) * (weights.ndim - 1))
    return np.clip(np.rint(weights / shaped), -max_value, max_value).astype(np.int8), scales
