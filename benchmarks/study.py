"""Throughput of `whit study` against the same seeds one after another.

    python benchmarks/study.py

Each time is that of whole commands, their start included, on the same recipe and seeds:

- `whit train --seed N`, one command per seed, each on all cores: what a user types without a study;
- `whit study --jobs 1`, on all cores: the same order in one process, which starts once and keeps
  its data as the parallel study does, so that only the use of the cores differs;
- `whit study` with one process per core, each on one thread.

Run it on an idle machine. Writes STUDY.md beside itself.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from whit.recipes.recipe import load_recipe

HERE = Path(__file__).parent


def whit(bytecode: str, *arguments: str) -> None:
    """Run a command; Python's bytecode is kept in the folder `bytecode`, as an installation has it.

    Without it every process would compile whit again where its files lie in a checkout that Python
    does not write to.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "whit", *arguments, "--quiet"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def time_commands(bytecode: str, commands: list[list[str]]) -> float:
    """Return the seconds of commands one after another; their runs are thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        for index, arguments in enumerate(commands):
            whit(bytecode, *arguments, "--out", f"{folder}/{index}")
        return time.perf_counter() - started


def study(recipe: str, seeds: int, jobs: int, threads: int) -> list[str]:
    command = ["study", recipe, "--seeds", str(seeds)]
    return [*command, "--jobs", str(jobs), "--threads", str(threads)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=["sprint"])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    cores = os.cpu_count() or 1
    lines = [
        "# Throughput of a study",
        "",
        "Command: `python benchmarks/study.py`. Whole commands, their start included; medians of "
        f"{given.repeats} rounds, each with all three kinds in turn.",
        "",
        f"- A: `whit train --seed N`, a command for each seed, one after another, {cores} threads.",
        f"- B: `whit study --jobs 1 --threads {cores}`: one after another in one process.",
        f"- C: `whit study --jobs {cores} --threads 1`: in parallel.",
        "",
        "B starts once and keeps its data, as C does: A / C is what a study gives to a user who "
        "trained seed by seed before, B / C what parallel runs give over threads within a run.",
        "",
        "| recipe | seeds x epochs | A, s | B, s | C, s | A / C | B / C | A / C of each round "
        "| B / C of each round |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for recipe in given.recipes:
        with tempfile.TemporaryDirectory() as folder:
            short, bytecode = str(Path(folder) / "short.toml"), f"{folder}/bytecode"
            changes = [f"train.epochs={given.epochs}", "budget.accuracy='>= 1'"]
            Path(short).write_text(load_recipe(recipe).with_overrides(changes).to_toml())
            threads = ["--threads", str(cores)]
            kinds = [
                [["train", short, "--seed", f"{seed}", *threads] for seed in range(given.seeds)],
                [study(short, given.seeds, 1, cores)],
                [study(short, given.seeds, cores, 1)],
            ]
            for kind in kinds:  # writes the bytecode, and reads files into the system's cache
                time_commands(bytecode, kind[:1])
            rounds = [
                [time_commands(bytecode, kind) for kind in kinds] for _ in range(given.repeats)
            ]
        ratios = [
            [alone / parallel for alone, _, parallel in rounds],
            [after / parallel for _, after, parallel in rounds],
        ]
        cells = [f"{median(column):.1f}" for column in zip(*rounds, strict=True)]
        cells += [f"{median(each):.2f}" for each in ratios]
        cells += [", ".join(f"{ratio:.2f}" for ratio in each) for each in ratios]
        lines.append(f"| {recipe} | {given.seeds} x {given.epochs} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    processor = torch.cpu.get_capabilities().get("cpu_name", "unknown")
    lines += ["", f"Machine: {processor}, {cores} cores, torch {torch.__version__}.", ""]
    (HERE / "STUDY.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
