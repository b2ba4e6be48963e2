"""What a network did on the images that it was judged on, as sections of a report."""

from __future__ import annotations

from torch import Tensor

from whit.budget import percent
from whit.error_analysis import Calibration, Error, Findings, disputed_of
from whit.reports.document import Block, Folded, Gallery, Picture, Section, Table, Text, Tile
from whit.reports.figures import plots
from whit.reports.figures.thumbnails import png_of
from whit.reports.run_facts import Account
from whit.reports.wording import sentence, share, shown

_MOST_TILES = 100
_WHOLE_MATRIX = 20  # classes; above, only the pairs most often confused are shown
_MOST_ROWS = 20
_SAID = 3  # probabilities below an image


def judged_sections(account: Account) -> list[Section]:
    """Return what the network does on the images that it was judged on, if that is known."""
    found = account.findings
    if found is None or account.images is None:
        return _recorded_errors(account)
    images = account.images.images
    return [
        Section("Confusion", confusion_blocks(found)),
        Section("Accuracy per class", class_blocks(found)),
        Section(f"Misclassified {found.split} images", error_blocks(found, images)),
        Section("Calibration", calibration_blocks(found.calibration)),
    ]


def confusion_blocks(found: Findings) -> list[Block]:
    """Return the confusion matrix, or of many classes the pairs most often confused."""
    pairs = found.confused
    if not pairs:
        return [Text(f"No {found.split} image was confused.")]
    names = [_class(found, label) for label in range(len(found.classes))]
    true, said, count = pairs[0]
    most = (
        f"Most often confused: {names[true]} read as {names[said]}, {count} "
        f"time{'' if count == 1 else 's'}."
    )
    if len(names) > _WHOLE_MATRIX:
        rows = tuple((names[t], names[p], f"{n:,}") for t, p, n in pairs[:_MOST_ROWS])
        caption = f"The pairs most often confused, {len(rows)} of {len(pairs):,}"
        return [Text(most), Table(caption, ("true", "predicted", "images"), rows, "llr")]
    body, shades = [], []
    for true in range(len(names)):
        counts = [found.confusion.get((true, label), 0) for label in range(len(names))]
        body.append((names[true], *(f"{count:,}" for count in counts)))
        wrong = [n / count if p != true and n else None for p, n in enumerate(counts)]
        shades.append((None, *wrong))
    caption = "Rows are true classes, columns what the network said; errors are coloured"
    head = ("true \\ said", *names)
    return [
        Text(most),
        Table(caption, head, tuple(body), "l" + "r" * len(names), tuple(shades)),
    ]


def class_blocks(found: Findings) -> list[Block]:
    """Return right and wrong of each class; of many classes the worst."""
    counts = [c for c in found.by_class if c.total]
    chosen = counts
    caption = f"Each class of the {found.split} split"
    if len(counts) > _WHOLE_MATRIX:
        chosen = sorted(counts, key=lambda c: (c.correct / c.total, c.label))[:_MOST_ROWS]
        caption = f"The {len(chosen)} classes with the lowest accuracy, of {len(counts):,}"
    largest = max((c.total - c.correct) / c.total for c in counts) or 1.0
    rows = tuple(
        (_class(found, c.label), f"{c.correct:,}", f"{c.total - c.correct:,}", f"{c.total:,}",
         f"{percent(c.correct, c.total)} %")
        for c in chosen
    )  # fmt: skip
    shades = tuple(
        (None, None, (c.total - c.correct) / c.total / largest or None, None, None) for c in chosen
    )
    head = ("class", "right", "wrong", "images", "accuracy")
    return [Table(caption, head, rows, "lrrrr", shades)]


def error_blocks(found: Findings, images: Tensor) -> list[Block]:
    """Return the misclassified images, worst first; `images` is uint8 (N, C, H, W)."""
    if not found.errors:
        return [Text(f"Every {found.split} image was right.")]
    tiles = tuple(_tile(found, error, images) for error in found.errors[:_MOST_TILES])
    left = found.num_errors - len(tiles)
    caption = (
        f"{found.num_errors:,} of {found.total:,} {found.split} images are wrong; those whose true "
        "class got the smallest probability come first. The number is the image's place in the "
        "split, from 0."
    )
    if any(tile.mark for tile in tiles):
        caption += " Disputed: most people who are asked do not accept the label."
    return [Gallery("errors", caption, tiles, f"and {left:,} more" if left else "")]


def calibration_blocks(found: Calibration) -> list[Block]:
    """Return the reliability curve and the expected calibration error."""
    said = (
        f"Expected calibration error: {100 * found.error:.2f} %. It is the mean gap between how "
        "sure the network is and how often it is right, over 15 bins of equal width, each "
        "weighted by its images (Guo et al. 2017, arXiv 1706.04599)."
    )
    filled = [place for place in found.bins if place.count]
    alt = (
        f"Accuracy against confidence in {len(filled)} bins that have images; the expected "
        f"calibration error is {100 * found.error:.2f} %."
    )
    caption = "On the dashed line a network is as often right as it is sure. Below: images a bin."
    rows = tuple(
        (f"{place.low:.2f} to {place.high:.2f}", f"{place.count:,}",
         f"{place.confidence:.3f}", f"{place.accuracy:.3f}")
        for place in filled
    )  # fmt: skip
    head = ("largest probability", "images", "mean probability", "share right")
    table = Table("The bins that have images", head, rows, "lrrr")
    return [
        Text(said),
        Picture("calibration", plots.reliability(found), alt, caption),
        Folded("The numbers of the curve", (table,)),
    ]


def image_tile(png: bytes, what: str, lines: tuple[str, ...], disputed: bool) -> Tile:
    mark = "label disputed" if disputed else ""
    return Tile(png, f"{what}{', a disputed label' if disputed else ''}", lines, mark)


def _tile(found: Findings, error: Error, images: Tensor) -> Tile:
    true, said = _class(found, error.true), _class(found, error.predicted)
    ranked = sorted(enumerate(error.probabilities), key=lambda item: -item[1])[:_SAID]
    if error.true not in [label for label, _ in ranked]:
        ranked[-1] = (error.true, error.probabilities[error.true])
    chances = tuple(f"{_class(found, label)}: {share(value)}" for label, value in ranked)
    what = f"{found.split.capitalize()} image {error.index}: a {true} read as {said}"
    lines = (f"#{error.index}", f"true {true}, said {said}", *chances)
    return image_tile(png_of(images[error.index]), what, lines, error.disputed)


def _recorded_errors(account: Account) -> list[Section]:
    """Return the images that the record calls wrong, where nothing can be recomputed."""
    run = account.run
    if run.state != "finished":
        return []
    said = account.problem or account.unread or "there are no images"
    blocks: list[Block] = [
        Text(f"Confusion, probabilities and calibration are not known: {sentence(said)}")
    ]
    wrong = (run.result or {})["test"].get("wrong") or []
    if account.images is not None and run.recipe.train.test and wrong:
        split = account.images
        known = sorted({place for place in wrong if 0 <= place < len(split)})
        tiles = tuple(
            image_tile(
                png_of(split.images[place]),
                f"Test image {place}",
                (f"#{place}", f"label {int(split.labels[place])}"),
                place in disputed_of(run),
            )
            for place in known[:_MOST_TILES]
        )
        left = len(known) - len(tiles)
        caption = f"The {len(known):,} test images that were wrong, as the record has it."
        blocks.append(Gallery("errors", caption, tiles, f"and {left:,} more" if left else ""))
    return [Section(f"Misclassified {account.split} images", blocks)]


def _class(found: Findings, label: int) -> str:
    name = shown(found.classes[label])
    return name if len(name) <= 24 else f"{name[:23]}…"
