"""The random state of torch, NumPy and Python, seeded, saved and restored as one.

whit's own models draw from torch alone. A user's may draw from any of the three; all are set for
each epoch from one stream, and a checkpoint in the middle of an epoch keeps all of them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor


def seed_all(seed: int, stream: RngStream, epoch: int = 0) -> None:
    """Seed every generator from (seed, stream, epoch); CUDA's too, if used."""
    number = derive_seed(seed, stream, epoch)
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)  # its largest seed


def get_rng_state(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state of the generators, as tensors by name and JSON."""
    tensors = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    version, state, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=False)
    key = numpy["state"].pop("key")
    tensors["numpy"] = torch.from_numpy(key.astype(np.int64))
    tensors["python"] = torch.tensor(state, dtype=torch.int64)
    return tensors, {"python": [version, gauss], "numpy": numpy}


def set_rng_state(
    tensors: dict[str, Tensor], metadata: dict[str, Any], device: torch.device
) -> None:
    """Restore what `get_rng_state` returned."""
    torch.set_rng_state(tensors["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"], device)
    version, gauss = metadata["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    numpy = {**metadata["numpy"], "state": {**metadata["numpy"]["state"]}}
    numpy["state"]["key"] = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state(numpy)


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Restore the caller's random state at the end of the context."""
    cpu = torch.device("cpu")
    tensors, metadata = get_rng_state(cpu)
    try:
        yield
    finally:
        set_rng_state(tensors, metadata, cpu)


RngStream = Literal["weights", "shuffle", "warp", "dropout"]


def derive_seed(seed: int, stream: RngStream, epoch: int = 0) -> int:
    """Return a 63-bit seed for one consumer of randomness in one epoch.

    SHA-256 keeps the streams of neighbouring seeds and epochs unrelated, on every machine.
    """
    digest = hashlib.sha256(f"whit/{seed}/{stream}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
