"""Sentences and tables that the reports of runs and of studies share."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from torch import Tensor

from whit.auditing import Audit
from whit.auditing.table import HEADINGS, cells, totals
from whit.budget import Budget, Usage, percent
from whit.data.datasets import DATASETS, describe_dataset
from whit.errors import InputError
from whit.job import recipe_id
from whit.recipe import Recipe, parse_recipe, shipped_recipes
from whit.record import KEPT, EpochRecord
from whit.reports.document import (
    Block,
    Lines,
    Notice,
    Picture,
    Table,
    Text,
)
from whit.reports.figures import network
from whit.reports.run_facts import Account
from whit.reports.wording import (
    MOOD,
    sentence,
    share,
    shown,
)
from whit.run_record import RunRecord


def budget_table(budget: Budget, usage: Usage) -> Block:
    """Return each limit beside its value."""
    rows = budget.rows(usage)
    if not rows:
        return Text("The recipe sets no limits.")
    body = tuple((rule, limit, value, KEPT[kept]) for rule, limit, value, kept in rows)
    return Table("The budget", ("rule", "limit", "value", "kept?"), body, "llll")


def layer_blocks(audit: Audit | None, recipe: Recipe, image: Tensor | None) -> list[Block]:
    """Return the layer table and its two drawings; `image` is uint8 (C, H, W)."""
    if audit is None:
        return [Text("The network cannot be built here, so its layers are not known.")]
    table = Table(
        "Layers in the order of the forward pass", HEADINGS, tuple(cells(audit)), "lllrrrr",
        total=totals(audit),
    )  # fmt: skip
    counts = audit.params
    said = (
        f"{counts.total:,} parameters: {counts.trainable:,} trainable, {counts.frozen:,} frozen, "
        f"{counts.buffers:,} in buffers; {counts.unused:,} never used. MACs are multiply-adds for "
        "one image. Field and jump are in input pixels: what a position sees, and how far "
        "neighbouring positions lie apart."
    )
    blocks: list[Block] = [table, Text(said), *map(Text, audit.notes)]
    shape = _image_shape(recipe, image)
    if shape is None:
        return blocks
    maps = network.maps_of(audit)
    if maps:
        last = "×".join(map(str, maps[-1].output_shape or ()))
        alt = (
            f"The image of {shape[1]}×{shape[2]} pixels becomes {last} in {len(maps)} changes "
            f"of shape."
        )
        caption = "How the maps shrink: squares to scale, channels × rows × columns below them."
        svg = network.draw_maps(audit, shape)
        blocks.append(Picture("maps", svg, alt, caption))
    seen = network.fields_of(audit)
    if seen:
        alt = (
            f"The receptive field grows from {seen[0].said} pixels at {shown(seen[0].name)} to "
            f"{seen[-1].said} at {shown(seen[-1].name)}, on an image of {shape[1]}×{shape[2]}."
        )
        over = [f for f in seen if f.rows > shape[1] or f.columns > shape[2]]
        caption = "How much of the image one position sees, layer by layer."
        if over:
            caption += " A field larger than the image is drawn at its edge (cut)."
        svg = network.draw_fields(audit, image, shape)
        blocks.append(Picture("fields", svg, alt, caption))
    return blocks


def _image_shape(recipe: Recipe, image: Tensor | None) -> tuple[int, int, int] | None:
    if image is not None:
        channels, height, width = image.shape
        return channels, height, width
    if recipe.data.name in DATASETS:
        return DATASETS[recipe.data.name].image_shape
    try:
        return describe_dataset(recipe.data.name)[0]
    except InputError:
        return None


def environment_table(run: RunRecord) -> Table:
    """Return what decides the bytes of a run; every value is another's text."""
    known = run.environment
    code = known.get("code")
    code = code if isinstance(code, dict) else {}
    rows = [
        ("whit", shown(known.get("whit", "unknown"))),
        ("code", code_said(run)),
        ("SHA-256 of the code", shown(code.get("sha256", "unknown"))[:16]),
        *(
            (name, shown(known.get(key, "unknown")))
            for name, key in (
                ("torch", "torch"),
                ("NumPy", "numpy"),
                ("Python", "python"),
                ("system", "system"),
                ("processor", "processor"),
                ("cores", "cores"),
                ("threads", "threads"),
                ("device", "device"),
            )
        ),
        ("SHA-256 of the data", shown(known.get("data_sha256", "unknown"))[:16]),
        ("seed", shown(run.seed)),
    ]
    if run.result:
        rows.append(("SHA-256 of the weights", shown(run.result["weights_sha256"])[:16]))
    return Table("Where it was trained", ("what", "value"), tuple(rows), "ll")


def code_said(run: RunRecord) -> str:
    """Say which commit of whit trained a run, and whether its files were changed."""
    code = run.environment.get("code")
    commit = code.get("commit") if isinstance(code, dict) else None
    if not isinstance(code, dict) or commit is None:
        return "an installed package, or unknown"
    changed = ", and changes that were not committed" if code.get("dirty") else ", unchanged"
    return f"commit {shown(commit)[:12]}{changed}"


def recipe_table(recipe: Recipe) -> Table:
    """Return what matters most of a recipe."""
    train, optim = recipe.train, recipe.optim
    sizes = ", ".join(f"{key} = {value}" for key, value in recipe.model.arguments.items())
    warps = [
        f"{name} {value:g}"
        for name in ("rotate", "shift", "scale", "shear")
        if (value := getattr(recipe.augment, name))
    ]
    until = recipe.augment.until
    dropped = train.dropout_until
    rows = [
        ("model", shown(f"{recipe.model.name} ({sizes})" if sizes else recipe.model.name)),
        ("data", shown(recipe.data.name)),
        *([("held out for val", f"{recipe.data.val:,} images")] if recipe.data.val else []),
        ("epochs", f"{train.epochs:,} in batches of {train.batch_size:,}"),
        ("optimiser", f"{optim.name}, peak learning rate {optim.lr:g}, "
                      f"weight decay {optim.weight_decay:g}"),
        ("warps", (", ".join(warps) + (f", until {share(until)} of training" * (until < 1)))
                  if warps else "none"),
        *([("dropout", f"until {share(dropped)} of training")] if dropped else []),
    ]  # fmt: skip
    return Table("The recipe in short", ("what", "value"), tuple(rows), "ll")


def epoch_log(log: Sequence[EpochRecord]) -> Block:
    """Return a training line for each epoch, and one for each reading."""
    if not log:
        return Text("No epoch was completed.")
    planned = len(log)
    lines = []
    for record in log:
        right = f"{record.correct}/{record.total} ({percent(record.correct, record.total)}%)"
        lines.append(
            f"Epoch {record.epoch}/{planned}: loss {record.loss:.4f}, accuracy {right}, "
            f"learning rate {record.lr:.3g}, {record.seconds:.1f} s"
        )
        lines += [str(reading) for reading in record.evaluations]
    return Lines("The epoch log; training images are counted as the network saw them, warped",
                 "\n".join(lines))  # fmt: skip


def reproduce_run(run: RunRecord) -> list[Block]:
    """Return the one command that makes a run again, and what it depends on."""
    recipe = run.recipe
    seed = shown(run.seed if run.seed is not None else 0)
    if recipe.model.is_given:
        call = f'whit.train(whit.load_recipe("recipe.toml"), YourModel(), seed={seed})'
        return [
            Text("The model was given in Python, so no command can build it again:"),
            Lines("In Python, beside the run's recipe.toml", call),
            Text(depends_on(run)),
        ]
    command = f"whit train {recipe_argument(run)} --seed {shlex.quote(seed)}"
    return [Lines("The command", command + machine_options(run)), Text(depends_on(run))]


def recipe_argument(run: RunRecord) -> str:
    """Return how a command names the run's recipe: a shipped name, or its file."""
    shipped = shipped_recipes()
    name = run.recipe.name
    if name in shipped and recipe_id(parse_recipe(shipped[name], name)) == recipe_id(run.recipe):
        return name
    return shlex.quote(str(run.path / "recipe.toml"))


def machine_options(run: RunRecord) -> str:
    threads, device = run.environment.get("threads"), run.environment.get("device")
    options = f" --threads {threads}" if isinstance(threads, int) else ""
    if isinstance(device, str) and device != "cpu":
        options += f" --device {shlex.quote(shown(device))}"
    return options


def depends_on(run: RunRecord) -> str:
    return (
        f"With whit of {code_said(run)}. The same machine, threads, versions and data give the "
        "same weights to the byte; another machine or torch gives another network of the same "
        "kind (docs/DETERMINISM.md)."
    )


def verdict_blocks(account: Account) -> list[Block]:
    """Return the verdict, each limit beside its value, and what a reader must know."""
    run = account.run
    blocks: list[Block] = []
    if account.mismatches:
        messages = tuple(sentence(found.message) for found in account.mismatches)
        said = "The record does not hold (verdict: missed)."
        blocks.append(Notice("bad", said, messages))
    budget = run.recipe.budget.limits()
    if run.state == "diverged":
        where = (run.result or {}).get("diverged")
        where = where if isinstance(where, dict) else {}
        at = f"epoch {shown(where.get('epoch', '?'))}, step {shown(where.get('step', '?'))}"
        blocks.append(Notice("bad", f"Verdict: missed. The run diverged at {at}."))
    elif run.result is None:
        blocks.append(Notice("open", f"Verdict: open. The run is not finished: {run.state}."))
    else:
        messages = tuple(found.message for found in budget.violations(account.usage))
        source = "recomputed from the saved weights" if account.judgement else "as recorded"
        said = f"Verdict: {account.verdict} ({source})."
        blocks.append(Notice(MOOD[account.verdict], said, messages))
    if account.problem:
        blocks.append(Notice("open", f"Not recomputed: {sentence(account.problem)}"))
    blocks += _other_count(account)
    blocks.append(budget_table(budget, account.usage))
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
