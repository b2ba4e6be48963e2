"""A number of calls is found wherever Python keeps it; what is only logged is none.

Run: pytest tests/analysis/test_call_state.py
"""

from __future__ import annotations

import collections
import contextvars
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cheats
import pytest
import torch
from cheats import IMAGE, Base
from torch import Tensor

from whit.analysis import audit_model

LATE = 1000  # calls after which the counters have an effect


class Slots:
    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class Pair(NamedTuple):
    number: int
    text: str


@dataclasses.dataclass(frozen=True)
class Frozen:
    number: int = 0


CALLS: contextvars.ContextVar[int] = contextvars.ContextVar("CALLS", default=0)


def in_list() -> Callable[[], int]:
    kept: list[None] = []

    def count() -> int:
        kept.append(None)
        return len(kept)

    return count


def in_set() -> Callable[[], int]:
    kept = set[int]()

    def count() -> int:
        kept.add(len(kept))
        return len(kept)

    return count


def in_dict() -> Callable[[], int]:
    kept = collections.Counter[str]()

    def count() -> int:
        kept["calls"] += 1
        return kept["calls"]

    return count


def in_bytes() -> Callable[[], int]:
    kept = {"calls": b""}

    def count() -> int:
        kept["calls"] += b"."
        return len(kept["calls"])

    return count


def in_slots() -> Callable[[], int]:
    kept = Slots()

    def count() -> int:
        kept.number += 1
        return kept.number

    return count


def in_tuple() -> Callable[[], int]:
    kept = [Pair(0, "a")]

    def count() -> int:
        kept[0] = Pair(kept[0].number + 1, "a")
        return kept[0].number

    return count


def in_frozen() -> Callable[[], int]:
    kept = [Frozen()]

    def count() -> int:
        kept[0] = Frozen(kept[0].number + 1)
        return kept[0].number

    return count


def in_closure() -> Callable[[], int]:
    calls = 0

    def count() -> int:
        nonlocal calls
        calls += 1
        return calls

    return count


def in_generator() -> Callable[[], int]:
    def numbers() -> Iterator[int]:
        calls = 0
        while True:
            calls += 1
            yield calls

    kept = numbers()
    return lambda: next(kept)


def in_context() -> Callable[[], int]:
    def count() -> int:
        CALLS.set(CALLS.get() + 1)
        return CALLS.get()

    return count


def in_environment() -> Callable[[], int]:
    def count() -> int:
        os.environ["WHIT_TEST_CALLS"] = str(int(os.environ.get("WHIT_TEST_CALLS", "0")) + 1)
        return int(os.environ["WHIT_TEST_CALLS"])

    return count


COUNTERS = [
    *(in_list, in_set, in_dict, in_bytes, in_slots, in_tuple, in_frozen, in_closure),
    *(in_generator, in_context, in_environment),
]


class Counting(Base):
    """`reads`: whether the output depends on the number of calls."""

    def __init__(self, count: Callable[[], int], reads: bool) -> None:
        super().__init__()
        self.count, self.reads = count, reads

    def forward(self, x: Tensor) -> Tensor:
        calls = self.count()
        return self.body(x) + (1.0 if self.reads and calls > LATE else 0.0)


@pytest.mark.parametrize("make", COUNTERS)
def test_a_counter_that_has_an_effect_late(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIT_TEST_CALLS", "0")
    dependence = audit_model(Counting(make(), reads=True), IMAGE, 10).batch_dependence
    assert dependence is not None
    assert "on the number of calls" in dependence


@pytest.mark.parametrize("make", COUNTERS)
def test_a_counter_that_has_none(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIT_TEST_CALLS", "0")
    assert audit_model(Counting(make(), reads=False), IMAGE, 10).batch_dependence is None


class Experts(Base):
    """Each image goes to one of two layers: batches of other sizes round in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = torch.nn.ModuleList(torch.nn.Linear(10, 10) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        chosen = (x.mean((1, 2, 3)) > 0).long()
        result = torch.zeros_like(logits)
        for i, expert in enumerate(self.experts):
            rows = (chosen == i).nonzero().flatten()
            if len(rows):
                result[rows] = expert(logits[rows])
        return result


def test_rounding_of_images_that_go_other_ways_is_no_dependence() -> None:
    found = audit_model(Experts(), IMAGE, 10)
    assert found.batch_dependence is None
    assert not found.kinds_known  # which layers an image takes depends on it
    assert any("nonzero picks depends on the image" in note for note in found.notes)


def test_a_small_dependence_between_such_images_is_one() -> None:
    class Mixing(Experts):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return logits - 1e-4 * logits.mean(0)

    assert audit_model(Mixing(), IMAGE, 10).batch_dependence is not None


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("BatchAsTime", "a recurrent layer that takes the batch for time steps"),
        ("CumulativeSum", "cumsum"),
        ("ViewedWrong", "in forward"),
    ],
)
def test_causes_that_rearrange_or_run_along_the_batch(name: str, cause: str) -> None:
    dependence = audit_model(getattr(cheats, name)(), IMAGE, 10).batch_dependence or ""
    assert cause in dependence
    assert "cheats.py, line" in dependence
