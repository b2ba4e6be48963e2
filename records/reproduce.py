"""Train the recipes of a claim with `whit study`, keep the runs, and write the tables.

    python records/reproduce.py sprint
    python records/reproduce.py published --seeds 1000-1009 --jobs 2
    python records/reproduce.py tiniest --measure-again
    python records/reproduce.py all --tables

Finished seeds are not trained again, so a stopped command resumes. Every study that evaluates the
test split is counted in attempts.jsonl, whatever comes of it. Run it from a clean checkout: a
record made from changed code says so. Of claims about microcontrollers, each run is exported to
int8 and measured; --measure-again does so after a change of the export, and trains nothing.
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
from claims import CLAIMS, ONE_PASS, PUBLISHED, ROOT, Attempt, Claim, write_attempt
from evidence import Evidence, find_evidence, weights_sha256
from int8 import measure_missing, require_tools

import whit
from whit.recipes.recipe import builtin_recipes, load_recipe, recipe_id
from whit.runs import layout
from whit.runs.reader import RunRecord
from whit.system.atomic_files import atomic_write
from whit.system.numbers import json_number

# Of this checkout, whichever one `whit` is imported from.
RECORDED = ROOT / "src" / "whit" / "recipes" / "builtin" / "recorded.json"
DEMO_RUNS = ROOT / "src" / "whit" / "web" / "demo_runs"
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
        wanted = load_recipe(recipe)
        if evidence and recipe_id(evidence.runs[0].recipe) != recipe_id(wanted):
            evidence = None  # of an older recipe
        write_attempt(attempt(claim, evidence, wanted.name, seeds, recipe_id(wanted)))


def attempt(
    claim: Claim, evidence: Evidence | None, recipe: str, seeds: str, recipe_id: str = ""
) -> Attempt:
    """Return an attempt of today, with what is correct in int8 where that was measured."""
    in_int8 = claim.is_int8 and evidence is not None and evidence.has_int8
    correct = (claim.correct(evidence) or evidence.correct) if evidence else ()
    mean = round(sum(correct) / len(correct) / 100, 4) if correct else None
    source = f"records/{claim.name}" + (", in int8" if in_int8 else "")
    date = datetime.now(UTC).date().isoformat()
    return Attempt(date, claim.name, recipe, seeds, correct, mean, source, recipe_id)


def measure_int8(claim: Claim, seeds: str, again: bool) -> None:
    """Measure the int8 form of each run; no choice depends on it, it is what the claim is about.

    Where the export changed what is correct on test, that is another attempt.
    """
    found = [find_evidence(claim.folder, recipe) for recipe in claim.recipes]
    before = {row.weights_sha256: row.correct for one in found if one for row in one.int8}
    evidence = [one for one in found if one]
    rows = list(measure_missing(claim.folder, evidence, claim.needs_board, again))
    if any(row.correct != before.get(row.weights_sha256, row.correct) for row in rows):
        for recipe in claim.recipes:
            if one := find_evidence(claim.folder, recipe):
                name = f"{load_recipe(recipe).name}, exported again"
                write_attempt(attempt(claim, one, name, seeds))


def evaluate_one_pass(claim: Claim) -> None:
    """Evaluate the weights of each run with one forward pass, without test-time augmentation.

    No choice depends on it: it is the second figure of a claim, of the same weights.
    """
    known = pages.read_one_pass(claim)
    rows = []
    for recipe in claim.recipes:
        evidence = find_evidence(claim.folder, recipe)
        for run in evidence.runs if evidence else ():
            sha256 = weights_sha256(run)
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


def train(claim: Claim, seeds: str, jobs: int) -> None:
    """Train what is missing, and evaluate it with one forward pass."""
    claim.folder.mkdir(parents=True, exist_ok=True)
    count_attempts(claim, seeds)  # one that is stopped counts as well
    code = study(claim.recipes, seeds, jobs, claim.folder)
    count_attempts(claim, seeds)
    if code:
        raise SystemExit(code)
    evaluate_one_pass(claim)


def write_recorded() -> None:
    """Update recorded.json: sizes of all built-in recipes, and what they reached on test."""
    folders = {recipe: claim.folder for claim in CLAIMS.values() for recipe in claim.recipes}
    folders |= dict.fromkeys(PUBLISHED, published.FOLDER)
    recorded = {}
    for name in builtin_recipes():  # `whit recipes` shows sizes without a record too
        plan = whit.plan(name)
        evidence = find_evidence(folders[name], name) if name in folders else None
        correct = list(evidence.correct) if evidence else []
        recorded[name] = {
            "params": plan.audit.params.total,
            "epochs": json_number(plan.epochs),
            "seeds": len(correct),
            "correct": correct,
        }
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
    parser.add_argument("--measure-again", action="store_true",
                        help="train nothing; export to int8 and measure again")  # fmt: skip
    given = parser.parse_args()
    os.chdir(ROOT)  # from where recipes that are files are named
    names = ["published", *CLAIMS] if given.claim == "all" else [given.claim]
    for name in names:
        if name == "published":
            trains = not (given.tables or given.measure_again)
            if trains and study(PUBLISHED, given.seeds, given.jobs, published.FOLDER):
                raise SystemExit(3)
            published.write_page()
            continue
        claim = CLAIMS[name]
        if not given.tables:
            if claim.needs_board:
                require_tools()
            if not given.measure_again:
                train(claim, given.seeds, given.jobs)
            if claim.is_int8:
                measure_int8(claim, given.seeds, given.measure_again)
            if claim.is_int8 and not given.measure_again:
                count_attempts(claim, given.seeds)  # with what is correct in int8
        if name in DEMOS:
            write_demo_run(name)
    pages.write_pages(CLAIMS[name] for name in names if name in CLAIMS)
    write_recorded()


if __name__ == "__main__":
    main()
