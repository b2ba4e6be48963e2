"""The drawings of a report, as SVG: the same bytes for the same numbers, legible in grey.

Colours are those of Okabe and Ito, which the colour-blind tell apart; dashes and markers say the
same once more.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from whit.error_analysis import Calibration
from whit.recipe import Recipe
from whit.record import EpochRecord, Evaluation
from whit.seeds import Seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
SKY, PURPLE, BLACK, GREY = "#56b4e9", "#cc79a7", "#000000", "#767676"

WIDTH = 5.0  # inches; scaled down to a telephone its words can still be read
_MANY = 40  # epochs; above it markers would hide the line
_STYLE: Any = {
    "svg.fonttype": "none",  # words stay words
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

# matplotlib's settings are the whole process's: one drawing at a time.
_DRAWING = threading.Lock()


def drawn(draw: Callable[[Figure], None], height: float) -> bytes:
    """Return as SVG what `draw` puts on a figure of WIDTH x `height` inches."""
    import matplotlib
    from matplotlib.figure import Figure

    with _DRAWING, matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


def curves(log: Sequence[EpochRecord], recipe: Recipe) -> bytes:
    """Draw loss, accuracy and learning rate over the epochs, one below the other."""
    epochs = [record.epoch for record in log]
    marker = "o" if len(log) <= _MANY else ""

    def draw(figure: Figure) -> None:
        loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
        trained = {"color": BLUE, "marker": marker, "markersize": 4, "label": "training"}
        loss.plot(epochs, [record.loss for record in log], **trained)
        shares = [100 * record.correct / record.total for record in log]
        accuracy.plot(epochs, shares, **trained)
        styles = {"val": (GREEN, "--", "s"), "test": (VERMILION, ":", "D")}
        for split, (colour, dashes, mark) in styles.items():
            read = _readings(log, split)
            if not read:
                continue
            style = {"color": colour, "linestyle": dashes, "marker": mark, "markersize": 5}
            finite = [(epoch, r.loss) for epoch, r in read if r.loss is not None]
            if finite:
                loss.plot(*zip(*finite, strict=True), label=split, **style)
            percents = [100 * r.correct / r.total for _, r in read]
            accuracy.plot([epoch for epoch, _ in read], percents, label=split, **style)
        points = recipe.schedule
        planned = recipe.train.epochs
        rate.plot(
            [planned * progress for progress in points.progress],
            [recipe.optim.lr * scale for scale in points.scale],
            color=GREY,
            linestyle="--",
            label="planned",
        )
        rate.plot(epochs, [record.lr for record in log], color=BLACK, marker="o", linestyle="",
                  markersize=4, label="at the epoch's last step")  # fmt: skip
        loss.set(ylabel="loss, nats", ylim=(0, None))
        accuracy.set(ylabel="accuracy, %")
        rate.set(ylabel="learning rate", xlabel="epoch", ylim=(0, None))
        rate.locator_params(axis="x", integer=True)
        for axes in (loss, accuracy, rate):
            axes.legend(fontsize=9)

    return drawn(draw, 6.4)


def reliability(calibration: Calibration) -> bytes:
    """Draw accuracy against confidence, bin by bin, and below how many images each bin has."""
    bins = [found for found in calibration.bins if found.count]

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.3))
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as sure as right")
        upper.plot(
            [found.confidence for found in bins],
            [found.accuracy for found in bins],
            color=BLUE,
            marker="o",
            markersize=5,
            label="this network",
        )
        upper.set(ylabel="share right", ylim=(-0.02, 1.04), xlim=(0, 1.02))
        upper.legend(loc="upper left", fontsize=9)
        middles = [(found.low + found.high) / 2 for found in bins]
        counts = [found.count for found in bins]
        lower.bar(middles, counts, width=0.9 / len(calibration.bins), color=SKY, edgecolor=BLACK)
        lower.set_yscale("log")
        lower.set(ylabel="images", xlabel="largest probability", ylim=(0.7, 12 * max(counts)))
        for middle, count in zip(middles, counts, strict=True):
            lower.annotate(
                f"{count:,}", (middle, count), (0, 2), textcoords="offset points", ha="center",
                fontsize=7, annotation_clip=False,
            )  # fmt: skip

    return drawn(draw, 5.0)


def spread(groups: Sequence[Seeds], least: float | None) -> bytes:
    """Draw a point for each seed, a row for each recipe, with mean and 95 % interval.

    `least` is the accuracy that the budget asks for, in percent.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, group in enumerate(groups):
            _row_of_seeds(axes, -row, group)
        if least is not None:
            axes.axvline(least, color=VERMILION, linestyle=":", label=f"budget: {least:g} %")
        axes.set_yticks([-row for row in range(len(groups))], [_short(g.name) for g in groups])
        axes.set(xlabel=f"accuracy on {groups[0].split} after the last epoch, %")
        axes.set_ylim(-len(groups) + 0.4, 0.75)
        axes.locator_params(axis="x", nbins=6)
        axes.ticklabel_format(axis="x", useOffset=False)
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(
            unique.values(), unique.keys(), loc="outside upper center", ncols=2, fontsize=9
        )

    return drawn(draw, 1.7 + 0.6 * len(groups))


def seed_curves(group: Seeds) -> bytes:
    """Draw the training loss and the accuracy of every seed over the epochs."""

    def draw(figure: Figure) -> None:
        loss, accuracy = figure.subplots(2, 1, sharex=True)
        for run in group.runs:
            epochs = [record.epoch for record in run.log]
            loss.plot(epochs, [r.loss for r in run.log], color=BLUE, alpha=0.5, linewidth=1)
            read = _readings(run.log, group.split)
            if len(read) > 1:
                values = [100 * r.correct / r.total for _, r in read]
                accuracy.plot([epoch for epoch, _ in read], values, color=BLUE, alpha=0.5,
                              linewidth=1)  # fmt: skip
            else:
                shares = [100 * r.correct / r.total for r in run.log]
                accuracy.plot(epochs, shares, color=BLUE, alpha=0.5, linewidth=1)
                for epoch, reading in read:
                    value = 100 * reading.correct / reading.total
                    accuracy.plot(epoch, value, "D", color=VERMILION, markersize=4)
        once = all(len(_readings(run.log, group.split)) < 2 for run in group.runs)
        said = f"lines: training; diamonds: {group.split}" if once else f"on {group.split}"
        loss.set(ylabel="training loss, nats", ylim=(0, None))
        accuracy.set(ylabel="accuracy, %", xlabel="epoch", title=said)
        accuracy.title.set_fontsize(9)
        accuracy.locator_params(axis="x", integer=True)

    return drawn(draw, 4.6)


def _row_of_seeds(axes: Axes, height: float, group: Seeds) -> None:
    """Put equal values above each other, so that every seed is seen."""
    sample = group.accuracy
    for value, same in groupby(sorted(sample.values)):
        count = len(list(same))
        step = min(0.12, 0.5 / count)
        ups = [height + step * place for place in range(count)]
        axes.plot([value] * count, ups, "o", color=BLUE, markersize=6, markerfacecolor=SKY,
                  label="a seed")  # fmt: skip
    if sample.interval:
        low, high = sample.interval
        axes.plot([low, high], [height - 0.2] * 2, color=BLACK, linewidth=3,
                  label="95 % interval of the mean")  # fmt: skip
    axes.plot(sample.mean, height - 0.2, "D", color=BLACK, markersize=6, label="mean")


def _readings(log: Sequence[EpochRecord], split: str) -> list[tuple[int, Evaluation]]:
    return [(record.epoch, r) for record in log for r in record.evaluations if r.split == split]


def _short(name: str) -> str:
    # A dollar sign would begin a formula.
    shown = name if len(name) <= 18 else f"{name[:17]}…"
    return shown.replace("$", r"\$")
