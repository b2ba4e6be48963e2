"""Train the recipes of a claim with `whit study`, keep the runs, and write the tables.

    python records/reproduce.py sprint
    python records/reproduce.py published --seeds 1000-1009 --jobs 2
    python records/reproduce.py all --tables

Finished seeds are not trained again, so a stopped command resumes. Every study that evaluates the
test split is counted in attempts.jsonl, whatever comes of it. Run it from a clean checkout: a
record made from changed code says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pages
import published
from claims import CLAIMS, ONE_PASS, PUBLISHED, ROOT, Attempt, Claim, find_evidence, write_attempt

import whit
from whit.recipes.recipe import builtin_recipes, load_recipe, recipe_id
from whit.runs import layout
from whit.runs.reader import RunRecord
from whit.system.atomic_files import atomic_write
from whit.web.run_location import DEMO_RUNS

RECORDED = ROOT / "src" / "whit" / "recipes" / "builtin" / "recorded.json"
DEMOS = "sprint", "tiniest"  # whose weights are in the package


def study(recipes: tuple[str, ...], seeds: str, jobs: int, folder: Path) -> int:
    """Train what is missing; return the exit code."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    out = os.path.relpath(folder, ROOT)
    arguments = ["study", *recipes, "--seeds", seeds, "--jobs", str(jobs)]
    # Two of the published systems train for 20 epochs, which is one more than their budget has.
    arguments += ["--threads", str(threads), "--out", out, "--over-budget"]
    return subprocess.run([sys.executable, "-m", "whit", *arguments], cwd=ROOT).returncode


def count_attempts(claim: Claim, seeds: str) -> None:
    """Count the studies of a claim as they are now: started, stopped or finished."""
    for recipe in claim.recipes:
        evidence = find_evidence(claim.folder, recipe)
        runs = evidence.runs if evidence else ()
        mine = [run for run in runs if recipe_id(run.recipe) == recipe_id(load_recipe(recipe))]
        correct = tuple(run.result["test"]["correct"] for run in mine if run.result)
        date = datetime.now(UTC).date().isoformat()
        mean = sum(correct) / len(correct) / 100 if correct else None
        source = f"records/{claim.name}"
        name = load_recipe(recipe).name
        write_attempt(Attempt(date, claim.name, name, seeds, correct, mean, source,
                              recipe_id(load_recipe(recipe))))  # fmt: skip


def evaluate_one_pass(claim: Claim) -> None:
    """Evaluate the weights of each run with one forward pass, without test-time augmentation.

    No choice depends on it: it is the second figure of a claim, of the same weights.
    """
    known = pages.read_one_pass(claim)
    rows = []
    for recipe in claim.recipes:
        evidence = find_evidence(claim.folder, recipe)
        for run in evidence.runs if evidence else ():
            sha256 = str(run.result["weights_sha256"]) if run.result else ""
            correct = known.get(sha256)
            if correct is None:
                correct = one_pass_correct(run)
            rows.append({"recipe": run.recipe.name, "seed": run.seed, "weights_sha256": sha256,
                         "correct": correct})  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    atomic_write(claim.folder / ONE_PASS, text.encode())


def one_pass_correct(run: RunRecord) -> int:
    """Return the correct test images of a run's weights with one forward pass per network."""
    assert run.result is not None
    if not run.recipe.eval.tta_shifts:
        return int(run.result["test"]["correct"])
    recipe = run.recipe.with_overrides(["eval.tta_shifts=0"])
    correct = whit.audit(run.path / layout.WEIGHTS, recipe).metrics.correct
    assert correct is not None
    return correct


def write_recorded() -> None:
    """Update recorded.json: sizes of all built-in recipes, and what they reached on test."""
    folders = {recipe: claim.folder for claim in CLAIMS.values() for recipe in claim.recipes}
    folders |= dict.fromkeys(PUBLISHED, published.FOLDER)
    recorded = {}
    for name in builtin_recipes():  # `whit recipes` shows sizes without a record too
        plan = whit.plan(name)
        evidence = find_evidence(folders[name], name) if name in folders else None
        correct = list(evidence.correct) if evidence else []
        recorded[name] = {"params": plan.audit.params.total, "epochs": plan.recipe.train.epochs,
                          "seeds": len(correct), "correct": correct}  # fmt: skip
    text = json.dumps(recorded, indent=1, sort_keys=True) + "\n"
    atomic_write(RECORDED, text.encode())


def write_demo_run(name: str) -> None:
    """Copy the first seed of a record into the package: `whit serve` draws with it at once."""
    evidence = find_evidence(CLAIMS[name].folder, name)
    if evidence is None:
        return
    target = DEMO_RUNS / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in layout.FILES:
        shutil.copyfile(evidence.runs[0].path / file, target / file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("claim", choices=["published", *CLAIMS, "all"])
    parser.add_argument("--seeds", default="1000-1009")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tables", action="store_true", help="only write the tables again")
    given = parser.parse_args()
    os.chdir(ROOT)  # from where recipes that are files are named
    names = ["published", *CLAIMS] if given.claim == "all" else [given.claim]
    for name in names:
        if name == "published":
            if not given.tables and study(PUBLISHED, given.seeds, given.jobs, published.FOLDER):
                raise SystemExit(3)
            published.write_page()
            continue
        claim = CLAIMS[name]
        claim.folder.mkdir(parents=True, exist_ok=True)
        if not given.tables:
            count_attempts(claim, given.seeds)  # one that is stopped counts as well
            code = study(claim.recipes, given.seeds, given.jobs, claim.folder)
            count_attempts(claim, given.seeds)
            if code:
                raise SystemExit(code)
            evaluate_one_pass(claim)
        if name in DEMOS:
            write_demo_run(name)
    pages.write_pages(CLAIMS[name] for name in names if name in CLAIMS)
    write_recorded()


if __name__ == "__main__":
    main()
