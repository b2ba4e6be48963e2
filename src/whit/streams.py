"""Independent streams of randomness, each derived from (seed, purpose, epoch).

An epoch can be replayed exactly from its boundary, because nothing that happened before it
has moved the generators that it draws from.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Purpose = Literal["weights", "shuffle", "warp", "dropout"]


def stream_seed(seed: int, purpose: Purpose, epoch: int = 0) -> int:
    """Return a 63-bit seed for one consumer of randomness in one epoch.

    SHA-256 keeps the streams of neighbouring seeds and epochs unrelated, on every machine.
    """
    digest = hashlib.sha256(f"whit/{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
