"""The report of one run, as a document."""

from __future__ import annotations

from whit.reports import sections
from whit.reports.document import Block, CodeBlock, Details, Document, Picture, Section, Text
from whit.reports.error_sections import error_sections
from whit.reports.figures.plots import draw_curves
from whit.reports.run_facts import RunFacts
from whit.reports.wording import describe_trend, one_line, plural, truncate
from whit.system.numbers import percent


def run_document(facts: RunFacts) -> Document:
    """Return the report of a run in any state."""
    run = facts.run
    seed = "" if run.seed is None else f", seed {truncate(run.seed)}"
    parts = [
        Section("Verdict", sections.verdict_blocks(facts)),
        Section("Recipe and environment", _origin_blocks(facts)),
        Section("Layers", sections.layer_blocks(facts.audit, run.local_recipe, facts.images)),
        Section("Training", _training_blocks(facts)),
        *error_sections(facts),
        Section("Reproduce", sections.run_command(run)),
    ]
    return Document(f"{run.recipe.name}{seed}", _summarize(facts), tuple(parts))


def _summarize(facts: RunFacts) -> str:
    """Return the result of the run in a sentence."""
    run, metrics = facts.run, facts.metrics
    if run.recorded_state == "diverged":
        return "The run diverged: its loss became infinite or NaN. It has no result."
    if run.result is None:
        planned = run.recipe.train.epochs
        return (
            f"The run is not finished ({run.state}): {len(run.log)} of {planned} "
            f"{plural(planned, 'epoch')} done. It has not been evaluated yet."
        )
    params = "?" if metrics.params is None else f"{metrics.params:,}"
    text = f"{params} parameters, {len(run.log)} {plural(len(run.log), 'epoch')}"
    if metrics.correct is not None and metrics.total is not None:
        text += (
            f", test accuracy {percent(metrics.correct, metrics.total)} % "
            f"({metrics.correct:,} of {metrics.total:,})"
        )
    elif analysis := facts.analysis:
        text += (
            f", validation accuracy {percent(analysis.correct, analysis.total)} % "
            f"({analysis.correct:,} of {analysis.total:,}); not evaluated on test"
        )
    return f"{text}. Verdict: {facts.verdict}."


def _training_blocks(facts: RunFacts) -> list[Block]:
    """Return the curves and the epoch log."""
    log = facts.run.log
    if not log:
        return [sections.epoch_log(log)]
    trend = describe_trend(log[0].loss, log[-1].loss)
    alt = f"Training loss {trend} over {len(log)} {plural(len(log), 'epoch')}"
    evaluations = [evaluation for record in log for evaluation in record.evaluations]
    if evaluations:
        last = evaluations[-1]
        alt += f"; the last {last.split} accuracy is {percent(last.correct, last.total)} %"
    caption = (
        "Loss, accuracy and learning rate over the epochs. Training accuracy is measured on "
        "augmented images while the weights still change, so it may lie below the accuracy on "
        "val or test."
    )
    svg = draw_curves(log, facts.run.recipe)
    return [Picture("training", svg, f"{alt}.", caption), sections.epoch_log(log)]


def _origin_blocks(facts: RunFacts) -> list[Block]:
    recipe = facts.run.recipe
    return [
        *([Text(one_line(recipe.description))] if recipe.description else []),
        sections.recipe_table(recipe),
        Details("Complete recipe", (CodeBlock("recipe.toml", recipe.to_toml()),)),
        sections.environment_table(facts.run),
    ]
