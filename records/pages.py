"""The pages of the claims, from their run folders: one table of all, and a page for each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from statistics import fmean

from claims import (
    CLAIMS,
    FIRST_SEED,
    HERE,
    MIN_SEEDS,
    ONE_PASS,
    Claim,
    Evidence,
    find_evidence,
    read_attempts,
)

from whit.recipes.recipe import load_recipe
from whit.system.atomic_files import atomic_write
from whit.training.plan import Plan, make_plan

PAGE = HERE / "README.md"
RULE = f"""\
A claim holds when the lower end of the one-sided 95 % interval of its mean test accuracy reaches
its limit: Student's t over at least {MIN_SEEDS} seeds from {FIRST_SEED} on, which were never used
while tuning, each evaluated on the test split once, after the last epoch. "Claims tried" are all
studies that evaluated the test split for the same aim since the beginning, failures included.
"One forward pass" is the accuracy of the same weights without test-time augmentation."""
HEAD = (
    *("claim", "aim", "holds", "parameters", "multiply-adds per decision", "forward passes"),
    *("epochs", "precision", "seeds", "test, mean ± sd %", "95 % interval", "worst %"),
    *("one forward pass, mean ± sd %", "claims tried", "seconds", "machine", "best by others"),
)


def read_one_pass(claim: Claim) -> dict[str, int]:
    """Return the correct test images with one forward pass, by the digest of the weights."""
    file = claim.folder / ONE_PASS
    rows = map(json.loads, file.read_text().splitlines()) if file.is_file() else ()
    return {row["weights_sha256"]: row["correct"] for row in rows}


def cells(claim: Claim, evidence: Evidence, root: str) -> tuple[str, ...]:
    """Return the row of a recipe in the table of claims, in the columns of HEAD."""
    plan = plan_of(evidence.recipe)
    objections = evidence.objections()
    accuracy, interval = evidence.accuracy, evidence.accuracy.interval
    tried = sum(one.claim == claim.name for one in read_attempts())
    name = Path(evidence.recipe).stem
    return (
        f"[`{name}`]({root}{claim.name}/README.md)",
        claim.aim if len(claim.recipes) == 1 else f"{claim.aim} (limit {claim.limit:.2f} %)",
        f"no: {'; '.join(objections)}" if objections else "yes",
        f"{plan.audit.params.total:,}",
        f"{plan.metrics.macs:,}",
        str(plan.metrics.forward_passes),
        str(plan.recipe.train.epochs),
        evidence.precision,
        str(len(evidence.runs)),
        mean_text(accuracy.values),
        f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-",
        f"{min(accuracy.values):.2f}",
        one_pass_text(claim, evidence),
        str(tried),
        f"{evidence.seconds:.0f}",
        evidence.machine,
        claim.public or "-",
    )


@cache
def plan_of(recipe: str) -> Plan:
    """Return the plan of a recipe: what its network costs."""
    return make_plan(load_recipe(recipe))


def one_pass_text(claim: Claim, evidence: Evidence) -> str:
    """Return the accuracy of the same weights with one forward pass; `-` where it is not known."""
    known = read_one_pass(claim)
    correct = [known.get(str((run.result or {})["weights_sha256"])) for run in evidence.runs]
    values = tuple(count / 100 for count in correct if count is not None)
    return mean_text(values) if len(values) == len(correct) else "-"


def mean_text(values: tuple[float, ...]) -> str:
    """Return `mean ± standard deviation`; the mean is cut, not rounded up."""
    thousandths = int(1000 * fmean(values) + 1e-6)
    spread = (sum((v - fmean(values)) ** 2 for v in values) / max(1, len(values) - 1)) ** 0.5
    return f"{thousandths / 1000:.3f} ± {spread:.3f}" if len(values) > 1 else f"{values[0]:.2f}"


def table(root: str = "") -> str:
    """Return the one table of all claims, for a page from which `root` leads to records/."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for claim in CLAIMS.values():
        for recipe in claim.recipes:
            if evidence := find_evidence(claim.folder, recipe, claim.limit):
                lines.append(f"| {' | '.join(cells(claim, evidence, root))} |")
    return "\n".join(lines)


def page() -> str:
    """Return README.md, with the table of all claims."""
    return f"""# Claims

Written by `python records/reproduce.py all --tables`; `python records/check.py` compares every cell
with the run folders.

{RULE}

{table()}

Every attempt: [attempts.jsonl](attempts.jsonl). The five published systems, trained exactly as
published: [published](published/README.md).
"""


def claim_page(claim: Claim) -> str:
    """Return README.md of a claim: every seed, the machines, and all attempts."""
    lines = [f"# {claim.name}", "", f"Aim: {claim.aim}.", ""]
    lines += ["| recipe | seed | correct of 10,000 | with one forward pass | seconds |"]
    lines += ["|---|---|---|---|---|"]
    machines: list[str] = []
    for recipe in claim.recipes:
        evidence, one_pass = find_evidence(claim.folder, recipe, claim.limit), read_one_pass(claim)
        for run in evidence.runs if evidence else ():
            result = run.result or {}
            single = one_pass.get(str(result["weights_sha256"]), "-")
            name, seconds = Path(recipe).stem, result["seconds"]["total"]
            folder = os.path.relpath(run.path, claim.folder)
            lines.append(
                f"| {name} | [{run.seed}]({folder}) | {result['test']['correct']} | {single} "
                f"| {seconds:.0f} |"
            )
            environment = run.environment
            changed = " with changed code" if environment["code"]["dirty"] else ""
            machines.append(
                f"- {environment['processor']}, {environment['cores']} cores, "
                f"{environment['threads']} thread(s) a run, torch {environment['torch']}, commit "
                f"{str(environment['code']['commit'])[:12]}{changed}"
            )
    lines += ["", f"Command: `python records/reproduce.py {claim.name}`", "", "Machines:", ""]
    lines += [*dict.fromkeys(machines), "", "All studies that evaluated the test split:", ""]
    lines += ["| date | recipe | seeds | mean % | where |", "|---|---|---|---|---|"]
    for attempt in read_attempts():
        if attempt.claim == claim.name:
            mean = "-" if attempt.mean is None else f"{attempt.mean:.3f}"
            lines.append(f"| {attempt.date} | {attempt.recipe} | {attempt.seeds} | {mean} "
                         f"| {attempt.source} |")  # fmt: skip
    return "\n".join([*lines, *_uplift_seconds(claim)]) + "\n"


def _uplift_seconds(claim: Claim) -> list[str]:
    """Return the seconds that benchmarks/uplift.py measured, where a claim has them."""
    measured = claim.folder / "seconds.json"
    if not measured.is_file():
        return []
    kept = json.loads(measured.read_text())
    lines = [
        "",
        "Seconds of a whole training, epochs taken in turn: in the write-up's own loop, as",
        f"published under whit, and under the recipe here. Command: `{kept['command']}`.",
        "",
        "| network | its own loop | as published, under whit | here | here / its own loop |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name.removeprefix('published-')} | {row['notebook']:.0f} | {row['published']:.0f} "
        f"| {row['uplift']:.0f} | 1/{1 / row['ratio']:.1f} |"
        for name, row in kept["seconds"].items()
    ]
    return [*lines, "", f"Machine: {kept['machine']}."]


def write_pages(claims: Iterable[Claim]) -> None:
    """Write the page of each claim, and the table of all."""
    for claim in claims:
        atomic_write(claim.folder / "README.md", claim_page(claim).encode())
    atomic_write(PAGE, page().encode())
