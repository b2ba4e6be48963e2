"""Sizes of windows that slide over a map."""

from __future__ import annotations

from typing import Any


def pair(value: Any, default: int) -> tuple[int, int]:
    if value is None or value == []:
        return default, default
    if isinstance(value, int):
        return value, value
    pair = tuple(value)
    return (pair[0], pair[0]) if len(pair) == 1 else (pair[0], pair[1])


def window_positions(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Return how many positions a window takes along an axis of `size`."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
