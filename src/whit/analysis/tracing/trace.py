"""What happened in one forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from whit.analysis.receptive_field import ReceptiveField
from whit.analysis.sources.executed_code import CodeLine
from whit.analysis.tracing.memory_layout import Layout
from whit.analysis.tracing.stored_tensors import storage_key

# Names a call in every pass, for layers such as dropout that leave no operation in inference:
# (module path, its number of earlier calls, function name, its number of earlier calls there).
CallSite = tuple[str, int, str, int]

# Of one operation: its name, and the shapes of its results. Two passes with equal signatures
# executed the same operations, so that a number means the same operation in both.
Signature = tuple[str, tuple[tuple[int, ...], ...]]


@dataclass
class ModuleCall:
    """One call of a module."""

    index: int
    path: str  # "" for the model itself
    site: CallSite
    leaf: bool  # has no submodules: its operations are one row
    builtin: bool  # a module of torch itself
    order: int  # among all calls and operations
    open_functions: int  # number of function calls open when it began
    parent: int | None
    shape: tuple[int, ...] | None = None
    field: ReceptiveField | None = None
    returns_input: bool = False  # the result is the argument itself
    returned: bool = False  # without an exception


@dataclass
class FunctionCall:
    """One call of a torch function from Python, such as `F.dropout` or `x + y`."""

    index: int
    name: str
    site: CallSite
    module_call: int | None
    order: int
    parent: int | None
    shape: tuple[int, ...] | None = None
    field: ReceptiveField | None = None


@dataclass
class Op:
    """One aten operation. Storages are given by key, stored numbers by registry entry."""

    name: str
    kind: str | None
    order: int
    shape: tuple[int, ...]
    uses_image: bool
    reads: frozenset[int]  # storages
    writes: frozenset[int]
    overwrites: frozenset[int] = frozenset()  # storages written in full
    entries: frozenset[int] = frozenset()  # stored numbers it reads itself
    statistics: frozenset[int] = frozenset()  # of these, BatchNorm's running statistics
    updates: frozenset[int] = frozenset()  # running statistics that it updates
    claims: frozenset[int] = frozenset()  # stored numbers behind its operands
    macs: int = 0  # for the full batch
    macs_of_one: int | None = None  # for one image, where the batch does not tell
    over_batch: bool = False  # a mean, sum or variance over all images of the batch
    pairs: bool = False  # a product of two operands that both depend on the image
    field: ReceptiveField | None = None
    module_call: int | None = None
    function_call: int | None = None
    stochastic: bool = False  # takes random numbers
    number: int = 0  # among all aten operations, from 1
    inconclusive: bool = False  # a random mask that happened to have no zero
    live: bool = True
    numbers: tuple[float, ...] = ()  # Python numbers that it takes as values
    num_parts: int = 0  # numbers that it takes out of stored ones by type, bits or digits
    line: CodeLine | None = None  # of the model's code, where `numbers` come from


@dataclass
class StorageInfo:
    """What is known of one storage."""

    tensor: Tensor  # kept, so that its address is not used again
    layout: Layout | None  # None: does not depend on the image
    claims: frozenset[int] = frozenset()
    stochastic: bool = False
    unwritten: bool = False  # allocated, and written by no operation so far


@dataclass
class Trace:
    """What happened in one forward pass."""

    ops: list[Op] = dataclasses.field(default_factory=list)
    module_calls: list[ModuleCall] = dataclasses.field(default_factory=list)
    function_calls: list[FunctionCall] = dataclasses.field(default_factory=list)
    notes: dict[str, None] = dataclasses.field(default_factory=dict)  # ordered, each once
    failure: BaseException | None = None
    failed_step: str = "the forward pass fails"
    output: Any = None
    output_field: ReceptiveField | None = None
    constants: dict[int, Tensor] = dataclasses.field(default_factory=dict)  # by registry entry
    macs_unknown: bool = False  # of some operation
    unseen: dict[str, None] = dataclasses.field(default_factory=dict)  # why it was not seen whole
    signature: list[Signature] = dataclasses.field(default_factory=list)  # of numbered operations
    # values of the image that Python reads: numbers of operations, and of calls of `tolist` etc.
    scalar_reads: list[int] = dataclasses.field(default_factory=list)
    array_reads: list[int] = dataclasses.field(default_factory=list)
    read_entries: set[int] = dataclasses.field(default_factory=set)  # stored numbers it reads
    left_entries: set[int] = dataclasses.field(default_factory=set)  # of these, by `tolist` etc.

    def call_sites(self, op: Op) -> set[CallSite]:
        """Return the sites of the module call and the function call that `op` belongs to."""
        modules = [] if op.module_call is None else [self.module_calls[op.module_call].site]
        functions = [] if op.function_call is None else [self.function_calls[op.function_call].site]
        return {*modules, *functions}

    def mark_live(self, outputs: Iterable[Tensor]) -> None:
        """Mark the operations that the outputs depend on, walking backwards."""
        needed = {storage_key(tensor) for tensor in outputs}
        for op in reversed(self.ops):
            op.live = bool(op.writes & needed)
            if op.live:
                needed = (needed - op.overwrites) | op.reads
