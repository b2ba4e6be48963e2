"""How well two kinds of validation splits predict the test split.

    python records/validation.py              train what is missing, and write the table
    python records/validation.py --tables     only write the table again

Each recipe, which has a record of ten seeds on the test split, is trained on 50,000 images and
evaluated on the other 10,000: by digest, a sample of all writers (`data.val_by = "digest"`), and by
block, other writers (`data.val_by = "block"`), where each seed holds out another block. The test
split is not evaluated here. For docs/explanation/statistics.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import correlation, mean, stdev

from claims import CLAIMS
from evidence import find_evidence

from whit.recipes.recipe import load_recipe, recipe_id
from whit.runs import layout
from whit.runs.reader import RunRecord, read_run

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent / "validation"
RUNS = HERE / "runs.jsonl"
# Those whose training takes minutes, not a quarter of an hour.
RECIPES = {
    **{name: name for name in ("sprint", "fewest-epochs", "sharpest")},
    **dict.fromkeys(CLAIMS["uplift"].recipes, "uplift"),
}
SEEDS = 2  # for each recipe and kind of split
SIZE = 10_000
BLOCKS = (5, 4)  # of six, one for each seed


@dataclass(frozen=True)
class Row:
    """One training: what it has correct of SIZE images of val, and of ten seeds on test."""

    recipe: str
    recipe_id: str
    val_by: str
    block: int | None
    seed: int
    correct: int
    test_correct: tuple[int, ...]  # a seed each, from the record of the recipe
    processor: str


def train(jobs: int, work: Path) -> None:
    """Train what has no row yet; each study adds its rows when it ends."""
    test = {
        recipe: find_evidence(CLAIMS[claim].folder, recipe) for recipe, claim in RECIPES.items()
    }
    done = {(row.recipe, row.recipe_id, row.val_by, row.seed) for row in read_rows()}
    for seed in range(SEEDS):
        for val_by, block in (("digest", None), ("block", BLOCKS[seed])):
            ids = {recipe: recipe_id(load_recipe(recipe)) for recipe in RECIPES}
            missing = [r for r in RECIPES if (r, ids[r], val_by, seed) not in done]
            if not missing:
                continue
            out = work / f"{val_by}-{seed}"
            runs = train_on_val(missing, seed, val_keys(val_by, block), jobs, out)
            with RUNS.open("a") as file:
                for recipe in missing:
                    run, record = runs[recipe], test[recipe]
                    assert run.final_evaluation is not None
                    assert record is not None
                    row = Row(recipe, ids[recipe], val_by, block, seed,
                              run.final_evaluation.correct, record.correct,
                              str(run.environment["processor"]))  # fmt: skip
                    file.write(json.dumps(asdict(row)) + "\n")


def val_keys(val_by: str, block: int | None) -> list[str]:
    """Return the recipe keys that hold out and evaluate SIZE images, and not the test split."""
    keys = [f"data.val_size={SIZE}", f"data.val_by={val_by}", "eval.test=false"]
    return [*keys, "eval.each_epoch=val", *([] if block is None else [f"data.val_block={block}"])]


def train_on_val(
    recipes: Sequence[str], seed: int, keys: Sequence[str], jobs: int, out: Path
) -> dict[str, RunRecord]:
    """Train recipes, changed by keys, with one seed; return the finished run of each."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    command = [sys.executable, "-m", "whit", "study", *recipes, "--jobs", str(jobs)]
    command += ["--threads", str(threads), "--seeds", f"{seed}-{seed}", "--out", str(out)]
    command += [word for key in keys for word in ("--set", key)]
    subprocess.run(command, cwd=ROOT, check=True)
    runs = [read_run(path) for path in layout.find_runs(sorted(out.iterdir()))]
    by_id = {recipe_id(run.recipe): run for run in runs if run.final_evaluation}
    return {r: by_id[recipe_id(load_recipe(r).with_overrides([*keys]))] for r in recipes}


def read_rows() -> list[Row]:
    """Return the trainings so far."""
    if not RUNS.is_file():
        return []
    rows = map(json.loads, RUNS.read_text().splitlines())
    return [Row(**{**row, "test_correct": tuple(row["test_correct"])}) for row in rows]


def newest(rows: list[Row]) -> list[Row]:
    """Return the rows of the last trained form of each recipe: recipes change."""
    last = {row.recipe: row.recipe_id for row in rows}
    return [row for row in rows if row.recipe_id == last[row.recipe]]


def table(rows: list[Row]) -> str:
    """Return val beside test for each recipe, then the rank correlation and the shift."""
    recipes = sorted({row.recipe for row in rows}, key=lambda r: -mean(_test(rows, r)))
    lines = [
        "| recipe | test, mean of seeds % | val by digest % | val by block % |",
        "|---|---|---|---|",
    ]
    for recipe in recipes:
        cells = [f"{mean(_test(rows, recipe)) / 100:.3f}"]
        for val_by in ("digest", "block"):
            val = _val(rows, recipe, val_by)
            cells.append(f"{mean(val) / 100:.3f} ({', '.join(map(str, val))})")
        lines.append(f"| {Path(recipe).stem} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| over {len(recipes)} recipes | val by digest | val by block |",
        "|---|---|---|",
    ]
    test = [mean(_test(rows, recipe)) / 100 for recipe in recipes]
    ranks, shifts = [], []
    for val_by in ("digest", "block"):
        means = [mean(_val(rows, recipe, val_by)) / 100 for recipe in recipes]
        ranks.append(f"{correlation(_ranks(means), _ranks(test)):.2f}")
        gaps = [t - v for t, v in zip(test, means, strict=True)]
        shifts.append(f"{mean(gaps):+.3f} ± {stdev(gaps):.3f}")
    lines.append(f"| rank correlation with test (Spearman) | {' | '.join(ranks)} |")
    lines.append(f"| test minus val, points, mean ± sd over recipes | {' | '.join(shifts)} |")
    return "\n".join(lines)


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value; equal ones share the mean of theirs."""
    return [
        sum(other < value for other in values) + sum(other == value for other in values) / 2
        for value in values
    ]


def _test(rows: list[Row], recipe: str) -> list[int]:
    return list(next(row.test_correct for row in rows if row.recipe == recipe))


def _val(rows: list[Row], recipe: str, val_by: str) -> list[int]:
    mine = [row for row in rows if (row.recipe, row.val_by) == (recipe, val_by)]
    return [row.correct for row in sorted(mine, key=lambda row: row.seed)]


def page(rows: list[Row]) -> str:
    """Return README.md."""
    seeds = sorted({row.seed for row in rows})
    blocks = ", ".join(str(BLOCKS[seed]) for seed in seeds)
    machines = ", ".join(sorted({row.processor for row in rows}))
    return f"""# Which validation split predicts the test split

Command: `python records/validation.py`

Each recipe with a record on the test split was trained on 50,000 images with {len(seeds)} seeds.
It was evaluated on the other {SIZE:,}: on a sample of all writers (by digest), and on consecutive
images by other writers (blocks {blocks} of six, a seed each). Correct images of each seed are in
brackets. The test split was not evaluated for this; its column is that of the records, trained on
60,000 images.

{table(rows)}

Machine: {machines}.
"""


def argument_parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """Return the options of a command that trains on val and keeps a row for each training."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / name,
                        help="where runs are kept until their rows are written")  # fmt: skip
    parser.add_argument("--tables", action="store_true", help="only write the table again")
    return parser


def main() -> None:
    given = argument_parser(__doc__, "validation").parse_args()
    os.chdir(ROOT)  # from where recipes that are files are named
    HERE.mkdir(exist_ok=True)
    if not given.tables:
        train(given.jobs, given.work)
    (HERE / "README.md").write_text(page(newest(read_rows())))


if __name__ == "__main__":
    main()
