"""The blocks that reports of runs and of studies share."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from whit.analysis import Audit
from whit.data.datasets import probe_dataset
from whit.data.splits import Split
from whit.errors import InputError
from whit.recipes.budget import Budget, Metrics
from whit.recipes.recipe import Recipe, builtin_recipes, parse_recipe, recipe_id
from whit.reports.document import Block, Callout, CodeBlock, Picture, Table, Text
from whit.reports.figures import network
from whit.reports.run_facts import RunFacts
from whit.reports.wording import SEVERITIES, format_percent, one_line, plural, truncate
from whit.runs import layout
from whit.runs.reader import RunRecord
from whit.runs.result import RULE_STATUS, EpochRecord, forward_passes_text
from whit.system.numbers import percent

# Unlike a terminal, a page has the width for the complete terms.
_LAYER_HEAD = (
    *("layer", "kind", "output", "params", "MACs", "receptive field", "effective stride"),
)


def verdict_blocks(facts: RunFacts) -> list[Block]:
    """Return the verdict, the budget table and the notes of the audit."""
    run = facts.run
    blocks: list[Block] = []
    if facts.mismatches:
        messages = tuple(one_line(mismatch.message) for mismatch in facts.mismatches)
        blocks.append(Callout("bad", "Integrity check failed (verdict: missed).", messages))
    budget = run.recipe.budget.to_budget()
    if run.recorded_state == "diverged":
        diverged = (run.result or {}).get("diverged")
        at = diverged if isinstance(diverged, dict) else {}
        step = f"epoch {truncate(at.get('epoch', '?'))}, step {truncate(at.get('step', '?'))}"
        blocks.append(Callout("bad", f"Verdict: missed. The run diverged at {step}."))
    elif run.result is None:
        blocks.append(
            Callout("pending", f"Verdict: pending. The run is not finished: {run.state}.")
        )
    else:
        messages = tuple(violation.message for violation in budget.violations(facts.metrics))
        source = "recomputed from the saved weights" if facts.audit_result else "as recorded"
        text = f"Verdict: {facts.verdict} ({source})."
        blocks.append(Callout(SEVERITIES[facts.verdict], text, messages))
    if facts.problem:
        blocks.append(Callout("pending", f"Not recomputed: {one_line(facts.problem)}"))
    blocks += _accuracy_mismatch(facts)
    blocks.append(budget_table(budget, facts.metrics))
    if not run.recipe.eval.test:
        text = "The recipe does not evaluate on test; the results below are on the val split."
        blocks.append(Text(text))
    notes = facts.audit_result.notes if facts.audit_result else ()
    return blocks + [Text(f"Note: {one_line(note)}") for note in notes]


def _accuracy_mismatch(facts: RunFacts) -> list[Block]:
    """Report a recomputed number of correct val images that differs from the log's."""
    analysis, last = facts.analysis, facts.run.last_val
    if analysis is None or analysis.split != "val" or not last or last.correct == analysis.correct:
        return []
    logged = f"The log has {last.correct}/{last.total} correct on val after the last epoch"
    recomputed = f"the saved weights give {analysis.correct}/{analysis.total}."
    return [Callout("bad", f"{logged}; {recomputed}")]


def budget_table(budget: Budget, metrics: Metrics) -> Block:
    """Return a row for each limit, with its value and whether it passes."""
    rows = budget.rows(metrics)
    if not rows:
        return Text("The recipe sets no limits.")
    body = tuple((rule, limit, value, RULE_STATUS[passes]) for rule, limit, value, passes in rows)
    return Table("Budget", ("rule", "limit", "value", "status"), body, "llll")


def layer_blocks(audit: Audit | None, recipe: Recipe, images: Split | None) -> list[Block]:
    """Return the layer table and the drawings of feature maps and receptive fields.

    The receptive fields are drawn over the first of the images.
    """
    if audit is None:
        return [Text("The network cannot be built here, so its layers are unknown.")]
    table = Table(
        "Layers in the order of the forward pass", _LAYER_HEAD, tuple(audit.rows()), "lllrrrr",
        total=audit.total_row(),
    )  # fmt: skip
    counts = audit.params
    text = (
        f"{counts.total:,} parameters: {counts.trainable:,} trainable, {counts.frozen:,} frozen, "
        f"{counts.buffers:,} in buffers; {counts.unused:,} unused. MACs: multiply-accumulate "
        "operations for one forward pass. Receptive field and effective stride (jump) are in input "
        "pixels."
    )
    cost = forward_passes_text(Metrics.from_audit(audit, recipe.eval.forward_passes), 10_000)
    blocks: list[Block] = [table, Text(text), *map(Text, [cost] if cost else [])]
    blocks += map(Text, audit.all_notes)
    shape = _image_shape(recipe, images)
    if shape is None:
        return blocks
    _, height, width = shape
    maps = network.select_feature_maps(audit)
    if maps:
        last = "×".join(map(str, maps[-1].output_shape or ()))
        alt = (
            f"Feature maps from the image of {height}×{width} pixels to {last}, in {len(maps)} "
            f"{plural(len(maps), 'shape')}."
        )
        caption = "Feature maps, drawn to scale; below each: channels × height×width."
        blocks.append(Picture("maps", network.draw_feature_maps(audit, shape), alt, caption))
    fields = network.select_receptive_fields(audit)
    if fields:
        first, last_field = fields[0], fields[-1]
        alt = (
            f"The receptive field grows from {first} pixels at {truncate(first.layer)} to "
            f"{last_field} at {truncate(last_field.layer)}, on an image of {height}×{width}."
        )
        caption = "Receptive field of one position, layer by layer, in input pixels."
        if any(field.rows > height or field.columns > width for field in fields):
            caption += " A receptive field larger than the image is clipped at its edge."
        image = images.images[0] if images else None
        svg = network.draw_receptive_fields(audit, image, shape)
        blocks.append(Picture("fields", svg, alt, caption))
    return blocks


def _image_shape(recipe: Recipe, images: Split | None) -> tuple[int, int, int] | None:
    """Return (C, H, W); None where the data set is not available."""
    if images is not None:
        _, channels, height, width = images.images.shape
        return channels, height, width
    try:
        return probe_dataset(recipe.data).image_shape
    except InputError:
        return None


def environment_table(run: RunRecord) -> Table:
    """Return what determines the bytes of a run; every value is untrusted text."""
    environment = run.environment
    digest = _code_state(run).get("sha256", "unknown")
    names = {"torch": "torch", "NumPy": "numpy", "Python": "python"}
    names |= {key: key for key in ("system", "processor", "cores", "threads", "device")}
    rows = [
        ("whit", truncate(environment.get("whit", "unknown"))),
        ("code", _describe_code(run)),
        ("SHA-256 of the code", truncate(digest)[:16]),
        *((name, truncate(environment.get(key, "unknown"))) for name, key in names.items()),
        ("SHA-256 of the data", truncate(environment.get("data_sha256", "unknown"))[:16]),
        ("seed", truncate(run.seed)),
    ]
    if run.result:
        rows.append(("SHA-256 of the weights", truncate(run.result["weights_sha256"])[:16]))
    return Table("Environment", ("setting", "value"), tuple(rows), "ll")


def _describe_code(run: RunRecord) -> str:
    """Return the commit of whit that trained a run, and whether it had uncommitted changes."""
    code = _code_state(run)
    commit = code.get("commit")
    if commit is None:
        return "installed package, commit unknown"
    changed = ", with uncommitted changes" if code.get("dirty") else ""
    return f"commit {truncate(commit)[:12]}{changed}"


def _code_state(run: RunRecord) -> dict[str, Any]:
    code = run.environment.get("code")
    return code if isinstance(code, dict) else {}


def recipe_table(recipe: Recipe) -> Table:
    """Return the main settings of a recipe."""
    train, optim, sampling = recipe.train, recipe.optim, recipe.sampling
    arguments = ", ".join(f"{key} = {value}" for key, value in recipe.model.arguments.items())
    transforms = [augmentation.describe() for augmentation in recipe.augment.active()]
    end = recipe.augment.end
    if transforms and end < 1:
        transforms.append(f"until {format_percent(end)} of training")
    dropout_end = train.dropout_end
    rows = [
        ("model", truncate(recipe.model.name + (f" ({arguments})" if arguments else ""))),
        ("data", truncate(recipe.data.name)),
        *([("validation split", recipe.data.describe_val())] if recipe.data.val_size else []),
        ("epochs", f"{train.epochs:,}"),
        *([("importance sampling", sampling.describe())] if sampling else []),
        ("batch size", f"{train.batch_size:,}"),
        ("optimizer", f"{optim.name}, peak learning rate {optim.lr:g}, "
                      f"weight decay {optim.weight_decay:g}"),
        ("augmentation", ", ".join(transforms) or "none"),
        *([("dropout", f"until {format_percent(dropout_end)} of training")] if dropout_end else []),
    ]  # fmt: skip
    return Table("Recipe", ("setting", "value"), tuple(rows), "ll")


def epoch_log(log: Sequence[EpochRecord]) -> Block:
    """Return a line of training metrics per epoch, and one per evaluation."""
    if not log:
        return Text("No epoch was completed.")
    lines = []
    for record in log:
        accuracy = f"{record.correct}/{record.total} ({percent(record.correct, record.total)}%)"
        lines.append(
            f"Epoch {record.epoch}/{len(log)}: loss {record.loss:.4f}, accuracy {accuracy}, "
            f"learning rate {record.lr:.3g}, {record.seconds:.1f} s"
        )
        lines += [str(evaluation) for evaluation in record.evaluations]
    caption = "Epoch log; training accuracy is measured on augmented images"
    return CodeBlock(caption, "\n".join(lines))


def run_command(run: RunRecord) -> list[Block]:
    """Return the command that reproduces a run, and what its result depends on."""
    seed = truncate(run.seed if run.seed is not None else 0)
    if run.recipe.model.is_in_memory:
        call = f'whit.train(whit.load_recipe("recipe.toml"), YourModel(), seed={seed})'
        return [
            Text("The model was passed in Python, so no command can build it:"),
            CodeBlock("In Python, in the folder of recipe.toml", call),
            _reproducibility_note(run),
        ]
    device = run.environment.get("device")
    command = f"whit train {_shared_arguments(run, f' --seed {shlex.quote(seed)}')}"
    if isinstance(device, str) and device != "cpu":
        command += f" --device {shlex.quote(truncate(device))}"
    return [CodeBlock("Command", command), _reproducibility_note(run)]


def study_command(runs: Sequence[RunRecord]) -> list[Block]:
    """Return the command that reproduces a study, and what its result depends on."""
    run = runs[0]
    if run.recipe.model.is_in_memory:
        return [Text("The model was passed in Python, so no command can build it.")]
    count = max((r.seed for r in runs if r.seed is not None), default=0) + 1
    command = f"whit study {_shared_arguments(run, f' --seeds {count}')}"
    return [CodeBlock("Command", command), _reproducibility_note(run)]


def _shared_arguments(run: RunRecord, seeds: str) -> str:
    """Return the recipe, a built-in name or its file, the option for seeds, and the threads."""
    builtin, name = builtin_recipes(), run.recipe.name
    if name not in builtin or recipe_id(parse_recipe(builtin[name], name)) != recipe_id(run.recipe):
        name = shlex.quote(str(run.path / layout.RECIPE))
    threads = run.environment.get("threads")
    return f"{name}{seeds}{f' --threads {threads}' if isinstance(threads, int) else ''}"


def _reproducibility_note(run: RunRecord) -> Text:
    version = truncate(run.environment.get("whit", "of unknown version"))
    return Text(
        f"Trained with whit {version} ({_describe_code(run)}). On the same machine, with the same "
        "threads, versions and data, the weights are equal byte for byte; on another machine or "
        "with another version of torch they differ, within the spread over seeds."
    )
