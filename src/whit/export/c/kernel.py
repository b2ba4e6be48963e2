"""A kernel of the C target: its source, its call, and the same computation in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.export.ir.graph import Shape

Array = NDArray[Any]
Ints = NDArray[np.int64]
OUTSIDE = "outside"  # what a convolution reads outside its map, in float32
# What follows a kernel's name, by the types of its factors and offsets.
_SUFFIXES = {
    ("int16", "int16"): "",
    ("int32", "int64"): "_wide",
    ("uint8", "int16"): "_short",
    ("uint8", "int8"): "_byte",
}


@dataclass(frozen=True, eq=False)
class Kernel:
    """A C function.

    call: returns the C calls of one step.
    compute: returns the int8 output, (N, H, W, C) or (N, K), from its inputs in that layout; its
        constants are int64. None where there is no int8 kernel.
    file: its source in `kernels/`, by default NAME.c in the folder of its type.
    words: what fills the placeholders of its source.
    int8_helpers: sources that come before its own in int8.
    in_place: whether it writes no value before the last one that it reads there.
    elementwise: whether a map may stand for the vector that lies alike in memory.
    """

    name: str
    call: Callable[[KernelCall], list[str]]
    compute: Callable[[Step, list[Ints], Mapping[str, Ints]], Ints] | None = None
    file: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    int8_helpers: tuple[str, ...] = ()
    in_place: bool = False
    elementwise: bool = False


@dataclass(frozen=True)
class Step:
    """One call: the value it makes, what it reads, its settings and the names of its constants."""

    name: str
    kernel: Kernel
    inputs: tuple[str, ...]
    shape: Shape
    settings: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.kernel.name

    def type_words(self) -> dict[str, str]:
        """Return what fills a source's placeholders for the types of factors and offsets."""
        if "types" not in self.settings:
            return {}
        types = self.settings["types"]
        factor, offset = types
        return {"suffix": _SUFFIXES[types], "factor": f"{factor}_t", "offset": f"{offset}_t"}


@dataclass(frozen=True)
class KernelCall:
    """A step in C: the names of its values and constants there, and its arguments as text."""

    step: Step
    int8: bool
    inputs: list[str]
    input_shapes: list[Shape]
    output: str
    constants: Mapping[str, str]

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.step.settings

    @cached_property
    def pixels(self) -> int:
        return pixels_and_channels(self.input_shapes[0])[0]

    @cached_property
    def channels(self) -> int:
        return pixels_and_channels(self.input_shapes[0])[1]

    @property
    def count(self) -> int:
        """Numbers of the first input."""
        return self.pixels * self.channels

    @property
    def values(self) -> str:
        """The first input and its size."""
        return f"{self.inputs[0]}, {self.pixels}, {self.channels}"

    @property
    def input_map(self) -> str:
        return f"{self.inputs[0]}, {_map(self.input_shapes[0])}"

    @property
    def output_map(self) -> str:
        return f"{self.output}, {_map(self.step.shape)}"

    @property
    def window(self) -> str:
        names = ("kernel", "stride", "padding")
        numbers = [number for name in names for number in self.settings[name]]
        numbers += self.settings.get("dilation", (1, 1))
        return f"(struct window){{{', '.join(map(str, numbers))}}}"

    @property
    def suffix(self) -> str:
        return self.step.type_words().get("suffix", "")

    @property
    def zero(self) -> str:
        """The zero point of the input; no argument in float32."""
        return f"{self.settings['zero']}, " if self.int8 else ""

    @property
    def scalars(self) -> str:
        """One factor for all channels, its offset and its shift; no argument in float32."""
        if not self.int8:
            return ""
        names = ("zero_a", "zero_b", "factor", "factor_a", "factor_b")
        row = [str(self.settings[name]) for name in names if name in self.settings]
        row += [f"INT64_C({self.settings['offset']})", str(self.settings["shift"])]
        return ", ".join(row) + ", "

    @property
    def vectors(self) -> str:
        """The factors and offsets by channel, their step and their shift."""
        factor, offset = self.constants["factor"], self.constants["offset"]
        return f"{factor}, {offset}, {self.settings['step']}, {self.settings['shift']}"

    @property
    def outputs_of_sums(self) -> str:
        """What turns the sums of a layer into its outputs."""
        return self.vectors if self.int8 else self.constants["bias"]


def _map(shape: Shape) -> str:
    channels, height, width = shape
    return f"(struct map){{{height}, {width}, {channels}}}"


def pixels_and_channels(shape: Shape) -> tuple[int, int]:
    """Return how a value lies in memory; a vector is one pixel."""
    return prod(shape[1:]), shape[0]


def is_flat(shape: Shape) -> bool:
    """Whether a map's numbers lie in memory as those of its flattened vector do."""
    pixels, channels = pixels_and_channels(shape)
    return pixels == 1 or channels == 1


def format_float(value: float) -> str:
    """Return a float32 as C reads it back: nine digits tell all of them apart."""
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
