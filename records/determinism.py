"""Measure what is equal to the byte and what only in distribution.

For docs/explanation/determinism.md.

    python records/determinism.py

The flagship recipe in two epochs, five seeds, judged on 10,000 images held out from the training
images (the test split is not read): on two threads, on two again, on two but stopped and resumed,
on one thread, and in bf16. Each run is its own process.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from whit.runs.environment import describe_environment
from whit.training.optimization.objective import has_bf16

HERE = Path(__file__).parent / "determinism"
SEEDS = range(5)
RECIPE = ["sprint", "--set", "data.val_size=10000", "--set", "eval.each_epoch=val"]
RECIPE += ["--set", "train.epochs=2", "--set", "eval.test=false", "--quiet"]


@dataclass(frozen=True)
class Way:
    """One way to train the same recipe."""

    name: str
    arguments: tuple[str, ...]
    is_stopped: bool = False  # by SIGINT in the middle, and resumed


WAYS = (
    Way("2 threads, fp32", ("--threads", "2", "--set", "train.precision=fp32")),
    Way("the same again", ("--threads", "2", "--set", "train.precision=fp32")),
    Way(
        "the same, stopped and resumed",
        ("--threads", "2", "--set", "train.precision=fp32"),
        is_stopped=True,
    ),
    Way("1 thread, fp32", ("--threads", "1", "--set", "train.precision=fp32")),
    Way("2 threads, bf16", ("--threads", "2", "--set", "train.precision=bf16")),
)


def train(way: Way, seed: int, folder: Path) -> dict[str, Any]:
    """Train one seed one way; return its weights' digest and what it got right on val."""
    whit = [sys.executable, "-m", "whit", "train"]
    out = folder / f"{WAYS.index(way)}-{seed}"
    command = [*whit, *RECIPE, *way.arguments, "--seed", str(seed), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        if way.is_stopped:
            while not (out / "log.jsonl").exists():
                time.sleep(0.1)
            time.sleep(1)  # into the second epoch
            process.send_signal(signal.SIGINT)
        code = process.wait()
    if way.is_stopped:
        if code != 130:
            raise SystemExit(f"{' '.join(command)}: exit {code}, not stopped")
        resume = [*whit, "--resume", str(out), "--quiet"]
        code = subprocess.run(resume, stdout=subprocess.DEVNULL, check=False).returncode
    if code:
        raise SystemExit(f"{' '.join(command)}: exit {code}")
    result = json.loads((out / "result.json").read_text())
    last = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    return {
        "way": way.name,
        "seed": seed,
        "weights_sha256": result["weights_sha256"],
        "optimizer_sha256": result["optimizer_sha256"],
        "correct": last["evaluations"][0]["correct"],
        "seconds": round(result["seconds"]["train"], 1),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the comparison of each way with the first, seed by seed."""
    first = [row for row in rows if row["way"] == WAYS[0].name]
    lines = [
        "| way | weights equal to the byte | correct of 10,000, a seed each | mean ± sd % "
        "| difference from the first, a seed each | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        mine = [row for row in rows if row["way"] == way.name]
        same = sum(
            a["weights_sha256"] == b["weights_sha256"]
            and a["optimizer_sha256"] == b["optimizer_sha256"]
            for a, b in zip(first, mine, strict=True)
        )
        correct = [row["correct"] for row in mine]
        gaps = [b["correct"] - a["correct"] for a, b in zip(first, mine, strict=True)]
        percent = [count / 100 for count in correct]
        lines.append(
            f"| {way.name} | {same} of {len(mine)} | {', '.join(map(str, correct))} "
            f"| {mean(percent):.3f} ± {stdev(percent):.3f} "
            f"| {', '.join(f'{gap:+d}' for gap in gaps)} "
            f"| {mean(row['seconds'] for row in mine):.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            for seed in SEEDS:
                rows.append(train(way, seed, Path(folder)))
                print(rows[-1], flush=True)
    (HERE / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    environment = describe_environment(torch.device("cpu"), 0, 2)
    bf16 = "in hardware" if has_bf16() else "emulated: this processor has none"
    machine = f"{environment['processor']}, {environment['cores']} cores"
    text = f"""# What is equal to the byte

Command: `python records/determinism.py`

The flagship recipe in two epochs, with 10,000 training images held out as `val`, five seeds.

{table(rows)}

Machine: {machine}, torch {environment["torch"]}, bf16 {bf16}.
"""
    (HERE / "README.md").write_text(re.sub(r" +\n", "\n", text))


if __name__ == "__main__":
    main()
