"""The audit as a value: numbers for programs, a table for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from whit.analysis import table
from whit.analysis.rows import (
    Extent,
    Layer,
    as_json,
)


@dataclass(frozen=True)
class ParamCounts:
    """Stored numbers. `total` is what a budget counts: trainable + frozen + buffers."""

    total: int
    trainable: int
    frozen: int
    buffers: int  # buffers and constants that inference reads, without running statistics
    unused: int  # of the registered parameters, those that never reach the output

    def to_json(self) -> dict[str, int]:
        return {
            "total": self.total,
            "trainable": self.trainable,
            "frozen": self.frozen,
            "buffers": self.buffers,
            "unused": self.unused,
        }


@dataclass(frozen=True)
class Audit:
    """What one model stores, computes and sees. Prints as a table."""

    params: ParamCounts
    macs: int | None  # multiply-adds for one image; None: could not be known
    receptive_field: Extent  # input pixels, the output's
    layers: tuple[Layer, ...]
    kinds: frozenset[str]  # what is truly there, from KINDS
    notes: tuple[str, ...]
    output_shape: tuple[int, ...] | None  # without the batch
    output_problem: str | None  # why the output cannot be trained on, if it cannot
    name: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return DESIGN.md's keys; verdict and violations are the budget's to add."""
        return {
            "params": self.params.to_json(),
            "macs": self.macs,
            "receptive_field": as_json(self.receptive_field),
            "layers": [layer.to_json() for layer in self.layers],
        }

    def table(self, width: int = 100) -> str:
        """Return the table as text of at most `width` columns."""
        return table.plain_text(self, width)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return table.html(self)
