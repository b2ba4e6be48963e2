"""The report of one run, as a document."""

from __future__ import annotations

from torch import Tensor

from whit.budget import percent
from whit.reporting import plots
from whit.reporting.account import Account
from whit.reporting.document import (
    Block,
    Document,
    Folded,
    Lines,
    Notice,
    Picture,
    Section,
    Text,
)
from whit.reporting.images_report import judged_sections
from whit.reporting.words import (
    MOOD,
    budget_table,
    environment_table,
    epoch_log,
    epochs_said,
    layer_blocks,
    recipe_table,
    reproduce_run,
    sentence,
    shown,
    trend,
)


def run_document(account: Account) -> Document:
    """Return the report of a run, whatever its end was."""
    run = account.run
    seed = "" if run.seed is None else f", seed {shown(run.seed)}"
    sections = [
        Section("Verdict", verdict_blocks(account)),
        Section("Recipe and environment", _origin(account)),
        Section("Layers", layer_blocks(account.audit, run.recipe, _first(account))),
        Section("Training", training_blocks(account)),
        *judged_sections(account),
        Section("Make it again", reproduce_run(run)),
    ]
    return Document(f"{run.recipe.name}{seed}", lead(account), tuple(sections))


def lead(account: Account) -> str:
    """Return what the run comes to, in a sentence."""
    run, metrics = account.run, account.metrics
    if run.state == "diverged":
        return "The run diverged: its loss was no longer a finite number. It claims nothing."
    if run.result is None:
        planned = run.recipe.train.epochs
        return (
            f"The run is not finished ({run.state}): {len(run.log)} of {epochs_said(planned)} "
            "are done. Nothing is judged yet."
        )
    params = "?" if metrics.params is None else f"{metrics.params:,}"
    said = f"{params} parameters, {epochs_said(len(run.log))}"
    if metrics.correct is not None and metrics.total is not None:
        right = f"{metrics.correct:,} of {metrics.total:,}"
        said += f", {right} test images right ({percent(metrics.correct, metrics.total)} %)"
    elif account.findings:
        found = account.findings
        right = f"{found.correct:,} of {found.total:,}"
        said += (
            f", {right} validation images right ({percent(found.correct, found.total)} %); the "
            "test split was left alone"
        )
    return f"{said}. Verdict: {account.verdict}."


def verdict_blocks(account: Account) -> list[Block]:
    """Return the verdict, each limit beside its value, and what a reader must know."""
    run = account.run
    blocks: list[Block] = []
    if account.mismatches:
        messages = tuple(sentence(found.message) for found in account.mismatches)
        said = "The record does not hold (verdict: missed)."
        blocks.append(Notice("bad", said, messages))
    budget = run.recipe.budget.to_budget()
    if run.state == "diverged":
        where = (run.result or {}).get("diverged")
        where = where if isinstance(where, dict) else {}
        at = f"epoch {shown(where.get('epoch', '?'))}, step {shown(where.get('step', '?'))}"
        blocks.append(Notice("bad", f"Verdict: missed. The run diverged at {at}."))
    elif run.result is None:
        blocks.append(Notice("open", f"Verdict: open. The run is not finished: {run.state}."))
    else:
        messages = tuple(found.message for found in budget.violations(account.metrics))
        source = "recomputed from the saved weights" if account.judgement else "as recorded"
        said = f"Verdict: {account.verdict} ({source})."
        blocks.append(Notice(MOOD[account.verdict], said, messages))
    if account.problem:
        blocks.append(Notice("open", f"Not recomputed: {sentence(account.problem)}"))
    blocks += _other_count(account)
    blocks.append(budget_table(budget, account.metrics))
    if not run.recipe.train.test:
        blocks.append(
            Text("The recipe leaves the test split alone: what follows is of the val split.")
        )
    notes = account.judgement.notes if account.judgement else ()
    blocks += [Text(f"Note: {sentence(note)}") for note in notes]
    return blocks


def _other_count(account: Account) -> list[Block]:
    """Say where the val images right here and now are not as many as the log has."""
    found, last = account.findings, account.run.last_val
    if found is None or found.split != "val" or last is None or last.correct == found.correct:
        return []
    said = (
        f"The log says {last.correct}/{last.total} on val after the last epoch; these "
        f"weights give {found.correct}/{found.total} here."
    )
    return [Notice("bad", said)]


def training_blocks(account: Account) -> list[Block]:
    """Return the curves and the epoch log."""
    run = account.run
    log = run.log
    if not log:
        return [epoch_log(log)]
    readings = [reading for record in log for reading in record.evaluations]
    alt = f"Training loss {trend(log[0].loss, log[-1].loss)} over {epochs_said(len(log))}"
    if readings:
        last = readings[-1]
        alt += f"; the last reading is {percent(last.correct, last.total)} % on {last.split}"
    caption = (
        "Loss, accuracy and learning rate over the epochs. Training images are warped, and counted "
        "while the weights still change, so their accuracy may lie below that of the split read."
    )
    return [
        Picture("training", plots.curves(log, run.recipe), f"{alt}.", caption),
        epoch_log(log),
    ]


def _origin(account: Account) -> list[Block]:
    run = account.run
    blocks: list[Block] = []
    if run.recipe.description:
        blocks.append(Text(sentence(run.recipe.description)))
    whole = Lines("recipe.toml", run.recipe.to_toml())
    return [
        *blocks,
        recipe_table(run.recipe),
        Folded("The whole recipe", (whole,)),
        environment_table(run),
    ]


def _first(account: Account) -> Tensor | None:
    return account.images.images[0] if account.images is not None else None
