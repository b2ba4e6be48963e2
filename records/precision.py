"""What bf16 costs: recipes trained in fp32 and in bf16 with the same seeds.

    python records/precision.py                      train sprint, fewest-epochs and quickest
    python records/precision.py sprint quickest      or these recipes
    python records/precision.py --tables             only write the table again

Each seed is trained in both precisions on 50,000 images, and evaluated on the other 10,000: a block
of consecutive images, another one for each seed. The test split is not evaluated. With two jobs the
two trainings of a seed run at the same time. Nothing else may run on the machine meanwhile, since
the seconds are compared as well. Rows that exist are kept, so a stopped command resumes. Needs a
processor that multiplies bf16.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median, stdev

from evidence import FIRST_SEED
from pages import mean_text
from validation import ROOT, SIZE, argument_parser, train_on_val, val_keys

from whit.experiments.statistics import format_p, paired_t_test
from whit.recipes.recipe import load_recipe, recipe_id
from whit.training.optimization.objective import has_bf16

HERE = Path(__file__).parent / "precision"
RUNS = HERE / "runs.jsonl"
RECIPES = ("sprint", "fewest-epochs", "quickest")
PRECISIONS = ("fp32", "bf16")
NUM_BLOCKS = 60_000 // SIZE


@dataclass(frozen=True)
class Row:
    """One training: what it has correct of SIZE images of val. `seconds` are those of training."""

    recipe: str
    recipe_id: str
    precision: str
    seed: int
    block: int
    correct: int
    seconds: float
    machine: str


def train(recipes: Sequence[str], seeds: Sequence[int], jobs: int, work: Path) -> None:
    """Train what has no row yet; the two runs of a pair are one study, which adds their rows."""
    done = {(row.recipe_id, row.precision, row.seed) for row in read_rows()}
    for seed, name in itertools.product(seeds, recipes):
        recipe = load_recipe(name)
        trained_id = recipe_id(recipe)
        missing = [p for p in PRECISIONS if (trained_id, p, seed) not in done]
        if not missing:
            continue
        folder = work / f"{trained_id}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        files = {precision: str(folder / f"{precision}.toml") for precision in missing}
        for precision, path in files.items():
            changed = recipe.with_overrides([f"train.precision={precision}"])
            Path(path).write_text(changed.to_toml())
        block = seed % NUM_BLOCKS
        keys = val_keys("block", block)
        runs = train_on_val(list(files.values()), seed, keys, jobs, folder / "runs")
        with RUNS.open("a") as file:
            for precision, path in files.items():
                environment, result = runs[path].environment, runs[path].result
                evaluation = runs[path].final_evaluation
                assert evaluation is not None
                assert result is not None
                machine = f"{environment['processor']}, {environment['cores']} cores"
                machine += f", {environment['threads']} thread(s) a run, {jobs} job(s)"
                row = Row(name, trained_id, precision, seed, block, evaluation.correct,
                          result["seconds"]["train"], machine)  # fmt: skip
                file.write(json.dumps(asdict(row)) + "\n")


def read_rows() -> list[Row]:
    """Return the trainings so far."""
    if not RUNS.is_file():
        return []
    return [Row(**json.loads(line)) for line in RUNS.read_text().splitlines()]


def find_pairs(rows: list[Row], recipe: str) -> list[tuple[Row, Row]]:
    """Return the trainings in fp32 and in bf16 of each seed that has both; `recipe` is its id."""
    by_key = {(row.precision, row.seed): row for row in rows if row.recipe_id == recipe}
    seeds = sorted({row.seed for row in by_key.values()})
    pairs = [tuple(by_key.get((precision, seed)) for precision in PRECISIONS) for seed in seeds]
    return [(fp32, bf16) for fp32, bf16 in pairs if fp32 and bf16]


def table(rows: list[Row]) -> str:
    """Return the paired difference of each recipe, with its interval."""
    lines = [
        "| recipe | pairs of seeds | fp32, mean ± sd % | bf16, mean ± sd % | bf16 - fp32, images "
        "| in percentage points (95 % interval) | p-value | sd of the difference, points "
        "| seconds, bf16 / fp32 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for recipe in dict.fromkeys(row.recipe_id for row in rows):
        pairs = find_pairs(rows, recipe)
        if len(pairs) < 2:  # no spread is known
            continue
        percent = [(100 * a.correct / SIZE, 100 * b.correct / SIZE) for a, b in pairs]
        gaps = [b - a for a, b in percent]
        ratios = [b.seconds / a.seconds for a, b in pairs if a.machine == b.machine]
        test = paired_t_test("fp32", "bf16", percent)
        interval = " ({:+.3f} to {:+.3f})".format(*test.interval) if test.interval else ""
        p_value = "-" if test.p_value is None else format_p(test.p_value).removeprefix("p = ")
        fp32, bf16 = (mean_text(values) for values in zip(*percent, strict=True))
        lines.append(
            f"| {recipe} | {len(pairs)} | {fp32} | {bf16} | {fmean(gaps) * SIZE / 100:+.2f} "
            f"| {test.difference_pp:+.3f}{interval} | {p_value} | {stdev(gaps):.3f} "
            f"| {f'{median(ratios):.2f}' if ratios else '-'} |"
        )
    return "\n".join(lines)


def page(rows: list[Row]) -> str:
    """Return README.md."""
    machines = "; ".join(sorted({row.machine for row in rows}))
    return f"""# What bf16 costs

Written by `python records/precision.py`. A row names a recipe by its content when it was measured.

Each seed was trained in fp32 and in bf16, on 50,000 images. Both were evaluated on the same other
{SIZE:,}: one of {NUM_BLOCKS} blocks of consecutive images, another one for each seed. The test
split was not evaluated. The differences are tested by Student's t over pairs; the p-values are not
adjusted for the number of recipes. The seconds are those of training: the median over
pairs that were trained on one kind of machine.

{table(rows)}

Machine: {machines}.
"""


def parse_seeds(text: str) -> range:
    """Return the seeds of `0-19`. Raises argparse.ArgumentTypeError for others."""
    found = re.fullmatch(r"(\d+)-(\d+)", text)
    if found and int(found[1]) <= int(found[2]) < FIRST_SEED:
        return range(int(found[1]), int(found[2]) + 1)
    raise argparse.ArgumentTypeError(
        f"{text}: give the first and the last seed, such as 0-19, both below {FIRST_SEED}: those "
        "from there on are for claims"
    )


def main() -> None:
    parser = argument_parser(__doc__, "precision")
    parser.add_argument("recipes", nargs="*", default=RECIPES, metavar="RECIPE")
    parser.add_argument("--seeds", type=parse_seeds, default=range(20), help="such as 0-19")
    given = parser.parse_args()
    os.chdir(ROOT)  # from where recipes that are files are named
    if not given.tables:
        if not has_bf16():
            raise SystemExit(
                "this processor does not multiply bf16 (avx512_bf16, amx_bf16 or arm_bf16), so "
                "bf16 would be emulated: run this on one that does."
            )
        HERE.mkdir(exist_ok=True)
        train(given.recipes, given.seeds, given.jobs, given.work)
    if rows := read_rows():
        (HERE / "README.md").write_text(page(rows))


if __name__ == "__main__":
    main()
