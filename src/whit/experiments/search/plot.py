"""The plot of a search: accuracy against cost, with the Pareto front."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from whit.experiments.search.result import SearchResult
from whit.experiments.search.trials import Trial
from whit.system.atomic_files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _GREY = "#0072b2", "#999999"  # distinct to the colour-blind, and in grey
_LOG_RATIO = 5  # of the largest to the smallest cost, from which the axis is logarithmic


def plot_pareto_front(search: SearchResult, path: Path) -> None:
    """Write an SVG of all trials and the Pareto front; nothing where only accuracy counts."""
    if not search.space.costs:
        return
    content = io.BytesIO()
    draw_pareto_front(search).savefig(content, format="svg", metadata={"Date": None})
    atomic_write(path, content.getvalue())


def draw_pareto_front(search: SearchResult) -> Figure:
    """Return the figure. Each trial on the front is labeled with its number.

    The line is a staircase: up to the cost of the next trial on the front, no better accuracy is
    known. A slope between two trials would promise networks that nobody trained.
    """
    from matplotlib.figure import Figure

    figure, cost = Figure(figsize=(7, 4.5), layout="constrained"), search.space.costs[0]
    axes = figure.add_subplot()
    front = search.pareto_front
    points = [(trial.values[cost], trial.values["accuracy"]) for trial in search.trials]
    axes.plot(*zip(*points, strict=True), "o", color=_GREY, markersize=3, label="trials")
    axes.plot(*_staircase(front, cost), color=_BLUE, drawstyle="steps-post", linewidth=1)
    points_on_front = [(trial.values[cost], trial.values["accuracy"]) for trial in front]
    axes.plot(
        *zip(*points_on_front, strict=True), "o", color=_BLUE, markersize=5, label="Pareto front"
    )
    for trial in front:
        x, y = trial.values[cost], trial.values["accuracy"]
        if (sd := trial.seeds.accuracy.sd) is not None:
            axes.errorbar(x, y, sd, color=_BLUE, capsize=2)
        axes.annotate(
            str(trial.number), (x, y), (4, -10), textcoords="offset points", fontsize=8, color=_BLUE
        )
    low = min(accuracy for _, accuracy in points_on_front)
    axes.set_ylim(low - 0.2 * (100 - low) - 0.02, None)
    values = [value for value, _ in points]
    if max(values) > _LOG_RATIO * max(min(values), 1e-9):
        axes.set_xscale("log")
    axes.set(xlabel=cost, ylabel="accuracy on val, %", title=search.space.name)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _staircase(front: Sequence[Trial], cost: str) -> tuple[list[float], list[float]]:
    """Return costs and accuracies, both increasing.

    With three objectives or more, a trial on the front may be worse in both of these two.
    """
    costs: list[float] = []
    accuracies: list[float] = []
    for trial in sorted(front, key=lambda t: (t.values[cost], -t.values["accuracy"])):
        if not accuracies or trial.values["accuracy"] > accuracies[-1]:
            costs.append(trial.values[cost])
            accuracies.append(trial.values["accuracy"])
    return costs, accuracies
