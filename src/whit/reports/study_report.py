"""The report of a study over seeds, and of several studies side by side, as a document."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from whit.budget import percent
from whit.comparison import compare
from whit.error_analysis import disputed_of
from whit.errors import InputError
from whit.reports.document import (
    Block,
    Document,
    Folded,
    Gallery,
    Lines,
    Notice,
    Picture,
    Section,
    Table,
    Text,
)
from whit.reports.error_sections import image_tile, judged_sections
from whit.reports.figures import plots
from whit.reports.figures.thumbnails import png_of
from whit.reports.run_facts import Account, audit_of
from whit.reports.sections import (
    depends_on,
    environment_table,
    layer_blocks,
    recipe_argument,
    recipe_table,
    verdict_blocks,
)
from whit.reports.study_facts import Study
from whit.reports.wording import sentence, shown, trend
from whit.seeds import Seeds

_MOST_TILES = 60
_FEW_TILES = 12  # of a study among many
_MOST_SEEDS = 100  # rows of the table
_MOST_STUDIES = 12  # sections of their own
_MOST_COMPARED = 200  # rows of the table


def study_document(study: Study) -> Document:
    """Return the report of one recipe over seeds."""
    assert study.middle is not None
    seeds = study.seeds
    first = seeds.runs[0]
    middle = study.middle
    said = f"Seed {shown(middle.run.seed)}, the median"
    sections = [
        Section("Verdict over seeds", _verdict(study)),
        Section("Seeds", _seeds(study)),
        Section("Images that most seeds get wrong", _often_wrong(study, _MOST_TILES)),
        Section("Training", _training(seeds)),
        Section(
            "Recipe and environment",
            [
                *([Text(sentence(first.recipe.description))] if first.recipe.description else []),
                recipe_table(first.recipe),
                environment_table(first),
            ],
        ),
        Section("Layers", layer_blocks(middle.audit, first.recipe, _first(study))),
        Section(said, [*verdict_blocks(middle), *judged_sections(middle)]),
        Section("Make it again", _reproduce(seeds)),
    ]
    title = f"{shown(seeds.name)} over {_counted(len(seeds.runs))}"
    return Document(title, _lead(seeds), tuple(sections))


def studies_document(name: str, studies: Sequence[Study], failures: Sequence[str]) -> Document:
    """Return the report of several recipes: the comparison, then each in short.

    `failures` are groups without a finished run.
    """
    groups = [study.seeds for study in studies]
    blocks: list[Block] = [seeds_table(groups[:_MOST_COMPARED])]
    if failures:
        blocks.append(Notice("open", "Not everything is here.", tuple(map(sentence, failures))))
    notes = [note for group in groups for note in group.notes]
    blocks += [Text(f"Note: {sentence(note)}") for note in notes]
    try:
        compared = compare(list(groups))
    except InputError as error:
        blocks.append(Text(f"No evidence for a difference: {sentence(error)}"))
    else:
        blocks.insert(1, _spread(groups[:_MOST_STUDIES]))
        if compared.differences:
            head = ("recipe differs in", *(shown(group.name) for group in groups))
            rows = tuple((key, *map(shown, values)) for key, values in compared.differences)
            blocks.append(Table("Where the recipes differ", head, rows, "l" + "l" * len(groups)))
        blocks += [Text(sentence(difference)) for difference in compared.evidence]
    sections = [Section("Comparison", blocks)]
    sections += [_short(study) for study in studies[:_MOST_STUDIES]]
    if len(studies) > _MOST_STUDIES:
        left = f"{len(studies) - _MOST_STUDIES} more recipes stand in the table alone."
        sections.append(Section("And more", [Text(left)]))
    lead = f"{len(studies)} recipes, {_counted(sum(len(g.runs) for g in groups))} in all."
    return Document(shown(name), lead, tuple(sections))


def seeds_table(groups: Sequence[Seeds]) -> Table:
    """Return what the seeds of each recipe reached and cost, in the words of `compare`."""
    rows = []
    for group in groups:
        sample = group.accuracy
        rows.append(
            (
                shown(group.name),
                str(len(group.runs)),
                _mean(group),
                "-" if sample.sd is None else f"{sample.sd:.3f}",
                _interval(group) or "-",
                *(percent(r.correct, r.total) for r in (group.lowest, group.highest)),
                "open" if group.met is None else f"{group.met}/{group.num_judged}",
                group.split,
                f"{group.params:,}",
                f"{group.epochs:g}",
                f"{group.seconds:.1f}",
            )
        )
    head = (
        *("recipe", "seeds", "mean %", "± sd", "95 % interval", "smallest", "largest", "met"),
        *("split", "params", "epochs", "seconds"),
    )
    return Table("Accuracy after the last epoch, over seeds", head, tuple(rows), "lrrrrrrrlrrr")


def _short(study: Study) -> Section:
    seeds = study.seeds
    run = seeds.runs[0]
    blocks: list[Block] = [
        Text(_lead(seeds)),
        *_altered(study),
        recipe_table(run.recipe),
        Folded("Layers", tuple(layer_blocks(audit_of(run), run.recipe, _first(study)))),
        _table_of_seeds(seeds),
        *_training(seeds),
        *_often_wrong(study, _FEW_TILES),
        *_reproduce(seeds),
    ]
    return Section(shown(seeds.name), blocks)


def _verdict(study: Study) -> list[Block]:
    seeds = study.seeds
    blocks = _altered(study)
    if seeds.met is None:
        blocks.append(Notice("open", "Verdict: open. The test split was left alone."))
    else:
        mood = "good" if seeds.met == seeds.num_judged else "bad"
        said = f"{seeds.met} of {_counted(seeds.num_judged)} met the budget."
        blocks.append(Notice(mood, said))  # type: ignore[arg-type]
    blocks.append(seeds_table([seeds]))
    blocks += [Text(f"Note: {sentence(note)}") for note in seeds.notes]
    return blocks


def _altered(study: Study) -> list[Block]:
    found: list[Block] = []
    if study.altered:
        found.append(
            Notice("bad", "The record does not hold.", tuple(map(sentence, study.altered)))
        )
    if study.missing:
        found.append(Notice("open", "Not every seed is here.", tuple(map(sentence, study.missing))))
    return found


def _seeds(study: Study) -> list[Block]:
    said = (
        "The seals of all runs were checked; the run of median accuracy was evaluated anew. "
        "whit audit does that for any run folder."
    )
    return [_spread([study.seeds]), _table_of_seeds(study.seeds), Text(said)]


def _spread(groups: Sequence[Seeds]) -> Picture:
    limit = groups[0].runs[0].recipe.budget.limits().accuracy
    same = all(g.runs[0].recipe.budget.limits().accuracy == limit for g in groups)
    least = float(limit.value) if limit and same else None
    parts = [
        f"{shown(g.name)} from {percent(g.lowest.correct, g.lowest.total)} to "
        f"{percent(g.highest.correct, g.highest.total)} %, mean {_mean(g)} %"
        for g in groups
    ]
    alt = f"Accuracy over seeds: {'; '.join(parts)}."
    caption = "A circle a seed; below them the mean and the 95 % interval of the mean."
    return Picture("spread", plots.spread(groups, least), alt, caption)


def _table_of_seeds(seeds: Seeds) -> Table:
    rows = tuple(
        (
            shown(run.seed),
            f"{reading.correct:,}/{reading.total:,}",
            f"{percent(reading.correct, reading.total)} %",
            (run.result or {})["verdict"],
            f"{(run.result or {})['seconds']['total']:.1f}",
        )
        for run, reading in zip(seeds.runs[:_MOST_SEEDS], seeds.last, strict=False)
    )
    left = len(seeds.runs) - len(rows)
    caption = f"Each seed, as its record has it{f'; {left} more are not shown' if left else ''}"
    return Table(caption, ("seed", "right", "accuracy", "verdict", "seconds"), rows, "lrrlr")


def _training(seeds: Seeds) -> list[Block]:
    if not all(run.log for run in seeds.runs):
        return [Text("A seed has no epoch in its log.")]
    first, last = ([run.log[place].loss for run in seeds.runs] for place in (0, -1))
    said = trend(sum(first) / len(first), sum(last) / len(last))
    alt = f"Training loss {said} in the mean of {_counted(len(seeds.runs))}."
    caption = "Loss and accuracy over the epochs, a line a seed."
    return [Picture("training", plots.seed_curves(seeds), alt, caption)]


def _often_wrong(study: Study, most: int) -> list[Block]:
    seeds = study.seeds
    if seeds.split != "test":
        return [Text("Which val images were wrong does not stand in the records.")]
    found = study.often_wrong
    count = len(seeds.runs)
    if not found:
        return [Text(f"No test image is wrong for more than half of {_counted(count)}.")]
    if study.images is None:
        places = ", ".join(str(place) for place, _ in found[:most])
        return [Text(f"More than half of the seeds miss test images {places}.")]
    images, labels = study.images.images, study.images.labels
    disputed = disputed_of(seeds.runs[0])
    guesses = _guesses(study.middle)
    tiles = []
    known = [(place, wrong) for place, wrong in found if 0 <= place < len(labels)]
    for place, wrong in known[:most]:
        label = int(labels[place])
        lines = [f"#{place}", f"label {_name(study.middle, label)}", f"wrong: {wrong} of {count}"]
        if place in guesses:
            lines.append(guesses[place])
        what = f"Test image {place}, wrong for {wrong} of {_counted(count)}"
        tiles.append(image_tile(png_of(images[place]), what, tuple(lines), place in disputed))
    left = len(known) - len(tiles)
    caption = f"{len(known)} test images are wrong for more than half of {_counted(count)}."
    return [Gallery("often-wrong", caption, tuple(tiles), f"and {left:,} more" if left else "")]


def _guesses(middle: Account | None) -> dict[int, str]:
    """Return what the run of median accuracy said of each image that it got wrong."""
    if middle is None or middle.findings is None:
        return {}
    found = middle.findings
    seed = shown(middle.run.seed)
    return {e.index: f"seed {seed} said {shown(found.classes[e.predicted])}" for e in found.errors}


def _name(middle: Account | None, label: int) -> str:
    found = middle.findings if middle else None
    return shown(found.classes[label]) if found else str(label)


def _reproduce(seeds: Seeds) -> list[Block]:
    run = seeds.runs[0]
    if run.recipe.model.is_given:
        return [Text("The model was given in Python, so no command can build it again.")]
    known = [r.seed for r in seeds.runs if r.seed is not None]
    threads = run.environment.get("threads")
    command = f"whit study {recipe_argument(run)} --seeds {max(known, default=0) + 1}"
    if isinstance(threads, int):
        command += f" --threads {threads}"
    return [Lines("The command", command), Text(depends_on(run))]


def _lead(seeds: Seeds) -> str:
    interval = _interval(seeds)
    said = f"{_mean(seeds)} % on {seeds.split} in the mean of {_counted(len(seeds.runs))}"
    if interval and seeds.accuracy.sd is not None:
        said += f" (standard deviation {seeds.accuracy.sd:.3f}, 95 % interval {interval})"
    said += f", {seeds.params:,} parameters, {seeds.epochs:g} epochs"
    if seeds.met is not None:
        said += f"; {seeds.met} of {seeds.num_judged} met the budget"
    return f"{said}."


def _mean(seeds: Seeds) -> str:
    return f"{math.floor(1000 * seeds.accuracy.mean + 1e-6) / 1000:.3f}"  # never rounded up


def _interval(seeds: Seeds) -> str | None:
    interval = seeds.accuracy.interval
    return f"{interval[0]:.3f}–{interval[1]:.3f}" if interval else None


def _counted(count: int) -> str:
    return f"{count:,} seed{'' if count == 1 else 's'}"


def _first(study: Study) -> Tensor | None:
    return study.images.images[0] if study.images is not None else None
