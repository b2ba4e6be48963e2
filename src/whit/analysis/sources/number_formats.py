"""Numbers as Python holds them: in text, in the memory of an object, in large integers."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

MIN_TEXT = 64  # characters without spaces in a text that may hold numbers
MAX_ARRAY = 1_000_000  # numbers of an array that are compared one by one


def read_buffer(value: Any) -> npt.NDArray[np.float64] | None:
    """Return the numbers in the memory that an object gives access to; None if it does not."""
    try:
        view = memoryview(value)
        if view.nbytes > MAX_ARRAY:
            return np.zeros(0)
        values = np.asarray(view)
        numeric = values.dtype.kind in "biuf"
        return (values if numeric else np.frombuffer(view, np.uint8)).astype(np.float64).ravel()
    except (TypeError, ValueError, BufferError):
        return None


def parse_number(text: str) -> float | None:
    """Return the number that `text` writes; None for other texts."""
    if len(text) >= MIN_TEXT or not any(character.isdigit() for character in text):
        return None
    for parse in (float.fromhex if "0x" in text else float, partial(int, base=16)):
        with suppress(ValueError, OverflowError):
            return float(parse(text))
    return None


def is_number_list(text: str) -> bool:
    digits = sum(character.isdigit() for character in text)
    return len(text) >= MIN_TEXT and 2 * digits > len(text)


def to_numbers(values: Iterable[Any]) -> npt.NDArray[np.float64]:
    """Return Python numbers as floats; a complex or a very large one as several."""
    result: list[float] = []
    for value in values:
        if isinstance(value, (complex, np.complexfloating)):
            result += [float(value.real), float(value.imag)]
        elif isinstance(value, int) and value.bit_length() > 64:
            result += [
                float(byte)
                for byte in value.to_bytes(value.bit_length() // 8 + 2, "big", signed=True)
            ]
        else:
            result.append(float(value))
    return np.array(result, dtype=np.float64)


def array_numbers(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if values.dtype.kind == "c":
        values = np.stack([values.real, values.imag])
    return values.astype(np.float64).ravel()
