"""The report of a study over seeds, and the comparison of several studies, as a document."""

from __future__ import annotations

from collections.abc import Sequence

from whit.errors import InputError
from whit.experiments.comparison import compare
from whit.experiments.seed_group import TABLE_HEAD, SeedGroup
from whit.recipes.budget import Limit
from whit.reports.citation import citation_blocks
from whit.reports.document import Block, Callout, Details, Document, Picture, Section, Table, Text
from whit.reports.error_sections import build_gallery, build_thumbnail, error_sections
from whit.reports.figures.plots import draw_seed_curves, draw_seed_spread
from whit.reports.run_facts import RunFacts, audit_recipe
from whit.reports.sections import (
    environment_table,
    layer_blocks,
    recipe_table,
    study_command,
    verdict_blocks,
)
from whit.reports.study_facts import StudyFacts
from whit.reports.wording import describe_trend, one_line, plural, truncate
from whit.system.numbers import percent
from whit.verification.error_analysis import known_label_errors

_MAX_THUMBNAILS = 60
_MAX_THUMBNAILS_PER_STUDY = 12  # of a study among several
_MAX_SEEDS = 100  # rows of the table
_MAX_STUDIES = 12  # with a section each
_MAX_COMPARED = 200  # rows of the table


def study_document(study: StudyFacts) -> Document:
    """Return the report of one recipe over seeds."""
    seeds, median = study.seeds, study.median_run
    assert median is not None
    first, recipe = seeds.runs[0], seeds.runs[0].recipe
    description = [Text(one_line(recipe.description))] if recipe.description else []
    origin: list[Block] = [*description, recipe_table(recipe), environment_table(first)]
    median_blocks = [*verdict_blocks(median), *error_sections(median)]
    sections = [
        Section("Verdict over seeds", _verdict_blocks(study)),
        Section("Seeds", _seed_blocks(study)),
        Section("Commonly misclassified images", _misclassified_blocks(study, _MAX_THUMBNAILS)),
        Section("Training", _training_blocks(seeds)),
        Section("Recipe and environment", origin),
        Section("Layers", layer_blocks(median.audit, median.run.local_recipe, study.images)),
        Section(f"Median run: seed {truncate(median.run.seed)}", median_blocks),
        Section("Reproduce", study_command(seeds.runs)),
        Section("Citation", citation_blocks()),
    ]
    title = f"{truncate(seeds.name)} over {_count_seeds(len(seeds.runs))}"
    return Document(title, _summarize(seeds), tuple(sections))


def comparison_document(
    name: str, studies: Sequence[StudyFacts], failures: Sequence[str]
) -> Document:
    """Return the report of several recipes: the comparison, then a section for each.

    `failures` are the problems of groups without a finished run.
    """
    groups = [study.seeds for study in studies]
    blocks: list[Block] = [seeds_table(groups[:_MAX_COMPARED])]
    if failures:
        blocks.append(Callout("pending", "Omitted", tuple(map(one_line, failures))))
    blocks += [Text(f"Note: {one_line(note)}") for group in groups for note in group.notes]
    try:
        comparison = compare(list(groups))
    except InputError as error:
        blocks.append(Text(f"No significance test: {one_line(error)}"))
    else:
        blocks.insert(1, _spread_picture(groups[:_MAX_STUDIES]))
        if comparison.differences:
            head = ("recipe key", *(truncate(group.name) for group in groups))
            rows = tuple((key, *map(truncate, values)) for key, values in comparison.differences)
            blocks.append(Table("Differences of the recipes", head, rows, "l" + "l" * len(groups)))
        blocks += [Text(one_line(sentence)) for sentence in comparison.evidence]
        if comparison.correction:
            blocks.append(Text(comparison.correction))
    sections = [Section("Comparison", blocks)]
    sections += [_study_section(study) for study in studies[:_MAX_STUDIES]]
    if len(studies) > _MAX_STUDIES:
        text = f"{len(studies) - _MAX_STUDIES} more recipes are listed in the table only."
        sections.append(Section("Further recipes", [Text(text)]))
    sections.append(Section("Citation", citation_blocks()))
    total = _count_seeds(sum(len(group.runs) for group in groups))
    return Document(truncate(name), f"{len(studies)} recipes, {total} in total.", tuple(sections))


def seeds_table(groups: Sequence[SeedGroup]) -> Table:
    """Return accuracy and cost of each recipe over seeds: the table of `compare`, no best epoch."""
    best = TABLE_HEAD.index("best epoch %")
    head, *rows = (
        (truncate(row[0]), *row[1:best], *row[best + 1 :])
        for row in (TABLE_HEAD, *(group.table_row for group in groups))
    )
    return Table("Accuracy after the last epoch, over seeds", head, tuple(rows), "lrrrrrrrlrrr")


def _seeds_summary(group: SeedGroup) -> Table:
    """Return accuracy and cost of one recipe over seeds, a row for each: it fits any width."""
    table = seeds_table([group])
    rows = tuple(zip(table.head[1:], table.rows[0][1:], strict=True))
    return Table(table.caption, ("metric", "value"), rows, "ll")


def _study_section(study: StudyFacts) -> Section:
    """Return the section of a study among several."""
    seeds = study.seeds
    run = seeds.runs[0]
    layers = layer_blocks(audit_recipe(run), run.local_recipe, study.images)
    blocks: list[Block] = [
        Text(_summarize(seeds)),
        *_problem_blocks(study),
        recipe_table(run.recipe),
        Details("Layers", tuple(layers)),
        _seed_table(seeds),
        *_training_blocks(seeds),
        *_misclassified_blocks(study, _MAX_THUMBNAILS_PER_STUDY),
        *study_command(seeds.runs),
    ]
    return Section(truncate(seeds.name), blocks)


def _verdict_blocks(study: StudyFacts) -> list[Block]:
    seeds = study.seeds
    if seeds.num_passed is None:
        callout = Callout("pending", "Verdict: pending (not evaluated on test).")
    else:
        text = f"{seeds.num_passed} of {_count_seeds(seeds.num_judged)} met the budget."
        callout = Callout("good" if seeds.num_passed == seeds.num_judged else "bad", text)
    notes = [Text(f"Note: {one_line(note)}") for note in seeds.notes]
    return [*_problem_blocks(study), callout, _seeds_summary(seeds), *notes]


def _problem_blocks(study: StudyFacts) -> list[Block]:
    messages = (
        Callout("bad", "Integrity check failed.", tuple(map(one_line, study.altered))),
        Callout("pending", "Runs without a result", tuple(map(one_line, study.missing))),
    )
    return [callout for callout in messages if callout.items]


def _seed_blocks(study: StudyFacts) -> list[Block]:
    text = (
        "The SHA-256 digests of all runs were verified, and the run of median accuracy was "
        "evaluated again. `whit audit` does both for any run folder."
    )
    return [_spread_picture([study.seeds]), _seed_table(study.seeds), Text(text)]


def _spread_picture(groups: Sequence[SeedGroup]) -> Picture:
    limits = {group.runs[0].recipe.budget.accuracy for group in groups}
    limit = limits.pop() if len(limits) == 1 else None
    min_accuracy = float(Limit.parse(limit).value) if limit else None
    parts = [
        f"{truncate(g.name)} from {percent(g.min.correct, g.min.total)} to "
        f"{percent(g.max.correct, g.max.total)} %, mean {g.mean_text} %"
        for g in groups
    ]
    alt = f"Accuracy over seeds: {'; '.join(parts)}."
    caption = "Accuracy of each seed (circles), their mean and its 95 % confidence interval."
    return Picture("spread", draw_seed_spread(groups, min_accuracy), alt, caption)


def _seed_table(seeds: SeedGroup) -> Table:
    rows = tuple(
        (truncate(run.seed), f"{last.correct}/{last.total}",
         f"{percent(last.correct, last.total)} %", (run.result or {})["verdict"],
         f"{(run.result or {})['seconds']['total']:.1f}")
        for run, last in zip(seeds.runs[:_MAX_SEEDS], seeds.last, strict=False)
    )  # fmt: skip
    omitted = len(seeds.runs) - len(rows)
    more = f"; {omitted} more are not shown" if omitted else ""
    caption = f"Recorded result of each seed{more}"
    return Table(caption, ("seed", "correct", "accuracy", "verdict", "seconds"), rows, "lrrlr")


def _training_blocks(seeds: SeedGroup) -> list[Block]:
    if not all(run.log for run in seeds.runs):
        return [Text("The log of at least one seed is empty.")]
    count = len(seeds.runs)
    first, last = (sum(run.log[i].loss for run in seeds.runs) / count for i in (0, -1))
    alt = f"Training loss {describe_trend(first, last)} on average over {_count_seeds(count)}."
    caption = (
        "Loss and accuracy over the epochs, one line per seed, and the learning-rate schedule."
    )
    return [Picture("training", draw_seed_curves(seeds), alt, caption)]


def _misclassified_blocks(study: StudyFacts, max_thumbnails: int) -> list[Block]:
    """Return the images that more than half of the seeds misclassify."""
    seeds = study.seeds
    if seeds.split != "test":
        return [Text("Runs do not record which val images were misclassified.")]
    common = study.commonly_misclassified
    count = len(seeds.runs)
    if not common:
        text = f"No test image is misclassified by more than half of {_count_seeds(count)}."
        return [Text(text)]
    if study.images is None:
        indices = ", ".join(str(index) for index, _ in common[:max_thumbnails])
        return [Text(f"More than half of the seeds misclassify test images {indices}.")]
    images, labels = study.images.images, study.images.labels
    disputed = known_label_errors(seeds.runs[0])
    predictions = _median_predictions(study.median_run)
    valid = [(index, wrong) for index, wrong in common if 0 <= index < len(labels)]
    thumbnails = []
    for index, wrong in valid[:max_thumbnails]:
        lines = [f"label {_class_name(study.median_run, int(labels[index]))}"]
        lines += [f"errors: {wrong} of {count}", *predictions.get(index, [])]
        what = f"Test image {index}, misclassified by {wrong} of {_count_seeds(count)}"
        thumbnails.append(build_thumbnail(images[index], index, what, tuple(lines), disputed))
    caption = (
        f"{len(valid)} test images are misclassified by more than half of {_count_seeds(count)}."
    )
    return [build_gallery("commonly-misclassified", caption, tuple(thumbnails), len(valid))]


def _median_predictions(median: RunFacts | None) -> dict[int, list[str]]:
    """Return the median run's prediction for each image that it misclassified, by index."""
    if median is None or median.analysis is None:
        return {}
    classes, seed = median.analysis.classes, truncate(median.run.seed)
    return {
        error.index: [f"seed {seed} predicted {truncate(classes[error.predicted])}"]
        for error in median.analysis.errors
    }


def _class_name(median: RunFacts | None, label: int) -> str:
    analysis = median.analysis if median else None
    return truncate(analysis.classes[label]) if analysis else str(label)


def _summarize(seeds: SeedGroup) -> str:
    """Return the result of a study in a sentence."""
    split = {"test": "test", "val": "validation"}[seeds.split]
    text = f"Mean {split} accuracy {seeds.mean_text} % over {_count_seeds(len(seeds.runs))}"
    if seeds.accuracy.sd is not None:
        sd = f"standard deviation {seeds.accuracy.sd:.3f}"
        text += f" ({sd}, 95 % confidence interval {seeds.interval_text})"
    text += f", {seeds.params:,} parameters, {seeds.epochs:g} epochs"
    if seeds.num_passed is not None:
        text += f"; {seeds.num_passed} of {seeds.num_judged} met the budget"
    return f"{text}."


def _count_seeds(count: int) -> str:
    return f"{count:,} {plural(count, 'seed')}"
