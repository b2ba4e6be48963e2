"""Make a record: train recipes over seeds with `whit study`, keep the runs, write the table.

    python records/reproduce.py published --seeds 3
    python records/reproduce.py sprint --seeds 10 --jobs 1

A finished seed is not trained again, so a stopped record resumes. Run it from a clean checkout: a
record made from changed code says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import whit
from whit.errors import InputError
from whit.experiments.statistics import format_p, t_two_sided_p
from whit.recipes.recipe import builtin_recipes, recipe_id
from whit.runs import layout
from whit.runs.reader import read_run
from whit.web.run_location import DEMO_RUNS

HERE = Path(__file__).parent
ROOT = HERE.parent
RECIPES = ROOT / "src" / "whit" / "recipes" / "builtin"

# Best and last epoch of the write-ups, in correct images of 10,000.
PUBLISHED = {
    "published-17098": (9948, 9940),
    "published-16848": (9948, 9943),
    "published-19122": (9955, 9952),
    "published-19130": (9951, 9950),
    "published-15938": (9950, 9941),
}
NEAR = 0.08  # points
DEMOS = "sprint", "tiniest"  # whose weights are in the package
# What each claim trains: built-in recipes, and files under the root.
CLAIMS = {
    "published": list(PUBLISHED),
    "sprint": ["sprint"],
    "fewest-epochs": ["fewest-epochs"],
    "sharpest": ["sharpest"],
    "smallest": ["smallest"],
    "smallest-99": ["smallest-99"],
    "tiniest": ["tiniest"],
    "uplift": [f"records/uplift/{path.name}" for path in sorted((HERE / "uplift").glob("*.toml"))],
}


def train(claim: str, seeds: int, jobs: int, folder: Path) -> str:
    """Train what is missing; return the command that does."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    out = os.path.relpath(folder, ROOT)
    arguments = ["study", *CLAIMS[claim], "--seeds", str(seeds), "--jobs", str(jobs)]
    # Two of the published systems train for 20 epochs, which is one more than their budget has.
    arguments += ["--threads", str(threads), "--out", out, "--over-budget"]
    done = subprocess.run([sys.executable, "-m", "whit", *arguments], cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return " ".join(["whit", *arguments])


def test_correct(kept: Path) -> list[int]:
    """Return the correct test images after each epoch with an evaluation on test."""
    rows = [json.loads(line) for line in (kept / "log.jsonl").read_text().splitlines()]
    return [e["correct"] for row in rows for e in row["evaluations"] if e["split"] == "test"]


def spread(values: list[float]) -> str:
    """Return `mean ± standard deviation` over seeds."""
    if len(values) == 1:
        return f"{values[0]:.2f} (one seed)"
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def why_far(bests: list[float], published: float) -> str:
    """Weigh a single published run against the spread of ours, by Student's t for one more run."""
    if len(bests) < 3:
        return "too few seeds yet to say."
    spread_of_one = stdev(bests) * math.sqrt(1 + 1 / len(bests))
    t = abs(published - mean(bests)) / spread_of_one
    p = t_two_sided_p(t, len(bests) - 1)
    chance = (
        "so chance alone explains the distance"
        if p > 0.05
        else "so chance alone hardly explains the distance"
    )
    return (
        f"our seeds spread by {stdev(bests):.3f} points (best epochs {min(bests):.2f} to "
        f"{max(bests):.2f}); one more run of ours would lie as far from their mean as the "
        f"published {published:.2f} with {format_p(p)}, {chance}. The write-up shows one run, the "
        "best of those that its author tried, and is expected above a mean."
    )


def seeds_of(folder: Path, recipe: str) -> list[Path]:
    """Return the finished runs of a recipe by seed: of the recipe as it is, else of its name.

    Records in schema 1 are in folders of other names.
    """
    wanted = whit.load_recipe(recipe)
    runs = []
    for path in layout.find_runs(sorted(folder.iterdir())):
        try:
            runs.append(read_run(path))
        except InputError as error:  # edited or damaged: said, and counted in nothing
            print(f"not counted: {error}", file=sys.stderr)
    runs = [run for run in runs if run.result and run.recipe.name == wanted.name]
    same = [run for run in runs if recipe_id(run.recipe) == recipe_id(wanted)]
    return [run.path for run in sorted(same or runs, key=lambda run: run.seed or 0)]


def results_of(folder: Path, recipe: str) -> list[dict[str, Any]]:
    runs = seeds_of(folder, recipe)
    return [json.loads((run / "result.json").read_text()) for run in runs]


def published_lines(folder: Path) -> Iterator[str]:
    """Yield the published systems beside their write-ups, and why any mean best is far away."""
    yield from (
        "Correct of 10,000 test images at the best and the last epoch of each seed. The best",
        "epoch is selected on the test split, as in the write-ups; whit uses the last one.",
        f"A mean best more than {NEAR:.2f} points from the published one is discussed below.",
        "",
        "| recipe | published best / last | ours, best (epoch) / last, a seed each "
        "| mean best | difference | mean last |",
        "|---|---|---|---|---|---|",
    )
    reasons = []
    for recipe, was in PUBLISHED.items():
        curves = [test_correct(run) for run in seeds_of(folder, recipe)]
        if not curves:
            continue
        cells = [f"{max(c)} ({c.index(max(c)) + 1}) / {c[-1]}" for c in curves]
        bests = [max(c) / 100 for c in curves]
        if abs(mean(bests) - was[0] / 100) > NEAR:
            reasons.append(f"- {recipe}: {why_far(bests, was[0] / 100)}")
        yield (
            f"| {recipe} | {was[0]} / {was[1]} | {', '.join(cells)} | {mean(bests):.3f} "
            f"| {mean(bests) - was[0] / 100:+.3f} | {spread([c[-1] / 100 for c in curves])} |"
        )
    if reasons:
        yield from ("", "Why a mean best is farther away:", "", *reasons)


def claim_lines(claim: str, folder: Path) -> Iterator[str]:
    """Yield a row for each recipe of a claim, and what their teachers cost."""
    yield from (
        "Evaluated on test once per seed, after the last epoch.",
        "",
        "| recipe | seeds | parameters | epochs | mean ± sd % | worst % | best % "
        "| correct, a seed each | mean seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    )
    teachers = []
    for recipe in CLAIMS[claim]:
        results = results_of(folder, recipe)
        if not results:
            continue
        correct = [result["test"]["correct"] for result in results]
        percents = [count / 100 for count in correct]
        seconds = mean(result["seconds"]["total"] for result in results)
        yield (
            f"| {recipe} | {len(results)} | {results[0]['params']:,} | {results[0]['epochs']} "
            f"| {spread(percents)} | {min(percents):.2f} | {max(percents):.2f} "
            f"| {', '.join(map(str, correct))} | {seconds:.1f} |"
        )
        teacher = whit.plan(recipe).teacher
        if teacher:
            teachers += ["", f"{recipe} distilled from {teacher}; its cost is not in the table."]
    yield from teachers


def uplift_lines(folder: Path) -> Iterator[str]:
    """Yield each published network as published, and under a recipe of ours."""
    yield from (
        "The networks are unchanged; the recipes are in this folder. Evaluated on test once per",
        "seed, after the last epoch. What they reached as published, trained with whit, is in",
        "[records/published](../published/README.md).",
        "",
        "| network | write-up: epochs, best / last % | as published, under whit: mean ± sd % "
        "| here: seeds, epochs | mean ± sd % | worst % | correct, a seed each |",
        "|---|---|---|---|---|---|---|",
    )
    for path in CLAIMS["uplift"]:
        results = results_of(folder, path)
        if not results:
            continue
        name = Path(path).stem.replace("uplift", "published")
        was, before = PUBLISHED[name], results_of(ROOT / "records" / "published", name)
        correct = [result["test"]["correct"] for result in results]
        percents = [count / 100 for count in correct]
        yield (
            f"| {name.removeprefix('published-')} | {before[0]['epochs']}, {was[0] / 100:.2f} / "
            f"{was[1] / 100:.2f} | {spread([r['test']['correct'] / 100 for r in before])} "
            f"| {len(results)}, {results[0]['epochs']} | {spread(percents)} | {min(percents):.2f} "
            f"| {', '.join(map(str, correct))} |"
        )
    measured = folder / "seconds.json"
    if not measured.is_file():
        return
    kept = json.loads(measured.read_text())
    yield from (
        "",
        "Seconds of a whole training, epochs taken in turn: in the write-up's own loop, as",
        f"published under whit, and under the recipe here. Command: `{kept['command']}`.",
        "",
        "| network | its own loop | as published, under whit | here | here / its own loop |",
        "|---|---|---|---|---|",
    )
    for name, row in kept["seconds"].items():
        yield (
            f"| {name.removeprefix('published-')} | {row['notebook']:.0f} | {row['published']:.0f} "
            f"| {row['uplift']:.0f} | 1/{1 / row['ratio']:.1f} |"
        )
    yield from ("", f"Machine: {kept['machine']}.")


def write_tables(claim: str, folder: Path, command: str, seeds: int) -> None:
    """Write README.md beside the evidence, and the accuracies that `whit recipes` shows."""
    lines = {
        "published": lambda: published_lines(folder),
        "uplift": lambda: uplift_lines(folder),
    }.get(claim, lambda: claim_lines(claim, folder))()
    environments = [
        json.loads((run / "environment.json").read_text())
        for recipe in CLAIMS[claim]
        for run in seeds_of(folder, recipe)
    ]
    machines = {
        f"{e['processor']}, {e['cores']} cores, {e['threads']} thread(s) a run, "
        f"torch {e['torch']}, commit {str(e['code']['commit'])[:12]}"
        + (" with changed code" if e["code"]["dirty"] else "")
        for e in environments
    }
    missing = [
        f"Not complete: {recipe} has {len(seeds_of(folder, recipe))} of {seeds} seeds."
        for recipe in CLAIMS[claim]
        if len(seeds_of(folder, recipe)) < seeds
    ]
    head = (f"# {claim}", "", f"Command: `{command}`", "")
    tail = ("", *(f"Machine: {machine}." for machine in sorted(machines)), *missing, "")
    (folder / "README.md").write_text("\n".join((*head, *lines, *tail)))
    write_recorded(claim, folder)
    write_demo_run(claim, folder)


def write_demo_run(claim: str, folder: Path) -> None:
    """Copy the first seed of a record into the package: `whit serve` draws with it at once."""
    if claim not in DEMOS:
        return
    run, *_ = seeds_of(folder, claim)
    target = DEMO_RUNS / claim
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in layout.FILES:
        shutil.copyfile(run / name, target / name)


def write_recorded(claim: str, folder: Path) -> None:
    """Update recorded.json: sizes of all built-in recipes, and results of this claim."""
    recorded_file = RECIPES / "recorded.json"
    recorded = json.loads(recorded_file.read_text()) if recorded_file.is_file() else {}
    for name in builtin_recipes():  # `whit recipes` shows sizes without a record too
        planned = whit.plan(name)
        sizes = {"params": planned.audit.params.total, "epochs": planned.recipe.train.epochs}
        recorded[name] = {"seeds": 0, "correct": [], **recorded.get(name, {}), **sizes}
        results = results_of(folder, name) if name in CLAIMS[claim] else []
        if results:
            correct = [result["test"]["correct"] for result in results]
            recorded[name] |= {"seeds": len(results), "correct": correct}
    recorded_file.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tables", action="store_true", help="only write the tables again")
    given = parser.parse_args()
    os.chdir(ROOT)  # from where recipes that are files are named
    folder = ROOT / "records" / given.claim
    folder.mkdir(parents=True, exist_ok=True)
    command = f"python records/reproduce.py {given.claim} --seeds {given.seeds} --jobs {given.jobs}"
    if not given.tables:
        print(train(given.claim, given.seeds, given.jobs, folder))
    write_tables(given.claim, folder, command, given.seeds)


if __name__ == "__main__":
    main()
