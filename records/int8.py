"""The int8 form of a run: exported as C, counted on the test images, and run on a microcontroller.

Quantized with training images only. The microcontroller is emulated, with the board of the tests;
it needs: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from evidence import INT8, BoardCost, Evidence, Int8Row, read_int8, weights_sha256

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from export.device.board import CC, HAS_TOOLS, QEMU, Measured, measure
from whit.export.c.compile import c_logits
from whit.export.c.source import c_files
from whit.export.ir.build import build_graph
from whit.export.ir.graph import Graph
from whit.export.ir.interpreter import run_logits
from whit.export.program import Program
from whit.export.quantization.quantize import quantize
from whit.export.quantization.reference import int8_logits
from whit.runs.reader import RunRecord
from whit.system.atomic_files import atomic_write
from whit.verification.restore import LoadedRun, load_run_model

PROCESSOR, IMAGES = "Cortex-M4", 100


def load_int8(run: RunRecord) -> tuple[LoadedRun, Graph, Program]:
    """Return a run with its weights, its graph and its int8 program."""
    trained = load_run_model(run)
    graph = build_graph(trained)
    return trained, graph, quantize(graph, trained.dataset.train.images).program


def count_correct(program: Program, trained: LoadedRun) -> int:
    """Return the number of test images that the compiled code classifies correctly."""
    files = c_files(program, ".")
    predictions = c_logits(program, files, trained.split.images, ("-O3", "-march=native")).argmax(1)
    return int((predictions == trained.split.labels).sum())


def run_on_board(
    board: str, program: Program, graph: Graph, trained: LoadedRun, count: int
) -> Measured:
    """Run a program on a board and compare every prediction with this machine's."""
    images = trained.split.images[:count]
    with tempfile.TemporaryDirectory(prefix="whit-") as folder:
        found = measure(board, c_files(program, "."), program.int8, images, Path(folder))
    if program.int8:
        assert np.array_equal(found.logits, int8_logits(program, images))
    else:
        assert found.labels == run_logits(graph, images).argmax(1).tolist()
    return found


def tool_versions() -> str:
    """Return the versions of the ARM compiler and the emulator."""
    commands = ([CC, "--version"], [QEMU, "--version"])
    printed = (subprocess.run(c, capture_output=True, text=True, check=True) for c in commands)
    return "; ".join(done.stdout.splitlines()[0] for done in printed)


def require_tools() -> None:
    """Leave with a message where a claim needs a microcontroller and this machine emulates none."""
    if not HAS_TOOLS:
        packages = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
        raise SystemExit(
            f"instructions are counted on an emulated {PROCESSOR}: {CC} and {QEMU} are needed "
            f"(apt-get install {packages})."
        )


def measure_run(run: RunRecord, on_board: bool) -> Int8Row:
    """Return what the int8 form of a run has correct on the test split, and what it costs."""
    trained, graph, program = load_int8(run)
    sha256, seed, board = weights_sha256(run), run.seed or 0, None
    correct, size = count_correct(program, trained), program.constant_bytes
    if on_board:
        found = run_on_board(PROCESSOR, program, graph, trained, IMAGES)
        board = BoardCost(PROCESSOR, IMAGES, found.instructions, found.max_instructions,
                          found.flash, found.ram, found.stack, tool_versions())  # fmt: skip
    return Int8Row(run.recipe.name, seed, sha256, correct, size, board)


def measure_missing(
    folder: Path, evidence: list[Evidence], on_board: bool, again: bool = False
) -> Iterator[Int8Row]:
    """Write int8.jsonl of the runs in a folder, and yield each row that is new or has changed.

    Rows that exist are kept, unless `again`: the export may have changed since.
    """
    known, rows = read_int8(folder), {}
    for run in (run for one in evidence for run in one.runs):
        sha256 = weights_sha256(run)
        row = known.get(sha256)
        if row is None or again or (on_board and row.board is None):
            print(f"{folder.name}, seed {run.seed}: measuring in int8", file=sys.stderr)
            row = measure_run(run, on_board)
        rows[sha256] = row
        # What was measured so far is kept if this is interrupted.
        text = "".join(json.dumps(asdict(one)) + "\n" for one in {**known, **rows}.values())
        atomic_write(folder / INT8, text.encode())
        if row != known.get(sha256):
            yield row
    text = "".join(json.dumps(asdict(one)) + "\n" for one in rows.values())
    atomic_write(folder / INT8, text.encode())


def differences(recorded: Int8Row, run: RunRecord) -> list[str]:
    """Measure a run again and return what differs from its row.

    What was counted on the board is compared where the same tools are installed; where not, this is
    said on standard error.
    """
    board = recorded.board
    on_board = board is not None and HAS_TOOLS and tool_versions() == board.tools
    if board and not on_board:
        print(f"instructions and memory are not compared: {board.tools} is needed", file=sys.stderr)
    found = measure_run(run, on_board)
    if not on_board:
        found = replace(found, board=board)
    old, new = _flat(recorded), _flat(found)
    return [f"in int8, {key} is {new[key]}, not {old[key]}" for key in old if new[key] != old[key]]


def _flat(row: Int8Row) -> dict[str, object]:
    columns = asdict(row)
    return columns | (columns.pop("board") or {})
