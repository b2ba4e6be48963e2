"""Values of the image that Python reads: a log leaves the network known, a branch does not.

Run: pytest tests/analysis/test_read_values.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cheats import IMAGE, Base
from torch import Tensor, nn

from whit.analysis import Audit, audit_model


class Reading(Base):
    """Calls `read` on the logits; the layer `hidden` is there for images that it chooses."""

    def __init__(self, read: Callable[[Reading, Tensor], Tensor]) -> None:
        super().__init__()
        self.read, self.kept, self.hidden = read, list[Any](), nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(self.read(self, self.body(x))) - self.hidden.bias


def audit(read: Callable[[Reading, Tensor], Tensor]) -> Audit:
    return audit_model(Reading(read), IMAGE, 10)


def keep_item(model: Reading, logits: Tensor) -> Tensor:
    model.kept.append(logits.mean().item())
    return logits


def keep_histogram(model: Reading, logits: Tensor) -> Tensor:
    model.kept.append(np.histogram(logits.numpy(), 5)[0])
    return logits


def keep_in_training(model: Reading, logits: Tensor) -> Tensor:
    if model.training:
        model.kept.append(float(logits.abs().mean()))
    return logits


def assert_finite(model: Reading, logits: Tensor) -> Tensor:
    assert torch.isfinite(logits).all()
    return logits


def raise_if_nan(model: Reading, logits: Tensor) -> Tensor:
    if torch.isnan(logits).any():
        raise ValueError("not a number")
    return logits


def print_large(model: Reading, logits: Tensor) -> Tensor:
    if logits.abs().max() > 100:
        print("large")
    return logits


def one_hot(model: Reading, logits: Tensor) -> Tensor:
    return logits + F.one_hot(logits.argmax(1), 10)  # checks its argument in Python


@pytest.mark.parametrize(
    "read",
    [
        keep_item,
        keep_histogram,
        keep_in_training,
        assert_finite,
        raise_if_nan,
        print_large,
        one_hot,
    ],
)
def test_what_has_no_effect(read: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = audit(read)
    assert found.kinds_known
    assert not any("goes through Python" in note for note in found.notes)
    assert found.unverified == ()
    assert capsys.readouterr().out == ""


def branch(model: Reading, logits: Tensor) -> Tensor:
    rows = [model.hidden(row) if row.mean().item() > 50 else row for row in logits]
    return torch.stack(rows)


def branch_behind_a_check(model: Reading, logits: Tensor) -> Tensor:
    assert torch.isfinite(logits).all()
    return torch.stack([model.hidden(row) if (row > 50).any() else row for row in logits])


def branch_by_numpy(model: Reading, logits: Tensor) -> Tensor:
    return torch.stack([model.hidden(r) if r.numpy().mean() > 50 else r for r in logits])


def branch_by_list(model: Reading, logits: Tensor) -> Tensor:
    return torch.stack([model.hidden(r) if max(r.tolist()) > 50 else r for r in logits])


def chosen_rows(model: Reading, logits: Tensor) -> Tensor:
    rows = (logits.mean(1) > 50).nonzero().flatten()
    if len(rows):
        logits = logits.index_copy(0, rows, model.hidden(logits[rows]))
    return logits


def masked_rows(model: Reading, logits: Tensor) -> Tensor:
    chosen = logits[logits.mean(1) > 50]
    return logits + model.hidden(chosen).sum() if chosen.numel() else logits


def scaled(model: Reading, logits: Tensor) -> Tensor:
    return torch.stack([row * row.mean().item() for row in logits])


@pytest.mark.parametrize(
    "read",
    [
        *(branch, branch_behind_a_check, branch_by_numpy, branch_by_list),
        *(chosen_rows, masked_rows, scaled),
    ],
)
def test_what_has_an_effect_is_unknown(read: Any) -> None:
    found = audit(read)
    assert not found.kinds_known
    assert any("the table holds for one random image" in note for note in found.notes)
