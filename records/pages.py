"""The pages of the claims, from their run folders: one table of all, and a page for each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from claims import CLAIMS, HERE, MIN_SEEDS, ONE_PASS, Claim, read_attempts
from evidence import (
    FIRST_SEED,
    BoardCost,
    Evidence,
    cost_text,
    cut,
    find_evidence,
    percentages,
    plan_recipe,
    weights_sha256,
)

from whit.system.atomic_files import atomic_write
from whit.system.numbers import exact_decimal

PAGE = HERE / "README.md"
RULE = f"""\
A claim holds when the lower end of the one-sided 95 % interval of its mean test accuracy reaches
its limit: Student's t over at least {MIN_SEEDS} seeds from {FIRST_SEED} on, which were never used
while tuning, each evaluated on the test split once, after the last epoch. "Claims tried" are all
studies that evaluated the test split for the same aim since the beginning, failures included.
"One forward pass" is the accuracy of the same weights, in float32, without test-time augmentation.

Claims about microcontrollers are judged by the int8 networks that run there, quantized with
training images only: accuracy and bytes of constants are those of the exported C code, the largest
of all seeds. Instructions are counted on an emulated Cortex-M4, the mean of a decision. Memory is
static RAM and the stack at its deepest, with that of the test driver."""
HEAD = (
    *("claim", "aim", "judged by", "holds", "parameters", "multiply-adds per decision"),
    *("forward passes", "epochs", "precision", "seeds", "test, mean ± sd %", "95 % interval"),
    *("worst %", "one forward pass, mean ± sd %", "claims tried", "seconds", "machine"),
    "best by others",
)


def read_one_pass(claim: Claim) -> dict[str, int]:
    """Return the correct test images with one forward pass, by the digest of the weights."""
    file = claim.folder / ONE_PASS
    rows = map(json.loads, file.read_text().splitlines()) if file.is_file() else ()
    return {row["weights_sha256"]: row["correct"] for row in rows}


def cells(claim: Claim, evidence: Evidence, root: str) -> tuple[str, ...]:
    """Return the row of a recipe in the table of claims, in the columns of HEAD."""
    plan = plan_recipe(evidence.recipe)
    tried = sum(one.claim == claim.name for one in read_attempts())
    name = Path(evidence.recipe).stem
    return (
        f"[`{name}`]({root}{claim.name}/README.md)",
        claim.aim if len(claim.recipes) == 1 else f"{claim.aim} (limit {claim.limit:.2f} %)",
        claim_cost_text(claim, evidence),
        claim.verdict(evidence),
        f"{plan.audit.params.total:,}",
        f"{plan.metrics.macs:,}",
        str(plan.metrics.forward_passes),
        exact_decimal(plan.epochs),
        f"trained in {evidence.precision}, judged in int8" if claim.is_int8 else evidence.precision,
        str(len(evidence.runs)),
        *accuracy_cells(claim.correct(evidence)),
        one_pass_text(claim, evidence),
        str(tried),
        f"{evidence.seconds:.0f}",
        evidence.machine,
        claim.public or "-",
    )


def claim_cost_text(claim: Claim, evidence: Evidence) -> str:
    """Return what a claim is judged by, such as `1,936 bytes of constants`."""
    costs = [(unit, evidence.cost(unit)) for unit in claim.costs]
    known = [cost_text(cost, unit) for unit, cost in costs if cost is not None]
    return ", ".join(known) or ("-" if claim.costs else "accuracy")


def accuracy_cells(correct: tuple[int, ...]) -> tuple[str, str, str]:
    """Return mean ± sd, interval and worst seed; `-` where there is no figure."""
    if not correct:
        return "-", "-", "-"
    accuracy = percentages(correct)
    interval = accuracy.interval
    return (
        mean_text(accuracy.values),
        f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-",
        f"{min(accuracy.values):.2f}",
    )


def one_pass_text(claim: Claim, evidence: Evidence) -> str:
    """Return the accuracy of the same weights with one forward pass; `-` where it is not known."""
    known = read_one_pass(claim)
    correct = [known.get(weights_sha256(run)) for run in evidence.runs]
    values = tuple(count / 100 for count in correct if count is not None)
    return mean_text(values) if len(values) == len(correct) else "-"


def mean_text(values: tuple[float, ...]) -> str:
    """Return `mean ± standard deviation`; the mean is cut, not rounded up."""
    spread = (sum((v - fmean(values)) ** 2 for v in values) / max(1, len(values) - 1)) ** 0.5
    return f"{cut(fmean(values))} ± {spread:.3f}" if len(values) > 1 else f"{values[0]:.2f}"


def table(root: str = "") -> str:
    """Return the one table of all claims, for a page from which `root` leads to records/."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for claim in CLAIMS.values():
        for recipe in claim.recipes:
            if evidence := find_evidence(claim.folder, recipe):
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
    head = ["recipe", "seed"]
    head += ["correct of 10,000 in int8", "in float32"] if claim.is_int8 else ["correct of 10,000"]
    head += ["with one forward pass", *(["bytes of constants"] if claim.is_int8 else [])]
    head += [*(BOARD_HEAD if claim.needs_board else ()), "seconds"]
    lines = [f"# {claim.name}", "", f"Aim: {claim.aim}.", ""]
    lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    machines: list[str] = []
    for recipe in claim.recipes:
        evidence = find_evidence(claim.folder, recipe)
        if evidence is None:
            continue
        lines += [f"| {' | '.join(row)} |" for row in seed_rows(claim, evidence)]
        for environment in (run.environment for run in evidence.runs):
            changed = " with changed code" if environment["code"]["dirty"] else ""
            machines.append(
                f"- {environment['processor']}, {environment['cores']} cores, "
                f"{environment['threads']} thread(s) a run, torch {environment['torch']}, commit "
                f"{str(environment['code']['commit'])[:12]}{changed}"
            )
        boards = [row.board for row in evidence.int8 if row.board]
        machines += [f"- {each.processor}, emulated: {each.tools}" for each in boards]
    lines += ["", f"Command: `python records/reproduce.py {claim.name}`", "", "Machines:", ""]
    lines += [*dict.fromkeys(machines), "", "All studies that evaluated the test split:", ""]
    lines += ["| date | recipe | seeds | mean % | where |", "|---|---|---|---|---|"]
    for attempt in read_attempts():
        if attempt.claim == claim.name:
            mean = "-" if attempt.mean is None else f"{attempt.mean:.3f}"
            lines.append(f"| {attempt.date} | {attempt.recipe} | {attempt.seeds} | {mean} "
                         f"| {attempt.source} |")  # fmt: skip
    return "\n".join([*lines, *_uplift_seconds(claim)]) + "\n"


BOARD_HEAD = (
    *("instructions: mean (largest)", "of images", "static RAM, bytes", "stack, bytes"),
    "flash, bytes",
)


def seed_rows(claim: Claim, evidence: Evidence) -> list[list[str]]:
    """Return the cells of each seed on the page of a claim."""
    one_pass, rows = read_one_pass(claim), []
    int8 = {row.weights_sha256: row for row in evidence.int8}
    for run in evidence.runs:
        sha256, result = weights_sha256(run), run.result or {}
        row, cost = int8.get(sha256), []
        correct = [str(result["test"]["correct"])]
        if claim.is_int8:
            correct.insert(0, str(row.correct) if row else "-")
            cost = [f"{row.constant_bytes:,}" if row else "-"]
        if claim.needs_board:
            cost += _board_cells(row.board if row else None)
        folder = os.path.relpath(run.path, claim.folder)
        single, seconds = str(one_pass.get(sha256, "-")), f"{result['seconds']['total']:.0f}"
        name = Path(evidence.recipe).stem
        rows.append([name, f"[{run.seed}]({folder})", *correct, single, *cost, seconds])
    return rows


def _board_cells(board: BoardCost | None) -> list[str]:
    if board is None:
        return ["-"] * len(BOARD_HEAD)
    instructions = f"{board.instructions:,.0f} ({board.max_instructions:,})"
    bytes_of = [f"{size:,}" for size in (board.ram, board.stack, board.flash)]
    return [instructions, str(board.images), *bytes_of]


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
    """Write the page of each claim that was started, and the table of all."""
    for claim in claims:
        if claim.folder.is_dir():
            atomic_write(claim.folder / "README.md", claim_page(claim).encode())
    atomic_write(PAGE, page().encode())
