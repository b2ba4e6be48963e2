"""Small networks that seem to keep a budget, or that judge images together, and honest ones.

`docs/explanation/verdict-guarantees.md` lists the same cases; a test compares the two.
"""

from __future__ import annotations

import array
import base64
import ctypes
import enum
import functools
import itertools
import math
import random
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE = (1, 12, 12)
HONEST = 100  # parameters of `Base`
SIZE = 100  # numbers that each cheat hides


class Base(nn.Module):
    """Honest: 80 parameters of a convolution, 20 of a BatchNorm, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 10, (7, 1), stride=2)
        self.norm = nn.BatchNorm2d(10)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@dataclass
class Case:
    """`outcome`: `dependent`, `counted`, `unverified`, `noted`, or `honest`."""

    text: str
    build: Callable[[], nn.Module]
    outcome: str
    numbers: int = SIZE  # that are counted beside those of Base


CASES: list[Case] = []


def case(text: str, outcome: str, numbers: int | None = None) -> Callable[[Any], Any]:
    """Add a class, or a function that builds a network, to CASES."""
    expected = SIZE if outcome == "counted" and numbers is None else numbers or 0

    def add(build: Any) -> Any:
        CASES.append(Case(text, build, outcome, expected))
        return build

    return add


NUMBERS = [round(0.013 * (i * 7919 % 101) - 0.5, 5) for i in range(SIZE)]
ARRAY = np.array(NUMBERS, dtype=np.float32)
FOLDER = Path(tempfile.mkdtemp(prefix="whit-cheats-"))


def mix(logits: Tensor, stored: Tensor) -> Tensor:
    return logits @ stored.reshape(10, 10)


# --- judged together with other images ---------------------------------------------------------


@case("The mean over the batch is subtracted", "dependent")
class BatchMean(Base):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return logits - logits.mean(0, keepdim=True)


@case("softmax over the batch", "dependent")
class SoftmaxOverBatch(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.body(x), dim=0)


@case("BatchNorm without running statistics", "dependent")
class BatchStatistics(Base):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(10, track_running_stats=False)


@case("BatchNorm that is put into training mode by the forward pass", "dependent")
class ForcedTraining(Base):
    def body(self, x: Tensor) -> Tensor:
        self.norm.train()
        return super().body(x)


@case("`F.batch_norm(training=True)`", "dependent")
class FunctionalTraining(Base):
    def body(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), None, None, training=True).relu().mean((2, 3))


@case("A cumulative sum over the batch", "dependent")
class CumulativeSum(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).cumsum(0)


@case("Sorting over the batch", "dependent")
class SortedBatch(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).sort(0).values


@case("Outputs of neighbouring images are exchanged", "dependent")
class RolledBatch(Base):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return logits + logits.roll(1, 0)


@case("Attention between the images of a batch", "dependent")
class BatchAttention(Base):
    def forward(self, x: Tensor) -> Tensor:
        tokens = self.body(x)[None]
        return F.scaled_dot_product_attention(tokens, tokens, tokens)[0]


@case("A dependence on the batch that is tiny before training", "dependent")
class TinyDependence(Base):
    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(1e-7))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return logits - self.share * logits.mean(0)


@case("A dependence on the batch behind a gate that is zero before training", "dependent")
class ClosedGate(Base):
    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return logits - self.share * logits.mean(0)


@case("A dependence on the batch only where it has many images", "dependent")
class LargeBatches(Base):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return logits - logits.mean(0) if len(x) > 100 else logits


@case("Another computation for a single image", "dependent")
class SingleImage(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * (2.0 if len(x) == 1 else 1.0)


@case("The position in the batch is used", "dependent")
class PositionInBatch(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + torch.arange(len(x))[:, None]


@case("A counter of calls", "dependent")
class CallCounter(Base):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.body(x) + self.count


@case("A counter of calls that has an effect after a thousand of them", "dependent")
class LateCounter(CallCounter):
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.body(x) + (1.0 if self.count > 1000 else 0.0)


CALLS = [0]


@case("A counter of calls in a global", "dependent")
class GlobalCounter(Base):
    def forward(self, x: Tensor) -> Tensor:
        CALLS[0] += 1
        return self.body(x) + CALLS[0] % 7


@case("A running mean of images in a buffer", "dependent")
class ImageAverage(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        self.average.mul_(0.9).add_(logits.detach().mean(0), alpha=0.1)
        return logits - self.average


@case("Something of the previous batch is kept in an attribute", "dependent")
class PreviousBatch(Base):
    def __init__(self) -> None:
        super().__init__()
        self.previous: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        shift = 0.0 if self.previous is None else self.previous
        self.previous = logits.mean(0)
        return logits + shift


@case("Something of the very first batch is kept", "dependent")
class FirstBatch(Base):
    def __init__(self) -> None:
        super().__init__()
        self.first: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        if self.first is None:
            self.first = logits.mean(0)
        return logits - self.first


@case("Random numbers in inference", "dependent")
class RandomAnswer(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.body(x), 0.3, training=True)


@case("Random numbers of NumPy in inference", "dependent")
class RandomScale(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * float(np.random.rand())


@case("Dynamic quantization: one scale for the whole batch", "dependent", 110)
def quantized() -> nn.Module:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(144, 1), nn.Linear(1, 10))
    return torch.ao.quantization.quantize_dynamic(flat, {nn.Linear}, torch.qint8)


@case("A recurrent layer that takes the batch for time steps", "dependent")
class BatchAsTime(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(12, 4), nn.Linear(48, 10)  # batch_first is missing

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x[:, 0])[0].flatten(1))


@case("The batch and the classes are exchanged by `view`", "dependent")
class ViewedWrong(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).view(10, -1).t()


@case("A number of calls in a text, a list, a set, a tuple or a slot", "dependent")
class LateState(Base):
    """The least obvious of them; test_call_state.py has the others."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = ""

    def forward(self, x: Tensor) -> Tensor:
        self.calls += "."
        return self.body(x) + (1.0 if len(self.calls) > 1000 else 0.0)


@case("A number of calls in a closure of a hook", "dependent")
def late_hook() -> nn.Module:
    model, calls = Base(), 0

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return output + 1 if calls > 1000 else output

    model.register_forward_hook(hook)
    return model


@case("A number of calls in a generator", "dependent")
class LateGenerator(Base):
    def __init__(self) -> None:
        super().__init__()
        self.calls = itertools.count()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + (1.0 if next(self.calls) > 1000 else 0.0)


# --- numbers that are stored elsewhere than in parameters ---------------------------------------


@case("Running statistics of a BatchNorm that normalizes zeros", "counted", 2 * SIZE)
class StatisticsAsStorage(Base):
    def __init__(self) -> None:
        super().__init__()
        self.store = nn.BatchNorm1d(SIZE, affine=False, momentum=1e-30)
        self.store.running_mean.copy_(torch.tensor(NUMBERS))

    def forward(self, x: Tensor) -> Tensor:
        source = torch.randn(2, SIZE) if self.training else torch.zeros(2, SIZE)
        return mix(self.body(x), self.store(source)[0])


@case("Statistics of BatchNorm channels that get constants", "counted", 2 * SIZE)
class StatisticsOfConstants(Base):
    def __init__(self) -> None:
        super().__init__()
        self.store = nn.BatchNorm1d(10 + SIZE, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        normed = self.store(torch.cat([logits, torch.zeros(len(x), SIZE)], 1))
        return mix(normed[:, :10], normed[0, 10:])


@case("Statistics that are read elsewhere than in a normalization", "counted", 10)
class StatisticsReadElsewhere(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.norm.running_mean


@case("Statistics that `eval()` overwrites", "counted", 20)
class OverwrittenStatistics(Base):
    def train(self, mode: bool = True) -> OverwrittenStatistics:
        super().train(mode)
        if not mode:
            self.norm.running_mean.copy_(torch.tensor(NUMBERS[:10]))
            self.norm.running_var.copy_(torch.tensor(NUMBERS[10:20]).abs() + 1)
        return self


@case("Statistics that training hardly moves", "counted", 20)
class FrozenStatistics(Base):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(10, momentum=1e-6)


@case("A list of numbers, one tensor each", "counted")
class InList(Base):
    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), torch.stack([torch.tensor(value) for value in NUMBERS]))


@case("A list of numbers, by `fill_`", "counted")
class Filled(Base):
    def forward(self, x: Tensor) -> Tensor:
        stored = torch.empty(SIZE)
        for i, value in enumerate(NUMBERS):
            stored[i].fill_(value)
        return mix(self.body(x), stored)


@case("A list of numbers, by item assignment", "counted")
class Assigned(Base):
    def forward(self, x: Tensor) -> Tensor:
        stored = torch.empty(SIZE)
        for i, value in enumerate(NUMBERS):
            stored[i] = value
        return mix(self.body(x), stored)


@case("A list of numbers, as arguments of operations in a loop", "counted")
class ScalarArguments(Base):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        total = torch.zeros_like(logits)
        for i, value in enumerate(NUMBERS):
            total = total + logits.roll(i % 10, 1) * value
        return total


@case("A list of numbers, by `torch.tensor`", "counted")
class AtOnce(Base):
    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), torch.tensor(NUMBERS))


@case("A NumPy array, by `torch.from_numpy`", "counted")
class NumpyArray(Base):
    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), torch.from_numpy(ARRAY))


@case("A NumPy array, element by element", "counted")
class NumpyElements(Base):
    def forward(self, x: Tensor) -> Tensor:
        parts = [torch.as_tensor(value) for value in ARRAY]
        return mix(self.body(x), torch.stack(parts))


@case("A buffer of bytes, by `torch.frombuffer`", "counted")
class FromBytes(Base):
    def __init__(self) -> None:
        super().__init__()
        self.stored = bytearray(ARRAY.tobytes())

    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), torch.frombuffer(self.stored, dtype=torch.float32))


@case("Numbers written into the code", "counted")
def written_in_code() -> nn.Module:
    lines = ["class Written(Base):", "    def forward(self, x):", "        s = torch.empty(100)"]
    lines += [f"        s[{i}] = {value}" for i, value in enumerate(NUMBERS)]
    lines += ["        return mix(self.body(x), s)"]
    names = {"Base": Base, "torch": torch, "mix": mix, "__name__": __name__}
    exec(compile("\n".join(lines), "/written.py", "exec"), names)
    return names["Written"]()  # type: ignore[operator, no-any-return]


@case("Numbers in default arguments", "counted")
class DefaultArgument(Base):
    def stored(self, values: tuple[float, ...] = tuple(NUMBERS)) -> Tensor:
        return torch.stack([torch.tensor(value) for value in values])

    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), self.stored())


@case("Numbers in a closure", "counted")
def closure() -> nn.Module:
    values = array.array("d", NUMBERS)

    class Closure(Base):
        def forward(self, x: Tensor) -> Tensor:
            return mix(self.body(x), torch.stack([torch.tensor(value) for value in values]))

    return Closure()


@case("Numbers in a class attribute", "counted")
class ClassAttribute(Base):
    values: ClassVar = dict(enumerate(NUMBERS))

    def forward(self, x: Tensor) -> Tensor:
        stored = torch.empty(SIZE)
        for i, value in self.values.items():
            stored[i] = value
        return mix(self.body(x), stored)


@case("Numbers in attributes of an instance, one each", "counted")
class ManyAttributes(Base):
    def __init__(self) -> None:
        super().__init__()
        for i, value in enumerate(NUMBERS):
            setattr(self, f"value_{i}", value)

    def forward(self, x: Tensor) -> Tensor:
        stored = torch.empty(SIZE)
        for i in range(SIZE):
            stored[i] = getattr(self, f"value_{i}")
        return mix(self.body(x), stored)


Stored = enum.Enum("Stored", {f"value_{i}": value for i, value in enumerate(NUMBERS)})  # type: ignore[misc]


@case("Numbers in an enum", "counted")
class InEnum(Base):
    def forward(self, x: Tensor) -> Tensor:
        values = [Stored[f"value_{i}"].value for i in range(SIZE)]
        return mix(self.body(x), torch.stack([torch.tensor(value) for value in values]))


@case("Numbers in a partial function", "counted")
class InPartial(Base):
    def __init__(self) -> None:
        super().__init__()
        self.make = functools.partial(map, torch.tensor, tuple(NUMBERS))

    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), torch.stack(list(self.make())))


@case("Numbers in a hook", "counted")
def in_hook() -> nn.Module:
    model = Base()

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return mix(output, torch.stack([torch.tensor(value) for value in NUMBERS]))

    model.register_forward_hook(hook)
    return model


class Scaled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * torch.tensor(NUMBERS[:10]).view(10, 1, 1, 1)


@case("Numbers in a parametrization", "counted", 10)
def in_parametrization() -> nn.Module:
    model = Base()
    nn.utils.parametrize.register_parametrization(model.conv, "weight", Scaled())
    return model


@case("An unregistered tensor in a dict of lists", "counted")
class Unregistered(Base):
    def __init__(self) -> None:
        super().__init__()
        self.extra = {"stored": [torch.tensor(NUMBERS)]}

    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), self.extra["stored"][0])


@case("A buffer that leaves torch by `tolist()`", "counted")
class LeavesTorch(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("stored", torch.tensor(NUMBERS))

    def forward(self, x: Tensor) -> Tensor:
        values = self.stored.tolist()
        return mix(self.body(x), torch.stack([torch.tensor(value) for value in values]))


@case("A buffer that the first call creates", "counted")
class CreatedBuffer(Base):
    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "stored"):
            self.register_buffer("stored", torch.tensor(NUMBERS))
        return mix(self.body(x), self.stored)


@case("Weights of two values (-1 and 1) in a text", "counted")
class Signs(Base):
    signs: ClassVar = [1.0 if value > 0.1 else -1.0 for value in NUMBERS]

    def forward(self, x: Tensor) -> Tensor:
        stored = torch.empty(SIZE)
        for i, value in enumerate(self.signs):
            stored[i] = value
        return mix(self.body(x), stored)


@case("Numbers in settings of modules, one in each", "counted")
class InSettings(Base):
    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.ModuleList(nn.LeakyReLU(value) for value in NUMBERS)

    def forward(self, x: Tensor) -> Tensor:
        logits = total = self.body(x) - 0.5
        for i, slope in enumerate(self.slopes):
            total = total + slope(logits.roll(i % 10, 1))
        return total


@case("Numbers in a script module", "counted")
class InScript(Base):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.jit.script(ListHead())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


class ListHead(nn.Module):
    __constants__: ClassVar = ["values"]

    def __init__(self) -> None:
        super().__init__()
        self.values = NUMBERS

    def forward(self, logits: Tensor) -> Tensor:
        return logits @ torch.tensor(self.values).view(10, 10)


@case("Numbers in a structured NumPy array", "counted")
class Structured(Base):
    stored: ClassVar = np.array([(value, 0) for value in NUMBERS], [("value", "f4"), ("id", "i4")])

    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), torch.tensor(self.stored["value"].tolist()))


@case("Numbers in memory of ctypes", "counted")
class InCtypes(Base):
    stored: ClassVar = (ctypes.c_float * SIZE)(*NUMBERS)

    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), torch.tensor(list(self.stored)))


@case("Numbers as annotations of a class", "counted")
class Annotated(Base):
    __annotations__: ClassVar = {"stored": tuple(NUMBERS)}

    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), torch.tensor(self.__annotations__["stored"]))


@case("Numbers as sizes of lists", "counted")
class SizesOfLists(Base):
    stored: ClassVar = [[None] * round(500 * value + 300) for value in NUMBERS]

    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), torch.tensor([len(each) / 500 - 0.6 for each in self.stored]))


@case("Numbers as sizes of empty tensors", "counted")
class SizesOfTensors(Base):
    def __init__(self) -> None:
        super().__init__()
        self.stored = [torch.empty(0, round(500 * value + 300)) for value in NUMBERS]

    def forward(self, x: Tensor) -> Tensor:
        values = [each.shape[1] / 500 - 0.6 for each in self.stored]
        return mix(self.body(x), torch.tensor(values))


@case("Numbers in a list of hexadecimal texts", "counted")
class Hexadecimal(Base):
    stored: ClassVar = [struct.pack("f", value).hex() for value in NUMBERS]

    def forward(self, x: Tensor) -> Tensor:
        values = [struct.unpack("f", bytes.fromhex(text))[0] for text in self.stored]
        return mix(self.body(x), torch.tensor(values))


@case("Digits of one fraction", "counted")
class InFraction(Base):
    stored: ClassVar = Fraction(int.from_bytes(ARRAY.tobytes(), "little"), 2**4000 + 1)

    def forward(self, x: Tensor) -> Tensor:
        values = [(self.stored.numerator >> (16 * i) & 0xFFFF) / 65536 for i in range(SIZE)]
        return mix(self.body(x), torch.tensor(values))


# --- several values in one number ---------------------------------------------------------------


@case("Eight int8 in an int64, by `view(dtype)`", "counted", 104)
class Viewed(Base):
    def __init__(self) -> None:
        super().__init__()
        packed = torch.randint(-9, 9, (104,), dtype=torch.int8).view(torch.int64)
        self.register_buffer("packed", packed)

    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), self.packed.view(torch.int8)[:100].float())


@case("Eight values in an int64, by shifts", "counted", 104)
class Shifted(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("packed", torch.randint(0, 2**62, (13,)))

    def forward(self, x: Tensor) -> Tensor:
        values = (self.packed[:, None] >> torch.arange(0, 64, 8)) & 255
        return mix(self.body(x), values.flatten()[:100].float())


@case("Decimal digits of integers, by `//` and `%`", "counted", 104)
class Digits(Shifted):
    def forward(self, x: Tensor) -> Tensor:
        values = self.packed[:, None] // 100 ** torch.arange(8) % 100
        return mix(self.body(x), values.flatten()[:100].float())


@case("Digits of floats", "unverified")
class FloatDigits(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("packed", torch.rand(50, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        scaled = self.packed * 1000
        high = scaled.floor()
        low = ((scaled - high) * 1000).floor()
        return mix(self.body(x), torch.cat([high, low]).float())


@case("Two float16 in each float32 of a parameter, by NumPy", "counted", 150)
class ViewedInNumpy(Base):
    def __init__(self) -> None:
        super().__init__()
        packed = torch.tensor(NUMBERS).half().view(torch.float32)
        self.packed = nn.Parameter(packed.clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        values = self.packed.detach().numpy().view(np.float16)
        return mix(self.body(x), torch.from_numpy(values.astype(np.float32)))


@case("Eight values in each integer of a parameter, by `tolist()`", "unverified")
class UnpackedInPython(Base):
    def __init__(self) -> None:
        super().__init__()
        self.packed = nn.Parameter(torch.randint(0, 2**62, (13,)), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        values = [
            (value >> (8 * i) & 255) / 255 for value in self.packed.tolist() for i in range(8)
        ]
        return mix(self.body(x), torch.stack([torch.tensor(value) for value in values[:100]]))


@case("Complex weights", "counted", 2 * SIZE)
class Complex(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("turn", torch.randn(10, 10, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x).to(torch.complex64) @ self.turn).real


@case("Numbers unpacked from bytes in Python", "unverified")
class Unpacked(Base):
    stored: ClassVar = struct.pack(f"{SIZE}f", *NUMBERS)

    def forward(self, x: Tensor) -> Tensor:
        values = struct.unpack(f"{SIZE}f", self.stored)
        return mix(self.body(x), torch.stack([torch.tensor(value) for value in values]))


TEXT = base64.b64encode(ARRAY.tobytes()).decode()


@case("Numbers in a base64 text", "unverified")
class Base64(Base):
    def forward(self, x: Tensor) -> Tensor:
        values = struct.unpack(f"{SIZE}f", base64.b64decode(TEXT))
        return mix(self.body(x), torch.stack([torch.tensor(value) for value in values]))


@case("A list of numbers that code transforms", "unverified")
class Transformed(Base):
    def forward(self, x: Tensor) -> Tensor:
        parts = [torch.tensor(math.tanh(value)) for value in NUMBERS]
        return mix(self.body(x), torch.stack(parts))


@case("One large integer whose digits are weights", "unverified")
class LargeInteger(Base):
    stored: ClassVar = int.from_bytes(ARRAY.tobytes(), "little")

    def forward(self, x: Tensor) -> Tensor:
        parts = [torch.tensor(float(self.stored >> (16 * i) & 0xFFFF)) for i in range(SIZE)]
        return mix(self.body(x), torch.stack(parts))


@case("Weights in NumPy, applied in NumPy", "unverified")
class AppliedInNumpy(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.body(x).detach().numpy() @ ARRAY.reshape(10, 10))


# --- read from outside, or drawn -----------------------------------------------------------------

np.save(FOLDER / "stored.npy", ARRAY)
torch.save(torch.tensor(NUMBERS), FOLDER / "stored.pt")
save_file({"stored": torch.tensor(NUMBERS)}, FOLDER / "stored.safetensors")


@case("A file, by `numpy.load`", "unverified")
class NumpyFile(Base):
    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), torch.from_numpy(np.load(FOLDER / "stored.npy")))


@case("A file, by `numpy.memmap`", "unverified")
class MemoryMap(Base):
    def forward(self, x: Tensor) -> Tensor:
        stored = np.memmap(FOLDER / "stored.npy", np.float32, "r", offset=128)
        return mix(self.body(x), torch.from_numpy(np.array(stored)))


@case("A file, by `torch.load`", "unverified")
class TorchFile(Base):
    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), torch.load(FOLDER / "stored.pt", weights_only=True))


@case("A file, by safetensors", "unverified")
class SafetensorsFile(Base):
    def forward(self, x: Tensor) -> Tensor:
        return mix(self.body(x), load_file(FOLDER / "stored.safetensors")["stored"])


@case("A file, by `open`", "unverified")
class OpenedFile(Base):
    def forward(self, x: Tensor) -> Tensor:
        content = bytearray((FOLDER / "stored.npy").read_bytes()[128:])
        return mix(self.body(x), torch.frombuffer(content, dtype=torch.float32))


@case("A database, by sqlite3", "unverified")
class Database(Base):
    def forward(self, x: Tensor) -> Tensor:
        connection = sqlite3.connect(":memory:")
        values = connection.execute("select 0.5").fetchone()
        connection.close()
        return self.body(x) * values[0]


@case("The output of another program", "unverified")
class Program(Base):
    def forward(self, x: Tensor) -> Tensor:
        output = subprocess.run([sys.executable, "-c", "print(0.5)"], capture_output=True)
        return self.body(x) * float(output.stdout)


@case("Noise from a fixed seed as weights", "unverified")
class SeededNoise(Base):
    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(4)
        return mix(self.body(x), torch.randn(10, 10))


@case("Noise of Python from a fixed seed as weights", "unverified")
class PythonNoise(Base):
    def forward(self, x: Tensor) -> Tensor:
        source = random.Random(4)
        parts = [torch.tensor(source.gauss(0, 1)) for _ in range(SIZE)]
        return mix(self.body(x), torch.stack(parts))


# --- only noted -----------------------------------------------------------------------------------


@case("Softmax at the end, before a loss that takes logits", "noted")
class Probabilities(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.body(x), dim=1)


@case("Sigmoid at the end, before a loss that takes logits", "noted")
class Sigmoid(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).sigmoid()


@case("Probabilities at the end, whatever computes them", "noted")
class ProbabilitiesByHand(Base):
    def forward(self, x: Tensor) -> Tensor:
        powers = self.body(x).exp()
        return powers / powers.sum(1, keepdim=True)


@case("Softmax at the end in training mode only", "noted")
class ProbabilitiesInTraining(Base):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return F.softmax(logits, 1) if self.training else logits


@case("Softmax at the end in evaluation mode only: the loss of test images is wrong", "noted")
class ProbabilitiesInEvaluation(Base):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return logits if self.training else F.softmax(logits, 1)


@case("Parameters that never reach the output", "noted", 5)
class Unused(Base):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(5))


# --- honest habits --------------------------------------------------------------------------------


@case("LayerNorm, GroupNorm and InstanceNorm", "honest", 20)
class OtherNorms(Base):
    def __init__(self) -> None:
        super().__init__()
        del self.norm
        self.group, self.layer = nn.GroupNorm(2, 10), nn.LayerNorm(10)
        self.instance = nn.InstanceNorm2d(10)

    def body(self, x: Tensor) -> Tensor:
        return self.layer(self.group(self.instance(self.conv(x))).relu().mean((2, 3)))


@case("A coordinate map that each call makes again", "honest")
class Grid(Base):
    def forward(self, x: Tensor) -> Tensor:
        rows = torch.linspace(-1, 1, 12)
        return self.body(x + rows[:, None] * rows)


@case("A coordinate map that the first call makes and keeps", "honest")
class KeptGrid(Base):
    def __init__(self) -> None:
        super().__init__()
        self.grids: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if len(x) not in self.grids:
            self.grids[len(x)] = torch.linspace(-1, 1, 12).expand(len(x), 1, 12, 12)
        return self.body(x + self.grids[len(x)])


@case("A sinusoidal position encoding computed in a Python loop", "honest")
class PositionLoop(Base):
    def forward(self, x: Tensor) -> Tensor:
        encoding = torch.zeros(12, 12)
        for row, column in itertools.product(range(12), range(12)):
            angle = row / 10000 ** (column // 2 * 2 / 12)
            encoding[row, column] = math.sin(angle) if column % 2 == 0 else math.cos(angle)
        return self.body(x + encoding)


@case("A position encoding by a list comprehension", "honest")
class PositionList(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x + torch.tensor([math.sin(i / 7) for i in range(12)]))


@case("A grid by NumPy", "honest")
class NumpyGrid(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x + torch.from_numpy(np.linspace(-1, 1, 12, dtype=np.float32)))


@case("A few numbers in the code", "honest")
class FewNumbers(Base):
    def forward(self, x: Tensor) -> Tensor:
        for scale in (0.5, 1.0, 2.0):
            x = x + 0.1307 * torch.tanh(scale * x) - 1e-5
        return self.body(x)


@case("Logging into attributes", "honest")
class Logging(Base):
    def __init__(self) -> None:
        super().__init__()
        self.calls, self.features, self.losses = 0, torch.zeros(1), list[float]()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.features = self.body(x)
        self.losses.append(float(self.features.detach().mean()))
        return self.features


@case("Patches of an image are put into the batch and back", "honest")
class Patches(Base):
    def forward(self, x: Tensor) -> Tensor:
        patches = torch.stack([x, x.flip(3)], 1).flatten(0, 1)
        return self.body(patches).reshape(len(x), 2, -1).mean(1)


@case("Attention within an image", "honest")
class ImageAttention(Base):
    def body(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(tokens, tokens, tokens).mean(1)


@case("softmax inside the network", "honest")
class InnerSoftmax(Base):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return logits * F.softmax(logits, 1)


@case("The logarithm of softmax", "honest")
class LogSoftmax(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.body(x), 1).log()


@case("Large logits", "honest")
class LargeLogits(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * 1e6


@case("A network in float64, and one that computes in float32 and rounds", "honest")
class Rounding(Base):
    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x.float()) * 64).round()


@case("Weights that are rounded in the forward pass", "honest")
class RoundedWeights(Base):
    def body(self, x: Tensor) -> Tensor:
        weight = (self.conv.weight * 16).round() / 16
        return self.norm(F.conv2d(x, weight, self.conv.bias, 2)).relu().mean((2, 3))


@case("A statistic of each image", "honest")
class OwnStatistics(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body((x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True)))


@case("BatchNorm behind a ReLU that is dead for some channels", "honest")
class DeadChannels(Base):
    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.conv.bias.fill_(-100)

    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).relu()).mean((2, 3))


@case("Logs of calls: texts, lists, sets, times", "honest")
class Logs(Base):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.shapes, self.times = "", set[tuple[int, ...]](), list[float]()

    def forward(self, x: Tensor) -> Tensor:
        begin = time.perf_counter()
        self.text += "."
        self.shapes.add(tuple(x.shape))
        logits = self.body(x)
        self.times.append(time.perf_counter() - begin)
        return logits


@case("Checks of values, such as `isfinite`", "honest")
class Checked(Base):
    def forward(self, x: Tensor) -> Tensor:
        assert torch.isfinite(x).all(), "not finite"
        logits = self.body(x)
        if torch.isnan(logits).any():
            print("not a number")
        return logits


@case("Parameters that go through Python as numbers", "honest", 11)
class ThroughPython(Base):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.randn(10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * self.scale.item() + torch.tensor(self.shift.tolist())


@case("Many blocks with a dropout rate each", "honest", 320)
class ManyRates(Base):
    def __init__(self) -> None:
        super().__init__()
        rates = [0.005 * i for i in range(32)]
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Dropout(p), Bias()) for p in rates))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.body(x))  # type: ignore[no-any-return]


class Bias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


@case("A kernel that depends on the image, by groups of a convolution", "honest")
class DynamicKernel(Base):
    def forward(self, x: Tensor) -> Tensor:
        kernel = x.mean((1, 2, 3)).view(-1, 1, 1, 1).expand(-1, 1, 3, 3)
        own = F.conv2d(x.transpose(0, 1), kernel, groups=len(x), padding=1)
        return self.body(x + own.transpose(0, 1))


@case("A log of numbers beside a position encoding", "honest")
class LogAndPositions(Base):
    def __init__(self) -> None:
        super().__init__()
        self.means = list[float]()

    def forward(self, x: Tensor) -> Tensor:
        encoding = torch.zeros(12, 12)
        for row, column in itertools.product(range(12), range(12)):
            encoding[row, column] = math.sin(row / 10000 ** (column / 12))
        logits = self.body(x + encoding)
        self.means.append(logits.mean().item())
        return logits
