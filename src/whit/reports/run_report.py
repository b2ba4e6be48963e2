"""The report of one run, as a document."""

from __future__ import annotations

from torch import Tensor

from whit.budget import percent
from whit.reports.document import Block, Document, Folded, Lines, Picture, Section, Text
from whit.reports.error_sections import judged_sections
from whit.reports.figures import plots
from whit.reports.run_facts import Account
from whit.reports.sections import (
    environment_table,
    epoch_log,
    layer_blocks,
    recipe_table,
    reproduce_run,
    verdict_blocks,
)
from whit.reports.wording import epochs_said, sentence, shown, trend


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
    run, usage = account.run, account.usage
    if run.state == "diverged":
        return "The run diverged: its loss was no longer a finite number. It claims nothing."
    if run.result is None:
        planned = run.recipe.train.epochs
        return (
            f"The run is not finished ({run.state}): {len(run.log)} of {epochs_said(planned)} "
            "are done. Nothing is judged yet."
        )
    params = "?" if usage.params is None else f"{usage.params:,}"
    said = f"{params} parameters, {epochs_said(len(run.log))}"
    if usage.correct is not None and usage.total is not None:
        right = f"{usage.correct:,} of {usage.total:,}"
        said += f", {right} test images right ({percent(usage.correct, usage.total)} %)"
    elif account.findings:
        found = account.findings
        right = f"{found.correct:,} of {found.total:,}"
        said += (
            f", {right} validation images right ({percent(found.correct, found.total)} %); the "
            "test split was left alone"
        )
    return f"{said}. Verdict: {account.verdict}."


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
