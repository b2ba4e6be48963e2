"""The frontier of the task: what the records reach beside what others published.

    python records/frontier.py

Writes records/frontier.svg from the accuracies that records/reproduce.py left in recorded.json, and
from the public results in anchors.json.
"""

from __future__ import annotations

import io
import json
from importlib import resources
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from claims import CLAIMS
from matplotlib.figure import Figure

from whit.system.atomic_files import atomic_write

ROOT = Path(__file__).parents[1]
_BLUE, _GREY, _ORANGE = "#0072b2", "#777777", "#d55e00"


def recorded() -> dict[str, dict[str, Any]]:
    """Return what each recipe's record holds: params, epochs, correct of 10,000 for each seed."""
    file = resources.files("whit.recipes") / "builtin" / "recorded.json"
    found: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return {name: row for name, row in found.items() if row["correct"]}


def anchors() -> list[dict[str, Any]]:
    file = resources.files("whit") / "web" / "static" / "anchors.json"
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def plot(records: dict[str, dict[str, Any]]) -> bytes:
    """Return the picture as SVG, the same bytes for the same numbers."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    public = anchors()
    axes.plot(
        [row["params"] for row in public],
        [row["accuracy"] for row in public],
        "x",
        color=_GREY,
        markersize=8,
        markeredgewidth=2,
        label="published by others (mostly one run, best epoch)",
    )
    labelled: list[tuple[int, float]] = []
    for name, row in records.items():
        ours = name in CLAIMS
        accuracy = mean(row["correct"]) / 100
        spread = stdev(row["correct"]) / 100
        colour = _BLUE if ours else _ORANGE
        axes.errorbar(row["params"], accuracy, spread, fmt="D" if ours else "o", color=colour,
                      capsize=3, markersize=6)  # fmt: skip
        if ours:
            near = [at for at in labelled if at[0] < 1.2 * row["params"] < 1.44 * at[0]
                    and abs(at[1] - accuracy) < 0.03]  # fmt: skip
            large = row["params"] > 10_000  # its label would leave the picture
            axes.annotate(name, (row["params"], accuracy), (-6 if large else 6, 6 + 12 * len(near)),
                          textcoords="offset points", ha="right" if large else "left")  # fmt: skip
            labelled.append((row["params"], accuracy))
    axes.plot([], [], "D", color=_BLUE, label="whit's records: mean and sd over seeds, last epoch")
    axes.plot([], [], "o", color=_ORANGE, label="published systems, trained again by whit")
    axes.axhline(99.40, color=_GREY, linestyle="--", linewidth=1)
    axes.set_xscale("log")
    ticks = [500, 1000, 2000, 5000, 10_000, 20_000]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="parameters", ylabel="MNIST test accuracy, %", ylim=(98.9, 99.8))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def main() -> None:
    import matplotlib

    matplotlib.rcParams |= {"svg.hashsalt": "whit", "svg.fonttype": "none"}
    records = recorded()
    atomic_write(ROOT / "records" / "frontier.svg", plot(records))


if __name__ == "__main__":
    main()
