"""The errors of a network on the split that it was evaluated on, as sections of a report."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from whit.reports.document import Block, Details, Gallery, Picture, Section, Table, Text, Thumbnail
from whit.reports.figures.plots import draw_reliability
from whit.reports.figures.thumbnails import encode_png
from whit.reports.run_facts import RunFacts
from whit.reports.wording import format_percent, one_line, plural, truncate
from whit.system.numbers import percent
from whit.verification import error_analysis
from whit.verification.error_analysis import ErrorAnalysis

_MAX_THUMBNAILS = 100
_MAX_CLASSES = 20  # of a confusion matrix; with more classes, the most confused pairs are listed
_MAX_ROWS = 20
_MAX_PROBABILITIES = 3  # below an image


def error_sections(facts: RunFacts) -> list[Section]:
    """Return the errors on the split that a run was evaluated on, as far as they are known."""
    analysis = facts.analysis
    if analysis is None or facts.images is None:
        return _recorded_errors(facts)
    images = facts.images.images
    return [
        Section("Confusion matrix", confusion_blocks(analysis)),
        Section("Accuracy per class", class_blocks(analysis)),
        Section(f"Misclassified {analysis.split} images", misclassified_blocks(analysis, images)),
        Section("Calibration", calibration_blocks(analysis.calibration)),
    ]


def confusion_blocks(analysis: ErrorAnalysis) -> list[Block]:
    """Return the confusion matrix, or with many classes the most confused pairs."""
    pairs = analysis.confused_pairs
    if not pairs:
        return [Text(f"No {analysis.split} image was misclassified.")]
    names = [_class_name(analysis, label) for label in range(len(analysis.classes))]
    true, predicted, count = pairs[0]
    summary = Text(
        f"Most often confused: label {names[true]}, predicted {names[predicted]}, "
        f"{count} {plural(count, 'time')}."
    )
    if len(names) > _MAX_CLASSES:
        rows = tuple((names[t], names[p], f"{n:,}") for t, p, n in pairs[:_MAX_ROWS])
        caption = f"Most confused pairs of classes, {len(rows)} of {len(pairs):,}"
        return [summary, Table(caption, ("label", "predicted", "images"), rows, "llr")]
    body, shades = [], []
    for true in range(len(names)):
        counts = [analysis.confusion.get((true, label), 0) for label in range(len(names))]
        body.append((names[true], *(f"{count:,}" for count in counts)))
        wrong = [n / count if p != true and n else None for p, n in enumerate(counts)]
        shades.append((None, *wrong))
    caption = "Rows are labels, columns are predictions; errors are shaded"
    head = ("true \\ predicted", *names)
    return [summary, Table(caption, head, tuple(body), "l" + "r" * len(names), tuple(shades))]


def class_blocks(analysis: ErrorAnalysis) -> list[Block]:
    """Return the accuracy of each class; with many classes the lowest ones."""
    counts = [c for c in analysis.by_class if c.total]
    selected = counts
    caption = f"Accuracy per class on the {analysis.split} split"
    if len(counts) > _MAX_CLASSES:
        selected = sorted(counts, key=lambda c: (c.correct / c.total, c.label))[:_MAX_ROWS]
        caption = f"The {len(selected)} classes with the lowest accuracy, of {len(counts):,}"
    max_error = max((c.total - c.correct) / c.total for c in counts) or 1.0
    rows = tuple(
        (_class_name(analysis, c.label), f"{c.correct:,}", f"{c.total - c.correct:,}",
         f"{c.total:,}", f"{percent(c.correct, c.total)} %")
        for c in selected
    )  # fmt: skip
    shades = tuple(
        (None, None, (c.total - c.correct) / c.total / max_error or None, None, None)
        for c in selected
    )
    head = ("class", "correct", "errors", "images", "accuracy")
    return [Table(caption, head, rows, "lrrrr", shades)]


def misclassified_blocks(analysis: ErrorAnalysis, images: Tensor) -> list[Block]:
    """Return the misclassified images, worst first; `images` is uint8 (N, C, H, W)."""
    if not analysis.errors:
        return [Text(f"Every {analysis.split} image was classified correctly.")]
    selected = analysis.errors[:_MAX_THUMBNAILS]
    thumbnails = tuple(_error_thumbnail(analysis, error, images) for error in selected)
    caption = (
        f"{analysis.num_errors:,} of {analysis.total:,} {analysis.split} images are misclassified, "
        "sorted by the probability of the true class, lowest first. #N is the index of the image "
        "in the split, starting at 0."
    )
    if any(error.disputed for error in selected):
        caption += " Disputed: most human annotators reject the label."
    return [build_gallery("errors", caption, thumbnails, analysis.num_errors)]


def calibration_blocks(calibration: error_analysis.Calibration) -> list[Block]:
    """Return the reliability diagram and the expected calibration error."""
    text = (
        f"Expected calibration error (ECE): {100 * calibration.error:.2f} %. It is the mean gap "
        f"between confidence and accuracy over {len(calibration.bins)} bins of equal width, "
        "weighted by the images in each bin (Guo et al. 2017, arXiv:1706.04599). Confidence is "
        "the probability of the predicted class."
    )
    bins = [b for b in calibration.bins if b.count]
    alt = (
        f"Reliability diagram: accuracy against confidence in {len(bins)} non-empty bins; the "
        f"expected calibration error is {100 * calibration.error:.2f} %."
    )
    caption = (
        "Reliability diagram. On the dashed line confidence equals accuracy. Below: number of "
        "images in each bin."
    )
    rows = tuple(
        (f"{b.low:.2f} to {b.high:.2f}", f"{b.count:,}", f"{b.confidence:.3f}", f"{b.accuracy:.3f}")
        for b in bins
    )
    head = ("bin", "images", "mean confidence", "accuracy")
    table = Table("Non-empty confidence bins", head, rows, "lrrr")
    return [
        Text(text),
        Picture("calibration", draw_reliability(calibration), alt, caption),
        Details("Data of the diagram", (table,)),
    ]


def build_thumbnail(
    image: Tensor, index: int, what: str, lines: tuple[str, ...], disputed: Collection[int]
) -> Thumbnail:
    """Return an image of a split, uint8 (C, H, W), with its index above the lines.

    `disputed` are the indices that are marked as label errors.
    """
    alt, mark = (", label disputed", "label disputed") if index in disputed else ("", "")
    return Thumbnail(encode_png(image), f"{what}{alt}", (f"#{index}", *lines), mark)


def build_gallery(
    name: str, caption: str, thumbnails: tuple[Thumbnail, ...], total: int
) -> Gallery:
    """Return a gallery of some of `total` images."""
    omitted = total - len(thumbnails)
    return Gallery(name, caption, thumbnails, f"and {omitted:,} more" if omitted else "")


def _error_thumbnail(
    analysis: ErrorAnalysis, error: error_analysis.Misclassification, images: Tensor
) -> Thumbnail:
    true, predicted = (_class_name(analysis, label) for label in (error.true, error.predicted))
    ranked = sorted(enumerate(error.probabilities), key=lambda item: -item[1])
    top = ranked[:_MAX_PROBABILITIES]
    if error.true not in [label for label, _ in top]:
        top[-1] = (error.true, error.probabilities[error.true])
    probabilities = (f"{_class_name(analysis, k)}: {format_percent(value)}" for k, value in top)
    what = f"{analysis.split.capitalize()} image {error.index}: label {true}, predicted {predicted}"
    lines = (f"label {true}, predicted {predicted}", *probabilities)
    disputed = {error.index} if error.disputed else ()
    return build_thumbnail(images[error.index], error.index, what, lines, disputed)


def _recorded_errors(facts: RunFacts) -> list[Section]:
    """Return the recorded misclassified images of a run that cannot be recomputed."""
    run = facts.run
    if run.recorded_state != "finished":
        return []
    reason = facts.problem or facts.analysis_problem or "there are no images"
    blocks: list[Block] = [
        Text(f"Confusion matrix, confidence and calibration are unknown: {one_line(reason)}")
    ]
    wrong = (run.result or {})["test"].get("misclassified") or []
    if facts.images is not None and run.recipe.eval.test and wrong:
        images, labels = facts.images.images, facts.images.labels
        disputed = error_analysis.known_label_errors(run)
        valid = sorted({index for index in wrong if 0 <= index < len(labels)})
        thumbnails = tuple(
            build_thumbnail(images[i], i, f"Test image {i}", (f"label {int(labels[i])}",), disputed)
            for i in valid[:_MAX_THUMBNAILS]
        )
        caption = f"{len(valid):,} test images were misclassified, as recorded in the run folder."
        blocks.append(build_gallery("errors", caption, thumbnails, len(valid)))
    return [Section(f"Misclassified {facts.split} images", blocks)]


def _class_name(analysis: ErrorAnalysis, label: int) -> str:
    return truncate(analysis.classes[label], 24)
