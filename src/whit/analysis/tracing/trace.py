"""What happened in one forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from whit.analysis.receptive_field import (
    Layout,
    Sight,
)
from whit.analysis.tracing.storage import storage_key


@dataclass
class Frame:
    """One call of a module."""

    index: int
    path: str  # "" for the model itself
    leaf: bool  # has no submodules: its operations are one row
    own: bool  # one of torch's own modules
    clock: int
    functions: int  # how many function calls were open when it began
    parent: int | None
    shape: tuple[int, ...] | None = None
    sight: Sight | None = None
    same: bool = False  # the result is the argument itself


@dataclass
class Function:
    """One call of a torch function from Python, such as `F.dropout` or `x + y`."""

    index: int
    name: str
    frame: int | None
    clock: int
    outer: int | None
    shape: tuple[int, ...] | None = None
    sight: Sight | None = None


@dataclass
class Op:
    """One aten operation."""

    name: str
    kind: str | None
    macs: int
    data: bool  # depends on the image
    reads: frozenset[int]  # storages
    writes: frozenset[int]
    erases: frozenset[int]  # storages overwritten in full
    entries: frozenset[int]  # stored numbers it reads itself
    statistics: frozenset[int]  # of these, those read as BatchNorm's running statistics
    updates: frozenset[int]  # running statistics that it moves
    claims: frozenset[int]  # stored numbers behind its operands
    frame: int | None
    function: int | None
    clock: int
    shape: tuple[int, ...]
    sight: Sight | None
    drawn: bool = False  # takes random numbers
    number: int = 0  # place in the order of all aten operations, from 1
    undecided: bool = False  # a random mask that happened to have no zero
    live: bool = True


@dataclass
class Memory:
    """What is known of one storage."""

    tensor: Tensor  # kept, so that its address is not used again
    layout: Layout | None  # None: does not depend on the image
    claims: frozenset[int] = frozenset()
    random: bool = False


@dataclass
class Trace:
    """What happened in one forward pass."""

    ops: list[Op] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)  # ordered, each once
    failure: BaseException | None = None
    output: Any = None
    sight_of_output: Sight | None = None
    foreign: dict[int, Tensor] = field(default_factory=dict)  # constants, by entry
    uncounted: bool = False  # some operation's multiply-adds are not known

    def mark_live(self, outputs: Iterable[Tensor]) -> None:
        """Mark the operations that the outputs depend on, walking backwards."""
        wanted = {storage_key(tensor) for tensor in outputs}
        for op in reversed(self.ops):
            op.live = bool(op.writes & wanted)
            if op.live:
                wanted = (wanted - op.erases) | op.reads
