"""The plot of a search: accuracy against cost, the Pareto front on top."""

from __future__ import annotations

import io
from pathlib import Path

from whit.experiments.search.result import SearchResult
from whit.system.atomic_files import atomic_write

_BLUE, _GREY = "#0072b2", "#999999"  # distinct to the colour-blind, and in grey
_LOG_RATIO = 5  # of the largest to the smallest cost, from which the axis is logarithmic


def plot_pareto_front(search: SearchResult, path: Path) -> None:
    """Write an SVG of all trials and the Pareto front; nothing where only accuracy counts."""
    from matplotlib.figure import Figure

    if not search.space.costs:
        return
    figure, cost = Figure(figsize=(7, 4.5), layout="constrained"), search.space.costs[0]
    axes = figure.add_subplot()
    points = [(trial.values[cost], trial.values["accuracy"]) for trial in search.trials]
    front = [(trial.values[cost], trial.values["accuracy"]) for trial in search.pareto_front]
    axes.plot(*zip(*points, strict=True), "o", color=_GREY, markersize=3, label="candidates")
    axes.plot(*zip(*front, strict=True), "o-", color=_BLUE, markersize=5, label="frontier")
    for trial in search.pareto_front:
        if (sd := trial.seeds.accuracy.sd) is not None:
            x, y = trial.values[cost], trial.values["accuracy"]
            axes.errorbar(x, y, sd, color=_BLUE, capsize=2)
    low = min(accuracy for _, accuracy in front)
    axes.set_ylim(low - 0.2 * (100 - low) - 0.02, None)
    values = [value for value, _ in points]
    if max(values) > _LOG_RATIO * max(min(values), 1e-9):
        axes.set_xscale("log")
    axes.set(xlabel=cost, ylabel="accuracy on val, %", title=search.space.name)
    axes.grid(alpha=0.3)
    axes.legend()
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    atomic_write(path, content.getvalue())
