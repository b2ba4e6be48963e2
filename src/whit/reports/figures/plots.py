"""The figures of a report, as SVG: the same bytes for the same numbers, legible in greyscale.

Colours are the colour-blind safe palette of Okabe and Ito; dashes and markers repeat the coding.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from whit.experiments.seed_group import SeedGroup
from whit.recipes.recipe import Recipe
from whit.runs.result import EpochRecord, Evaluation
from whit.verification.error_analysis import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
SKY, PURPLE, BLACK, GREY = "#56b4e9", "#cc79a7", "#000000", "#767676"

WIDTH = 5.0  # inches; still legible when scaled down to a phone
_MAX_MARKERS = 40  # epochs; above it markers would hide the line
_SCHEDULE_POINTS = 1001  # at which a schedule is evaluated: any of its steps looks vertical
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "whit",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "savefig.facecolor": "none",
}

# matplotlib's settings are global to the process: one drawing at a time.
_RENDER_LOCK = threading.Lock()


def render_svg(draw: Callable[[Figure], None], height: float) -> bytes:
    """Return as SVG what `draw` puts on a figure of WIDTH x `height` inches. Thread-safe."""
    import matplotlib
    from matplotlib.figure import Figure

    with _RENDER_LOCK, matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


def draw_curves(log: Sequence[EpochRecord], recipe: Recipe) -> bytes:
    """Draw loss, accuracy and learning rate over the epochs, one below the other."""
    epochs = [record.epoch for record in log]
    marker = "o" if len(log) <= _MAX_MARKERS else ""

    def draw(figure: Figure) -> None:
        loss, accuracy, lr = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2.2))
        train_style = {"color": BLUE, "marker": marker, "markersize": 4, "label": "training"}
        loss.plot(epochs, [record.loss for record in log], **train_style)
        _plot_accuracy(accuracy, [(record.epoch, record) for record in log], **train_style)
        styles = {"val": (GREEN, "--", "s"), "test": (VERMILION, ":", "D")}
        for split, (colour, dashes, split_marker) in styles.items():
            evaluations = _evaluations(log, split)
            if not evaluations:
                continue
            style = {"color": colour, "linestyle": dashes, "marker": split_marker, "markersize": 5}
            finite = [(epoch, e.loss) for epoch, e in evaluations if e.loss is not None]
            if finite:
                loss.plot(*zip(*finite, strict=True), label=split, **style)
            _plot_accuracy(accuracy, evaluations, label=split, **style)
        plot_schedule(lr, recipe)
        lr.plot(epochs, [record.lr for record in log], color=BLACK, marker="o", linestyle="",
                markersize=4, label="last step of each epoch")  # fmt: skip
        loss.set(ylabel="loss, nats", ylim=(0, None))
        _label_accuracy(accuracy)
        lr.set_xlabel("epoch")
        lr.locator_params(axis="x", integer=True)
        _add_legend(figure, (loss, lr))

    return render_svg(draw, 6.8)


def plot_schedule(axes: Axes, recipe: Recipe) -> None:
    """Plot the planned learning rate of every step over the epochs."""
    factor = recipe.lr_factor()
    progress = [i / (_SCHEDULE_POINTS - 1) for i in range(_SCHEDULE_POINTS)]
    axes.plot([recipe.train.epochs * p for p in progress],
              [recipe.optim.lr * factor(p) for p in progress],
              color=GREY, linestyle="--", label="learning-rate schedule")  # fmt: skip
    axes.set(ylabel="learning rate", ylim=(0, None))


def draw_reliability(calibration: Calibration) -> bytes:
    """Draw accuracy against confidence, bin by bin, and below it the images of each bin."""
    bins = [b for b in calibration.bins if b.count]

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.3))
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfect calibration")
        upper.plot([b.confidence for b in bins], [b.accuracy for b in bins], color=BLUE, marker="o",
                   markersize=5, label="this network", clip_on=False)  # fmt: skip
        upper.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
        _add_legend(figure, (upper,))
        centres = [(b.low + b.high) / 2 for b in bins]
        counts = [b.count for b in bins]
        lower.bar(centres, counts, width=0.9 / len(calibration.bins), color=SKY, edgecolor=BLACK)
        lower.set_yscale("log")
        lower.set(ylabel="images", xlabel="confidence", ylim=(0.7, 12 * max(counts)))
        for centre, count in zip(centres, counts, strict=True):
            lower.annotate(
                f"{count:,}", (centre, count), (0, 2), textcoords="offset points", ha="center",
                fontsize=7, annotation_clip=False,
            )  # fmt: skip

    return render_svg(draw, 5.2)


def draw_seed_spread(groups: Sequence[SeedGroup], min_accuracy: float | None) -> bytes:
    """Draw a point for each seed, a row for each recipe, with mean and 95 % interval.

    `min_accuracy` is the limit of the budget, in percent.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.margins(x=0.08)
        for row, group in enumerate(groups):
            _draw_seed_row(axes, -row, group)
        if min_accuracy is not None:
            label = f"budget: {min_accuracy:g} %"
            axes.axvline(min_accuracy, color=VERMILION, linestyle=":", label=label)
        axes.set_yticks([-row for row in range(len(groups))], [_label(g.name) for g in groups])
        axes.set(xlabel=f"accuracy on {groups[0].split} after the last epoch, %")
        axes.set_ylim(-len(groups) + 0.4, 0.75)
        axes.locator_params(axis="x", nbins=6)
        axes.ticklabel_format(axis="x", useOffset=False)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, 0.0), min(high, 100.0))
        _add_legend(figure, (axes,))

    return render_svg(draw, 1.7 + 0.6 * len(groups))


def draw_seed_curves(group: SeedGroup) -> bytes:
    """Draw loss and accuracy of every seed over the epochs, and the learning-rate schedule."""
    style = {"color": BLUE, "alpha": 0.5, "linewidth": 1}

    def draw(figure: Figure) -> None:
        loss, accuracy, lr = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2.2))
        for run in group.runs:
            loss.plot([r.epoch for r in run.log], [r.loss for r in run.log], **style)
            evaluations = _evaluations(run.log, group.split)
            if len(evaluations) > 1:
                _plot_accuracy(accuracy, evaluations, **style)
                continue
            _plot_accuracy(accuracy, [(record.epoch, record) for record in run.log], **style)
            if evaluations:
                _plot_accuracy(accuracy, evaluations, marker="D", linestyle="", color=VERMILION,
                               markersize=4)  # fmt: skip
        is_final = all(len(_evaluations(run.log, group.split)) < 2 for run in group.runs)
        title = f"lines: training; diamonds: {group.split}" if is_final else f"on {group.split}"
        loss.set(ylabel="training loss, nats", ylim=(0, None))
        _label_accuracy(accuracy)
        accuracy.set(title=title)
        accuracy.title.set_fontsize(9)
        plot_schedule(lr, group.runs[0].recipe)
        lr.set_xlabel("epoch")
        lr.locator_params(axis="x", integer=True)

    return render_svg(draw, 6.2)


def _draw_seed_row(axes: Axes, y: float, group: SeedGroup) -> None:
    """Draw the seeds of a group in a row; equal values are stacked, so that each is visible."""
    sample = group.accuracy
    for value, same in groupby(sorted(sample.values)):
        count = len(list(same))
        step = min(0.12, 0.5 / count)
        axes.plot([value] * count, [y + step * i for i in range(count)], "o", color=BLUE,
                  markersize=6, markerfacecolor=SKY, label="one seed", clip_on=False)  # fmt: skip
    if sample.interval:
        low, high = sample.interval
        axes.plot([low, high], [y - 0.2] * 2, color=BLACK, linewidth=3,
                  label="95 % confidence interval")  # fmt: skip
    axes.plot(sample.mean, y - 0.2, "D", color=BLACK, markersize=6, label="mean", clip_on=False)


def _plot_accuracy(
    axes: Axes, counts: Sequence[tuple[int, EpochRecord | Evaluation]], **style: Any
) -> None:
    percents = [100 * count.correct / count.total for _, count in counts]
    # A marker at 100 % lies on the edge of the axes and is drawn as a whole.
    axes.plot([epoch for epoch, _ in counts], percents, clip_on=False, **style)


def _label_accuracy(axes: Axes) -> None:
    """Label the axis, which reaches neither below 0 nor above 100 %."""
    low, high = axes.get_ylim()
    axes.set(ylabel="accuracy, %", ylim=(max(low, 0.0), min(high, 100.0)))


def _evaluations(log: Sequence[EpochRecord], split: str) -> list[tuple[int, Evaluation]]:
    return [(record.epoch, e) for record in log for e in record.evaluations if e.split == split]


def _add_legend(figure: Figure, sources: Sequence[Axes]) -> None:
    """Add one legend above all axes, where it covers no point; equal labels appear once."""
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in sources]
    unique = {label: handle for source in pairs for handle, label in source}
    figure.legend(unique.values(), unique.keys(), loc="outside upper center", ncols=2, fontsize=9)


def _label(name: str) -> str:
    # An unescaped dollar sign would start a formula.
    return (name if len(name) <= 18 else f"{name[:17]}…").replace("$", r"\$")
