"""Throughput of `whit study` against the same seeds one after another, each on all cores.

    python benchmarks/study.py

Both train the same recipe with the same seeds; each time is that of whole commands, their start
included. One after another is `whit study --jobs 1 --threads <cores>`, which also starts only once.
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


def seconds(recipe: str, seeds: int, jobs: int, threads: int) -> float:
    """Time one study into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "whit", "study", recipe, "--seeds", str(seeds)]
        command += ["--jobs", str(jobs), "--threads", str(threads), "--out", folder, "--quiet"]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started


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
        f"{given.repeats} pairs, one kind after the other in turn.",
        "",
        f"| recipe | seeds x epochs | one after another, {cores} threads, s "
        f"| in parallel, {cores} x 1 thread, s | ratio | ratios |",
        "|---|---|---|---|---|---|",
    ]
    for recipe in given.recipes:
        with tempfile.TemporaryDirectory() as folder:
            short = Path(folder) / "short.toml"
            changes = [f"train.epochs={given.epochs}", "budget.accuracy='>= 1'"]
            short.write_text(load_recipe(recipe).with_overrides(changes).to_toml())
            pairs = [
                (
                    seconds(str(short), given.seeds, 1, cores),
                    seconds(str(short), given.seeds, cores, 1),
                )
                for _ in range(given.repeats)
            ]
        ratios = [after / beside for after, beside in pairs]
        after, beside = (median(column) for column in zip(*pairs, strict=True))
        lines.append(
            f"| {recipe} | {given.seeds} x {given.epochs} | {after:.1f} | {beside:.1f} "
            f"| {median(ratios):.2f} | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |"
        )
        print(lines[-1], flush=True)
    processor = torch.cpu.get_capabilities().get("cpu_name", "unknown")
    lines += ["", f"Machine: {processor}, {cores} cores, torch {torch.__version__}.", ""]
    (HERE / "STUDY.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
