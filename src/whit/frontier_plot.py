"""The picture of a search: accuracy against what it costs, the frontier on top."""

from __future__ import annotations

import io
from pathlib import Path

from whit.durable import write_whole
from whit.findings import Search

_BLUE, _GREY = "#0072b2", "#999999"  # told apart by the colour-blind, and in grey
_LOG_FROM = 5  # a cost that varies more than so many times is drawn on a logarithmic axis


def plot_frontier(search: Search, path: Path) -> None:
    """Write an SVG of all candidates and the frontier; nothing where only accuracy counts."""
    from matplotlib.figure import Figure

    costs = [name for name in search.space.objectives if name != "accuracy"]
    if not costs:
        return
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    cost = costs[0]
    every = [(trial.values[cost], trial.values["accuracy"]) for trial in search.trials]
    best = [(trial.values[cost], trial.values["accuracy"]) for trial in search.frontier]
    axes.plot(*zip(*every, strict=True), "o", color=_GREY, markersize=3, label="candidates")
    axes.plot(*zip(*best, strict=True), "o-", color=_BLUE, markersize=5, label="frontier")
    for trial in search.frontier:
        sd = trial.accuracy.sd
        if sd is not None:
            axes.errorbar(trial.values[cost], trial.accuracy.mean, sd, color=_BLUE, capsize=2)
    low = min(accuracy for _, accuracy in best)
    axes.set_ylim(low - 0.2 * (100 - low) - 0.02, None)
    values = [value for value, _ in every]
    if max(values) > _LOG_FROM * max(min(values), 1e-9):
        axes.set_xscale("log")
    axes.set(xlabel=cost, ylabel="accuracy on val, %", title=search.space.name)
    axes.grid(alpha=0.3)
    axes.legend()
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    write_whole(path, content.getvalue())
