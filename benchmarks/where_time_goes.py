"""Where the time of a training goes, from the start of its process to the end.

    python benchmarks/where_time_goes.py [RECIPE]       WHERE_TIME_GOES.md, about 3 minutes
    python benchmarks/where_time_goes.py --processor    processor seconds, on a machine that is busy
    python benchmarks/where_time_goes.py --quick        one epoch, no repeats, no file: to try it

Nothing else may run on the machine meanwhile, except with --processor, which is for one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from table import HERE, best_matmul, describe_machine, user_environment
from timed_command import PYTHON, REST, TRAINING, read_clocks
from whit.recipes.recipe import load_recipe
from whit.system.processor.cores import count_cores
from whit.training.optimization.objective import resolve_precision
from whit.training.plan import Plan, make_plan

IMPORTS = (
    "import gc; gc.disable(); import whit.cli.app, torch, whit.training.plan, "
    "whit.training.progress, whit.training.run"
)
NUM_IMPORTS = 12
# Products of matrices in a step, in units of the forward pass's. The images need no gradient, so
# the first convolution's backward pass is the product for its weights alone.
PRODUCTS = {
    "convolution, first, forward": 1,
    "convolution, first, backward": 1,
    "convolutions, others, forward": 1,
    "convolutions, others, backward": 2,
    "Linear, forward": 1,
    "Linear, backward": 2,
}


@dataclass
class Measured:
    """Seconds of a whole command and of its stages; seconds and events of its operations."""

    whole: float
    stages: dict[str, float]
    rows: dict[str, list[float]]


def measure(mode: str, threads: int, arguments: list[str], clock: int) -> Measured:
    """Run the command; `clock` 0 is that of the wall, 1 that of the processor."""
    env = user_environment()
    if threads == 1:  # for what is no training, too
        env["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds.json"
        command = [sys.executable, str(HERE / "timed_command.py"), str(file), mode, "train"]
        command += [*arguments, "--threads", str(threads), "--quiet"]
        before = read_clocks()
        child = subprocess.Popen(
            [*command, "--out", f"{folder}/run"], env=env, stdout=subprocess.DEVNULL
        )
        assert child.wait() in (0, 1), command
        after = read_clocks()
        read = json.loads(file.read_text())
    whole = after[clock] - before[clock]
    stages = {row: seconds[clock] for row, seconds in read["stages"].items()}
    begin = (before[0], 0.0)  # of the processor, the child's clock starts at zero
    stages["start of Python"] = read["started"][clock] - begin[clock]
    # Of the processor's time the command itself knows what it used until here.
    used = read["ended"][clock] - begin[clock]
    stages["writing of these numbers"] = used - sum(stages.values())
    stages["end of Python"] = whole - used
    return Measured(whole, stages, read["rows"])


def operations(profiled: Measured, seconds: float) -> dict[str, float]:
    """Return the rows of a training of `seconds`, from one that was slowed by the profiler.

    What the profiler costs is taken off in equal parts for each of its events.
    """
    rows = profiled.rows
    factor = profiled.stages[TRAINING] / sum(row[0] for row in rows.values())
    events = sum(row[1] for row in rows.values())
    cost = max(0.0, profiled.stages[TRAINING] - seconds) / events
    left = {name: max(0.0, own * factor - cost * count) for name, (own, count) in rows.items()}
    scale = seconds / sum(left.values())
    return {name: own * scale for name, own in left.items()}


def giga_products(plan: Plan) -> dict[str, float]:
    """Return the floating-point operations, in 1e9, of each row that multiplies matrices."""
    macs: Counter[str] = Counter()
    for layer in plan.audit.layers:
        if layer.macs:
            conv = "convolutions, others" if macs else "convolution, first"
            macs[conv if layer.kind == "conv" else "Linear"] += layer.macs
    train = {
        row: 2 * macs[row.rpartition(",")[0]] * count * plan.num_images / 1e9
        for row, count in PRODUCTS.items()
    }
    images = 10_000 if plan.recipe.eval.test else 0
    return {**train, "evaluation": 2 * (plan.metrics.macs or 0) * images / 1e9}


def import_rows() -> list[tuple[str, float]]:
    """Return the packages whose import takes longest, and the seconds of their own modules."""
    quickest: dict[str, int] = {}
    for _ in range(3):
        command = [sys.executable, "-X", "importtime", "-c", IMPORTS]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for line in done.stderr.splitlines():
            own, _, name = line.removeprefix("import time:").split("|")
            if own.strip().isdigit():
                name = name.strip()
                quickest[name] = min(int(own), quickest.get(name, int(own)))
    packages: Counter[str] = Counter()
    for name, microseconds in quickest.items():
        parts = name.split(".")
        packages[".".join(parts[: 2 if parts[0] == "torch" else 1])] += microseconds
    return [(name, total / 1e6) for name, total in packages.most_common(NUM_IMPORTS)]


def table(
    plan: Plan, one: dict[str, float], many: dict[str, float], whole: float, threads: int
) -> list[str]:
    """Return the rows, largest first inside training; they add up to `whole`."""
    precision = resolve_precision(plan.recipe.train.precision, "cpu")
    best = {"fp32": best_matmul(torch.float32)}
    best[precision] = best_matmul(torch.bfloat16 if precision == "bf16" else torch.float32)
    products = giga_products(plan)
    lines = [
        "| what | seconds | share of the whole | lost to waiting | GFLOP/s | of the best product |",
        "|---|---|---|---|---|---|",
    ]
    for name, seconds in many.items():
        # The second core gained nothing where both together take as long as one.
        lost = max(0.0, seconds - one[name] / threads) if name in one and threads > 1 else None
        reached = matrix = ""
        if products.get(name) and seconds > 0:  # less than what its profile cost
            rate = products[name] / seconds
            limit = best["fp32" if name == "evaluation" else precision]
            reached, matrix = f"{rate:.0f}", f"{100 * rate / limit:.1f} %"
        waited = "" if lost is None else f"{lost:.3f}"
        share = f"{100 * seconds / whole:.1f} %"
        lines.append(f"| {name} | {seconds:.3f} | {share} | {waited} | {reached} | {matrix} |")
    assert abs(sum(many.values()) - whole) < 0.001, "the rows do not add up to the whole"
    assert min(many.values()) >= -0.001, "a row is negative"
    lines.append(f"| **the whole command** | {whole:.3f} | 100.0 % | | | |")
    speeds = " and ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in best.items())
    return [*lines, "", f"Best large matrix product of this run: {speeds}."]


def ordered(stages: dict[str, float], inside: dict[str, float]) -> dict[str, float]:
    """Return the stages in their order, with the operations in place of training."""
    first = ("start of Python", *(name for name in stages if name.startswith("import ")))
    last = (REST, "writing of these numbers", "end of Python")
    largest = sorted(inside, key=lambda name: -inside[name])
    rows = {name: stages[name] for name in first}
    for name, seconds in stages.items():
        if name == TRAINING:
            rows |= {row: inside[row] for row in largest}
        elif name not in (*first, *last):
            rows[name] = seconds
    return {**rows, **{name: stages[name] for name in last}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", default="sprint")
    parser.add_argument("--repeats", type=int, default=5, help="trainings; the quickest is shown")
    parser.add_argument("--threads", type=int, default=count_cores())
    parser.add_argument("--processor", action="store_true", help="processor seconds of one thread")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    repeats, threads = (
        (1 if given.quick else given.repeats),
        1 if given.processor else given.threads,
    )
    torch.set_num_threads(threads)
    clock = int(given.processor)
    changes = ["train.epochs=1", "augment.end=0.5"] if given.quick else []
    arguments = [given.recipe, *(word for change in changes for word in ("--set", change))]
    plan = make_plan(load_recipe(given.recipe).with_overrides(changes))

    def quickest(mode: str, number: int, times: int) -> Measured:
        found = [measure(mode, number, arguments, clock) for _ in range(times)]
        return min(found, key=lambda one: one.whole)

    measure("stages", threads, [*arguments, "--set", "train.epochs=1"], clock)  # warms the caches
    shown = quickest("stages", threads, repeats)
    inside = operations(quickest("profile", threads, 1), shown.stages[TRAINING])
    one: dict[str, float] = {}
    if threads > 1:
        alone = quickest("stages", 1, min(repeats, 2))
        one = operations(quickest("profile", 1, 1), alone.stages[TRAINING])
        one["evaluation"] = alone.stages["evaluation"]
    rows = ordered(shown.stages, inside)
    words = "Processor seconds" if given.processor else "Seconds"
    flags = " --processor" if given.processor else ""
    lines = [
        f"# Where the time of `whit train {given.recipe}` goes",
        "",
        f"Command: `python benchmarks/where_time_goes.py {given.recipe}{flags} "
        f"--repeats {repeats}`.",
        f"{words} of the quickest of {repeats} trainings on {threads} "
        f"thread{'s' if threads > 1 else ''}, from the start of the process to its end. The rows "
        "add up to the whole.",
        "",
        "Operations of training are those of another training under torch.profiler. What it costs "
        "is taken off in equal parts for each of its events, and the rest scaled to the unprofiled "
        f'training ({shown.stages[TRAINING]:.3f} s). "{PYTHON}" is time in training outside all '
        "operations, and an upper bound: the marks around layers cost more than other events.",
        *(
            [
                f'"Lost to waiting" is the time on {threads} threads less that on one thread '
                f"divided by {threads}: waits between threads, work of one thread alone, and "
                "memory that all share. In training and evaluation together: "
                f"{sum(max(0.0, rows[name] - one[name] / threads) for name in one):.3f} s."
            ]
            if one
            else []
        ),
        "",
        describe_machine(),
        "",
        *table(plan, one, rows, shown.whole, threads),
        "",
        "## Imports",
        "",
        "Own seconds of the modules of each package, the quickest of three imports.",
        "",
        "| package | seconds |",
        "|---|---|",
        *(f"| {name} | {seconds:.3f} |" for name, seconds in import_rows()),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if not given.quick:
        (HERE / "WHERE_TIME_GOES.md").write_text(text)


if __name__ == "__main__":
    main()
