"""What the run folders of a claim hold, and what its networks cost."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from whit.errors import InputError
from whit.experiments.statistics import SampleStats
from whit.recipes.recipe import load_recipe, recipe_id
from whit.runs import layout
from whit.runs.reader import RunRecord, read_run
from whit.training.plan import Plan, make_plan

INT8 = "int8.jsonl"  # beside the runs of a claim
FIRST_SEED = 1000  # tuning uses seeds below


@dataclass(frozen=True)
class BoardCost:
    """What one decision of an int8 network takes on an emulated microcontroller, over `images`.

    instructions: their mean; ram: static bytes; stack: bytes, with those of the test driver;
    tools: versions of compiler and emulator.
    """

    processor: str
    images: int
    instructions: float
    max_instructions: int
    flash: int
    ram: int
    stack: int
    tools: str


@dataclass(frozen=True)
class Int8Row:
    """The int8 form of a run's weights: correct test images of the compiled code, and its cost."""

    recipe: str
    seed: int
    weights_sha256: str
    correct: int
    constant_bytes: int
    board: BoardCost | None = None


def read_int8(folder: Path) -> dict[str, Int8Row]:
    """Return the int8 forms of the runs in a folder, by the digest of the weights."""
    file = folder / INT8
    rows = map(json.loads, file.read_text().splitlines()) if file.is_file() else ()
    found = [
        Int8Row(**{**row, "board": BoardCost(**row["board"]) if row["board"] else None})
        for row in rows
    ]
    return {row.weights_sha256: row for row in found}


@dataclass(frozen=True)
class Evidence:
    """The finished runs of one recipe of a claim, in the order of their seeds, and of those that
    were measured in int8 the rows.
    """

    recipe: str
    runs: tuple[RunRecord, ...]  # at least one
    int8: tuple[Int8Row, ...] = ()

    @cached_property
    def correct(self) -> tuple[int, ...]:
        """The correct test images of each seed after the last epoch, in float32."""
        return tuple(result(run)["test"]["correct"] for run in self.runs)

    @property
    def has_int8(self) -> bool:
        """Whether every run was measured in int8."""
        return len(self.int8) == len(self.runs)

    def cost(self, unit: str) -> float | None:
        """Return the cost in a unit of COSTS; None where it was not measured of every run."""
        return COSTS[unit](self)

    @property
    def seconds(self) -> float:
        """Mean of a whole training."""
        return fmean(result(run)["seconds"]["total"] for run in self.runs)

    @property
    def precision(self) -> str:
        """The precision of training, `fp32` or `bf16`."""
        return ", ".join(sorted({_precision(run) for run in self.runs}))

    @property
    def machine(self) -> str:
        """Processor, cores and threads of the runs."""
        kinds = {
            f"{e['processor']}, {e['cores']} cores, {e['threads']} thread"
            + ("s" if e["threads"] > 1 else "")
            for e in (run.environment for run in self.runs)
        }
        return "; ".join(sorted(kinds))


@cache
def plan_recipe(recipe: str) -> Plan:
    """Return the plan of a recipe: what its network costs."""
    return make_plan(load_recipe(recipe))


def _of_boards(figure: Callable[[BoardCost], float]) -> Callable[[Evidence], float | None]:
    """Return a cost: the largest of all seeds."""

    def cost(evidence: Evidence) -> float | None:
        boards = [row.board for row in evidence.int8 if row.board]
        return max(map(figure, boards)) if len(boards) == len(evidence.runs) else None

    return cost


def _constant_bytes(evidence: Evidence) -> float | None:
    return max(row.constant_bytes for row in evidence.int8) if evidence.has_int8 else None


# By unit. Those of the int8 networks differ by seed: the largest.
COSTS: dict[str, Callable[[Evidence], float | None]] = {
    "parameters": lambda evidence: plan_recipe(evidence.recipe).audit.params.total,
    "epochs": lambda evidence: float(plan_recipe(evidence.recipe).epochs),
    "forward passes": lambda evidence: plan_recipe(evidence.recipe).metrics.forward_passes,
    "seconds": lambda evidence: evidence.seconds,
    "bytes of constants": _constant_bytes,
    "instructions": _of_boards(lambda board: board.instructions),
    "bytes of RAM": _of_boards(lambda board: board.ram),
    "bytes of stack": _of_boards(lambda board: board.stack),
    "bytes of memory": _of_boards(lambda board: board.ram + board.stack),
}


def cost_text(cost: float, unit: str) -> str:
    """Return a cost, such as `1,761 parameters`; epochs may be a fraction."""
    if unit == "epochs":
        return f"{cost:g} {'epoch' if cost == 1 else unit}"
    return f"{cost:,.0f} {unit}"


def find_evidence(folder: Path, recipe: str) -> Evidence | None:
    """Return the finished runs of a recipe in a folder; None where there is none.

    They are those of the recipe as it is; where there is none, those of its name, whose recipe
    was written in an older schema.
    """
    if not folder.is_dir():  # nothing was trained; the recipe may not exist yet
        return None
    wanted, runs = load_recipe(recipe), []
    for path in layout.find_runs(sorted(p for p in folder.iterdir() if p.is_dir())):
        try:
            runs.append(read_run(path))
        except InputError as error:  # edited or damaged: said, and counted in nothing
            print(f"not counted: {error}", file=sys.stderr)
    runs = [run for run in runs if run.result and run.recipe.name == wanted.name]
    same = [run for run in runs if recipe_id(run.recipe) == recipe_id(wanted)]
    new = [run for run in same or runs if (run.seed or 0) >= FIRST_SEED]
    found = sorted(new or same or runs, key=lambda run: run.seed or 0)
    rows = read_int8(folder)
    int8 = [rows[sha256] for run in found if (sha256 := weights_sha256(run)) in rows]
    return Evidence(recipe, tuple(found), tuple(int8)) if found else None


def weights_sha256(run: RunRecord) -> str:
    """Return the digest of the weights of a finished run."""
    return str(result(run)["weights_sha256"])


def percentages(correct: tuple[int, ...]) -> SampleStats:
    """Return percent of 10,000 images, a seed each."""
    return SampleStats(tuple(count / 100 for count in correct))


def cut(value: float) -> str:
    """Return three decimals, never rounded up."""
    return f"{math.floor(1000 * value + 1e-6) / 1000:.3f}"


def result(run: RunRecord) -> dict[str, Any]:
    """Return the result of a finished run."""
    assert run.result is not None
    return run.result


def _precision(run: RunRecord) -> str:
    """Return what a run was trained in; `auto` took bf16 where the processor has it."""
    precision = run.recipe.train.precision
    if precision != "auto":
        return precision
    recorded = run.environment.get("precision")
    if recorded:
        return str(recorded)
    features = set(run.environment["processor_features"])
    return "bf16" if features & {"avx512_bf16", "amx_bf16"} else "fp32"
