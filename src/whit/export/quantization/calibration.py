"""The range of every value over training images, and the 256 levels that fit it best."""

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

NUM_IMAGES = 1000  # evenly from all training images, which may lie class by class
_BATCH_SIZE = 100
_MAX_SAMPLES = 20_000  # numbers of one value that decide its levels
_RANGE_SHARES = np.linspace(1, 0.5, 51)


@dataclass(frozen=True)
class QuantParams:
    """What a byte q stands for: (q - zero_point) * scale."""

    scale: float
    zero_point: int

    @property
    def lowest(self) -> float:
        return -self.zero_point * self.scale

    @property
    def highest(self) -> float:
        return (255 - self.zero_point) * self.scale

    def values(self) -> NDArray[np.float64]:
        """Return what each byte stands for, (256,)."""
        return (np.arange(256, dtype=np.float64) - self.zero_point) * self.scale

    def quantize(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the nearest level of each value, as integers from 0 to 255."""
        nearest: NDArray[np.float64] = np.floor(values / self.scale + self.zero_point + 0.5)
        return nearest.clip(0, 255)


def calibration_images(images: Tensor) -> Tensor:
    """Return 1,000 of uint8 images (N, C, H, W), evenly from first to last, or all of fewer."""
    count = min(NUM_IMAGES, len(images))
    return images[torch.arange(count) * len(images) // count]


def collect_activations(graph: Graph, images: Tensor) -> dict[str, NDArray[np.float64]]:
    """Return numbers of every value of the graph over these images, evenly taken.

    In float64, so that the last bits of a machine's own sums decide nothing.
    """
    constants = {name: tensor.double() for name, tensor in graph.constants.items()}
    exact = replace(graph, constants=constants)
    samples: dict[str, list[NDArray[np.float64]]] = {}
    batches = -(-len(images) // _BATCH_SIZE)
    for batch in images.split(_BATCH_SIZE):  # type: ignore[no-untyped-call]
        for name, value in run_graph(exact, batch).items():
            flat = value.flatten()
            step = max(1, flat.numel() * batches // _MAX_SAMPLES)
            while gcd(step, value[0].numel()) > 1:  # else the same pixels of every image
                step += 1
            extremes = torch.stack([flat.min(), flat.max()])
            samples.setdefault(name, []).append(torch.cat([flat[::step], extremes]).numpy())
    return {name: np.concatenate(parts) for name, parts in samples.items()}


def choose_qparams(
    samples: NDArray[np.float64], lowest: float = -inf, highest: float = inf
) -> QuantParams:
    """Return those with the least mean square error; zero is always one of the levels.

    What lies beyond `lowest` and `highest` is cut off by whatever reads the value.
    """
    cut = np.clip(samples, lowest, highest)
    low, high = min(0.0, float(cut.min())), max(0.0, float(cut.max()))
    if low == high:
        return QuantParams(1.0, 0)

    def error(qparams: QuantParams) -> float:
        nearest = (qparams.quantize(cut) - qparams.zero_point) * qparams.scale
        return float(np.square(nearest - cut).mean())

    return min((_qparams(low * share, high * share) for share in _RANGE_SHARES), key=error)


def _qparams(low: float, high: float) -> QuantParams:
    # Sixteen bits: the last bits of a sum must not decide them.
    fraction, exponent = frexp((high - low) / 255)
    scale = ldexp(round(fraction * 65536), exponent - 16)
    return QuantParams(scale, min(255, max(0, round(-low / scale))))


def quantize_weights(
    weights: NDArray[np.float64], bits: int = 8
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return weights (O, ...) as integers, and a scale an output (O,).

    Of 8 bits they lie from -127 to 127.
    """
    max_level = qmax(bits)
    largest = np.abs(weights.reshape(len(weights), -1)).max(1)
    scales = (largest / max_level).astype(np.float32)
    # Any scale does for a row of zeros, but a large one would make the factors of all rows wide.
    some = scales[scales > 0]
    scales[scales == 0] = some.min() if some.size else 1
    shaped = scales.astype(np.float64).reshape(-1, *(1,) * (weights.ndim - 1))
    return np.clip(np.rint(weights / shaped), -max_level, max_level).astype(np.int8), scales
