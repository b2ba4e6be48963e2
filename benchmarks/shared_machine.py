"""How much longer a training takes when the machine does something else, as ratios.

    python benchmarks/shared_machine.py

Whole commands, their start included, with the default number of threads unless said otherwise:

- beside one program per core that never pauses: the default against `--threads 1` beside the same;
- the same, where the other programs start while it trains;
- `whit audit` of a run beside the same programs: the default against OMP_NUM_THREADS=1;
- two trainings started at once, until both are done, against one alone.

Run it on a machine that does nothing else. Writes SHARED_MACHINE.md beside itself. What the default
costs on an idle machine is measured by `compare_versions.py speed` against an earlier commit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import torch

from whit.system.processor.cores import count_cores
from whit.system.processor.load import LoadMeter

HERE = Path(__file__).parent


@contextmanager
def busy_programs(number: int) -> Iterator[None]:
    """Keep `number` programs running that compute without a pause."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


class Training:
    """One `whit train` into a folder that is thrown away."""

    def __init__(self, stack: ExitStack, recipe: str, epochs: int, *options: str):
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        command = [sys.executable, "-m", "whit", "train", recipe, "--out", str(self.folder)]
        command += ["--set", f"train.epochs={epochs}", "--quiet", *options]
        self.started = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def seconds(self) -> float:
        """Wait for the end. The exit code 1, a missed budget, is a result too."""
        if self.process.wait() not in (0, 1):
            sys.exit(f"the training failed with exit code {self.process.returncode}")
        return time.perf_counter() - self.started


def beside_busy(recipe: str, epochs: int, *options: str) -> float:
    with ExitStack() as stack, busy_programs(count_cores()):
        time.sleep(0.5)  # so that they are there before the training starts
        return Training(stack, recipe, epochs, *options).seconds()


def busy_later(recipe: str, epochs: int, *options: str) -> float:
    with ExitStack() as stack:
        training = Training(stack, recipe, epochs, *options)
        while not training.folder.exists() and training.process.poll() is None:
            time.sleep(0.01)
        with busy_programs(count_cores()):
            return training.seconds()


def audit(run: Path, **environment: str) -> float:
    with busy_programs(count_cores()):
        time.sleep(0.5)
        started = time.perf_counter()
        command = [sys.executable, "-m", "whit", "audit", str(run), "--json"]
        done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
        if done.returncode not in (0, 1):
            sys.exit(f"the audit failed with exit code {done.returncode}")
        return time.perf_counter() - started


def alone(recipe: str, epochs: int) -> float:
    with ExitStack() as stack:
        return Training(stack, recipe, epochs).seconds()


def two_at_once(recipe: str, epochs: int) -> float:
    with ExitStack() as stack:
        return max([training.seconds() for training in [
            Training(stack, recipe, epochs), Training(stack, recipe, epochs)
        ]])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="sprint")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=["busy", "later", "audit", "two"])
    given = parser.parse_args()
    with ExitStack() as stack:
        measure(given, stack)


def measure(given: argparse.Namespace, stack: ExitStack) -> None:
    """Measure the pairs and print the table; write it if nothing was left out."""
    task = (given.recipe, given.epochs)
    used = LoadMeter().read()
    audited = Training(stack, given.recipe, 1)
    audited.seconds()
    pairs: dict[str, tuple[str, Callable[[], float], Callable[[], float]]] = {
        "busy": (
            "beside one busy program per core: default / `--threads 1`",
            lambda: beside_busy(*task),
            lambda: beside_busy(*task, "--threads", "1"),
        ),
        "later": (
            "busy programs that start during training: default / `--threads 1`",
            lambda: busy_later(*task),
            lambda: busy_later(*task, "--threads", "1"),
        ),
        "audit": (
            "`whit audit` beside one busy program per core: default / `OMP_NUM_THREADS=1`",
            lambda: audit(audited.folder),
            lambda: audit(audited.folder, OMP_NUM_THREADS="1"),
        ),
        "two": (
            "two trainings at once, until both are done / one alone",
            lambda: two_at_once(*task),
            lambda: alone(*task),
        ),
    }
    lines = [
        "# Training on a shared machine",
        "",
        f"Command: `python benchmarks/shared_machine.py --recipe {given.recipe} --epochs "
        f"{given.epochs} --pairs {given.pairs}`. Medians of the pairs, measured in turn.",
        "",
        "| what is compared | s | s | ratio | ratios |",
        "|---|---|---|---|---|",
    ]
    for key, (name, first, second) in pairs.items():
        if given.only not in (None, key):
            continue
        times = [(first(), second()) for _ in range(given.pairs)]
        ratios = [one / other for one, other in times]
        one, other = (median(column) for column in zip(*times, strict=True))
        row = f"| {name} | {one:.1f} | {other:.1f} | {median(ratios):.2f} "
        lines.append(row + f"| {', '.join(f'{ratio:.2f}' for ratio in ratios)} |")
        print(lines[-1], flush=True)
    capabilities = torch.cpu.get_capabilities()
    lines += [
        "",
        f"Machine: {capabilities.get('cpu_name')}, {count_cores()} cores, of which other programs "
        f"used {used:.1f} at the start; torch {torch.__version__}.",
    ]
    if given.only is None:
        (HERE / "SHARED_MACHINE.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
