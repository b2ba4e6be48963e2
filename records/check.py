"""Compare every figure of the records with the run folders, and print what differs.

    python records/check.py              from the recorded results; seconds
    python records/check.py --evaluate   from the weights of one seed of each claim, too

Exit code 1 when something differs. A folder whose files were altered is named by its digest.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import zip_longest
from pathlib import Path

import pages
import precision
import published
import validation
from claims import CLAIMS, ONE_PASS, PUBLISHED, ROOT, Claim, read_attempts
from evidence import INT8, find_evidence, weights_sha256
from int8 import differences
from reproduce import RECORDED, one_pass_correct

import whit
from whit.errors import InputError
from whit.recipes.recipe import load_recipe
from whit.runs import layout
from whit.runs.reader import read_run


def problems() -> list[str]:
    """Return what differs; empty where every figure is that of the run folders."""
    found = altered_runs(published.FOLDER)
    found += differing_page(pages.PAGE, pages.page())
    curves, rows = published.read_curves(), validation.read_rows()
    found += differing_page(published.FOLDER / "README.md", published.page(curves))
    if rows:
        found += differing_page(validation.HERE / "README.md", validation.page(rows))
    if trained := precision.read_rows():
        found += differing_page(precision.HERE / "README.md", precision.page(trained))
    for claim in CLAIMS.values():
        found += claim_problems(claim)
    return found + _recorded_problems()


def altered_runs(folder: Path) -> list[str]:
    """Name the runs that cannot be read, or whose files are not those that the run wrote."""
    found: list[str] = []
    for path in layout.find_runs(sorted(p for p in folder.iterdir() if p.is_dir())):
        try:
            read_run(path)
        except InputError as error:
            found += error.problems
    return found


def differing_page(file: Path, expected: str) -> list[str]:
    """Name the lines of a page that are not those of `expected`."""
    name = os.path.relpath(file, ROOT)
    if not file.is_file():
        return [f"{name}: does not exist"]
    lines = zip_longest(file.read_text().splitlines(), expected.splitlines())
    return [
        f"{name}, line {number}: {line!r}; the run folders give {wanted!r}"
        for number, (line, wanted) in enumerate(lines, 1)
        if line != wanted
    ]


def claim_problems(claim: Claim) -> list[str]:
    """Check the page of a claim, that each study was counted, and figures of the same weights."""
    if not claim.folder.is_dir():  # nothing was trained for it
        return []
    found = altered_runs(claim.folder)
    found += differing_page(claim.folder / "README.md", pages.claim_page(claim))
    counted = {(one.claim, one.recipe) for one in read_attempts()}
    one_pass = pages.read_one_pass(claim)
    for recipe in claim.recipes:
        evidence = find_evidence(claim.folder, recipe)
        if evidence is None:
            found.append(f"{claim.name}: {recipe} has no finished run")
            continue
        if (claim.name, load_recipe(recipe).name) not in counted:
            found.append(f"{claim.name}: no attempt of {recipe} in attempts.jsonl")
        for run in evidence.runs:
            sha256, missing = weights_sha256(run), f"has no row for {run.path.name} of {recipe}"
            if one_pass and sha256 not in one_pass:
                found.append(f"{claim.name}/{ONE_PASS}: {missing}")
            if claim.is_int8 and sha256 not in {row.weights_sha256 for row in evidence.int8}:
                found.append(f"{claim.name}/{INT8}: {missing}")
    return found


def _recorded_problems() -> list[str]:
    """Check what `whit recipes` shows."""
    recorded = json.loads(RECORDED.read_text())
    folders = {recipe: claim.folder for claim in CLAIMS.values() for recipe in claim.recipes}
    folders |= dict.fromkeys(PUBLISHED, published.FOLDER)
    found = []
    for name, row in recorded.items():
        evidence = find_evidence(folders[name], name) if name in folders else None
        correct = list(evidence.correct) if evidence else []
        if row["correct"] != correct:
            found.append(f"{RECORDED.name}: {name} has {row['correct']}; the runs have {correct}")
    return found


def evaluate_again() -> list[str]:
    """Evaluate the weights of the first seed of each recipe again."""
    found = []
    for claim in CLAIMS.values():
        one_pass = pages.read_one_pass(claim)
        for recipe in claim.recipes:
            evidence = find_evidence(claim.folder, recipe)
            if evidence is None:
                continue
            run = evidence.runs[0]
            name = os.path.relpath(run.path, ROOT)
            print(f"{name}: evaluating", file=sys.stderr)
            found += [f"{name}: {v.message}" for v in whit.audit(run.path).mismatches]
            recorded = one_pass.get(weights_sha256(run))
            if recorded is not None and recorded != (correct := one_pass_correct(run)):
                found.append(f"{name}: {correct} correct with one forward pass, not {recorded}")
            for row in evidence.int8:
                if row.weights_sha256 == weights_sha256(run):
                    found += [f"{name}: {each}" for each in differences(row, run)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--evaluate", action="store_true", help="evaluate weights again")
    given = parser.parse_args()
    os.chdir(ROOT)
    found = problems() + (evaluate_again() if given.evaluate else [])
    print("\n".join(found) or "Every figure is that of the run folders.")
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
