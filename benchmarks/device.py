"""Exported int8 and float32 code on microcontrollers: accuracy, flash, RAM, instructions.

    python benchmarks/device.py [--images 1000] [--seed 0] [--record NAME ...] [--write]

Exports runs of all records with weights, compiles them with Debian's arm-none-eabi-gcc and runs
them on boards emulated by QEMU on the first test images; every prediction must be that of this
machine. The accuracy is that on all test images. With --write, the table is written to
docs/DEVICE.md; with --record, the rows of other records are kept.

Needs: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm
"""

from __future__ import annotations

import argparse
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("tests", "records")]

from int8 import count_correct, load_int8, run_on_board, tool_versions

from export.device.board import BOARDS
from whit.export.c.float_lowering import float_program
from whit.recipes.recipe import builtin_recipes
from whit.runs.reader import read_run
from whit.system.numbers import percent

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "DEVICE.md"
BEGIN, END = "<!-- made by benchmarks/device.py -->", "<!-- end -->"
HEAD = "| network | format | processor | flash | RAM | stack | instructions per image | test % |"
# Published results for this task on small processors: kilobytes and percent.
PUBLIC = ((9.3, "99.44"), (11.0, "99.55"), (3.2, "98.92"))


def list_runs(record: str) -> list[Path]:
    """The runs of a record that have weights, by seed."""
    found = (ROOT / "records" / record).glob("*/seed-*/weights.safetensors")
    return sorted((file.parent for file in found), key=lambda run: int(run.name[len("seed-") :]))


def table_row(record: str, index: int, count: int, board: str, int8: bool) -> str:
    run = list_runs(record)[index]
    trained, graph, quantized = load_int8(read_run(run))
    program = quantized if int8 else float_program(graph)
    # Without a floating-point unit, an image takes 15 times as many instructions.
    few = count if int8 or board != "Cortex-M3" else max(1, count // 10)
    found = run_on_board(board, program, graph, trained, few)
    print(f"{record}, {board}: {few} of {few} predictions equal", file=sys.stderr)
    return (
        f"| {record}, {run.name.replace('-', ' ')} | {'int8' if int8 else 'float32'} "
        f"| {board} | {found.flash:,} B | {found.ram:,} B | {found.stack:,} B "
        f"| {found.instructions / 1e6:.2f} million, of {few:,} images "
        f"| {percent(count_correct(program, trained), len(trained.split))} |"
    )


def int8_loss(record: str) -> str:
    """The int8 accuracy of all recorded seeds, and the loss against float32."""
    lost, correct, sizes = [], [], []
    for run in list_runs(record):
        trained, _, program = load_int8(read_run(run))
        correct.append(count_correct(program, trained))
        assert trained.run.result
        lost.append(trained.run.result["test"]["correct"] - correct[-1])
        sizes.append(program.constant_bytes)
        print(f"{record}, {run.name}: {lost[-1]:+d} images lost", file=sys.stderr)
    total = len(trained.split)
    points, reached = 100 / total, [100 * each / total for each in correct]
    return (
        f"With int8, the {len(lost)} recorded seeds of {record} lose "
        f"{', '.join(f'{each:+d}' for each in lost)} of {total:,} test images: "
        f"{points * mean(lost):+.3f} percentage points on average. Their int8 accuracy is "
        f"{mean(reached):.3f} ± {stdev(reached):.3f} %, at least {min(reached):.2f} %, with at "
        f"most {max(sizes):,} bytes of constants."
    )


def existing_results() -> tuple[dict[str, list[str]], dict[str, str]]:
    """The rows and the int8 sentence in the document, by record."""
    rows: dict[str, list[str]] = {}
    sentences = {}
    for line in DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0].splitlines():
        if row := re.match(r"\| (\S+), seed ", line):
            rows.setdefault(row[1], []).append(line)
        elif sentence := re.match(r"With int8, the \d+ recorded seeds of (\S+) lose", line):
            sentences[sentence[1]] = line
    return rows, sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="images run on each board")
    parser.add_argument("--seed", type=int, default=0, help="index of the seed in each record")
    records = [name for name in builtin_recipes() if list_runs(name)]
    parser.add_argument(
        "--record", choices=records, action="append", help="measure only this record"
    )
    parser.add_argument("--write", action="store_true", help="write the table to docs/DEVICE.md")
    given = parser.parse_args()
    measured = given.record or records
    public = [f"| published | | | {size} kB | | | | {reached} |" for size, reached in PUBLIC]
    command = f"python benchmarks/device.py --images {given.images} --seed {given.seed} --write"
    # Instructions are counted, not timed, so processes can run in parallel.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        rows = {
            name: [
                pool.submit(table_row, name, given.seed, given.images, board, int8)
                for int8 in (True, False)
                for board in BOARDS
            ]
            for name in measured
        }
        losses = {name: pool.submit(int8_loss, name) for name in measured}
    tables, sentences = existing_results()
    tables |= {name: [row.result() for row in found] for name, found in rows.items()}
    sentences |= {name: loss.result() for name, loss in losses.items()}
    lines = [
        f"Generated by `{command}`, or for single records with `--record`.",
        "",
        HEAD,
        f"|{'---|' * (HEAD.count('|') - 1)}",
        *(row for name in records for row in tables.get(name, ())),
        *public,
        "",
        *(part for name in records if name in sentences for part in (sentences[name], "")),
        f"{tool_versions()}.",
    ]
    text = "\n".join(lines)
    print(text)
    if given.write:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
