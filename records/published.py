"""The five published systems, trained exactly as published, against the published figures.

They are evaluated on the test split after each epoch, as published: this is a reproduction, no
claim. What is asked is where one published run lies among ours, and how often a run would be
called ">= 99.40 %" by its best epoch and by its last.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from statistics import fmean, median

from claims import HERE, PUBLISHED
from evidence import Evidence, find_evidence
from matplotlib import rc_context
from matplotlib.figure import Figure
from pages import mean_text

from whit.system.atomic_files import atomic_write

FOLDER = HERE / "published"
FIGURE = FOLDER / "spread.svg"
LIMIT = 9940
# Best and last epoch of the write-ups, in correct images of 10,000.
WRITE_UPS = dict(
    zip(PUBLISHED, ((9948, 9940), (9948, 9943), (9955, 9952), (9951, 9950), (9950, 9941)),
        strict=True)
)  # fmt: skip
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#777777"


@dataclass(frozen=True)
class Curves:
    """The correct test images after each epoch, a tuple for each seed of a recipe."""

    recipe: str
    by_seed: dict[int, tuple[int, ...]]

    @property
    def best(self) -> list[int]:
        return [max(curve) for curve in self.by_seed.values()]

    @property
    def last(self) -> list[int]:
        return [curve[-1] for curve in self.by_seed.values()]

    @property
    def first_reached(self) -> list[int]:
        """The first epoch of each seed at LIMIT; all its epochs where none is."""
        return [
            next((epoch for epoch, count in enumerate(curve, 1) if count >= LIMIT), len(curve))
            for curve in self.by_seed.values()
        ]


def read_curves() -> list[Curves]:
    """Return the curves of the systems that have been trained, in the order of the write-ups."""
    found = [find_evidence(FOLDER, recipe) for recipe in PUBLISHED]
    return [_curves(evidence) for evidence in found if evidence]


def _curves(evidence: Evidence) -> Curves:
    by_seed = {
        run.seed or 0: tuple(e.correct for row in run.log for e in row.evaluations
                             if e.split == "test")
        for run in evidence.runs
    }  # fmt: skip
    return Curves(evidence.recipe, by_seed)


def quantile(value: int, ours: list[int]) -> float:
    """Return the share of our runs below a published figure; equal ones count half."""
    return (sum(one < value for one in ours) + sum(one == value for one in ours) / 2) / len(ours)


def table(curves: list[Curves]) -> str:
    """Return the place of each published figure among our seeds."""
    lines = [
        "| recipe | seeds | published best | ours, best epoch: mean ± sd % | quantile of the "
        "published one | published last | ours, last epoch: mean ± sd % | quantile of the "
        "published one | called >= 99.40 by the best epoch | by the last epoch |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in curves:
        best, last = WRITE_UPS[one.recipe]
        ours = [[c / 100 for c in counts] for counts in (one.best, one.last)]
        called = [sum(c >= LIMIT for c in counts) for counts in (one.best, one.last)]
        n = len(one.by_seed)
        lines.append(
            f"| {one.recipe} | {n} | {best / 100:.2f} | {mean_text(tuple(ours[0]))} "
            f"| {quantile(best, one.best):.2f} | {last / 100:.2f} | {mean_text(tuple(ours[1]))} "
            f"| {quantile(last, one.last):.2f} | {called[0]} of {n} | {called[1]} of {n} |"
        )
    return "\n".join(lines)


def seed_table(curves: list[Curves]) -> str:
    """Return the best epoch and the last one of every seed."""
    lines = ["| recipe | seed | best epoch: correct (epoch) | last epoch: correct |"]
    lines += ["|---|---|---|---|"]
    for one in curves:
        for seed, curve in one.by_seed.items():
            epoch = curve.index(max(curve)) + 1
            lines.append(f"| {one.recipe} | {seed} | {max(curve)} ({epoch}) | {curve[-1]} |")
    return "\n".join(lines)


def plot(curves: list[Curves]) -> bytes:
    """Return the spread of all runs beside the published figures, as SVG."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for place, one in enumerate(curves):
        for offset, counts, color, published in (
            (-0.15, one.best, _ORANGE, WRITE_UPS[one.recipe][0]),
            (0.15, one.last, _BLUE, WRITE_UPS[one.recipe][1]),
        ):
            # Equal counts are drawn apart, so that every run is seen.
            seen: dict[int, int] = {}
            for count in sorted(counts):
                number = seen[count] = seen.get(count, 0) + 1
                shift = (number // 2) * 0.035 * (1 if number % 2 else -1)
                axes.plot(place + offset + shift, count / 100, "o", color=color, markersize=3.5)
            middle = median(counts) / 100
            axes.hlines(middle, place + offset - 0.1, place + offset + 0.1, color=color)
            axes.plot(place + offset, published / 100, "x", color=_GREY, markersize=8,
                      markeredgewidth=2)  # fmt: skip
    axes.plot([], [], "o", color=_ORANGE, label="best epoch of each seed, and the median")
    axes.plot([], [], "o", color=_BLUE, label="last epoch of each seed, and the median")
    axes.plot([], [], "x", color=_GREY, label="published (one run)", markeredgewidth=2)
    axes.axhline(99.40, color=_GREY, linestyle="--", linewidth=1)
    names = [one.recipe.removeprefix("published-") for one in curves]
    axes.set_xticks(range(len(curves)), names)
    axes.set(xlabel="published system", ylabel="MNIST test accuracy, %")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "whit", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def page(curves: list[Curves]) -> str:
    """Return README.md."""
    machines = sorted({evidence.machine for recipe in PUBLISHED
                       if (evidence := find_evidence(FOLDER, recipe))})  # fmt: skip
    total = sum(len(one.by_seed) for one in curves)
    best = sum(c >= LIMIT for one in curves for c in one.best)
    last = sum(c >= LIMIT for one in curves for c in one.last)
    gap = fmean(b - a for one in curves for b, a in zip(one.best, one.last, strict=True)) / 100
    return f"""# The five published systems

Command: `python records/reproduce.py published`

Trained exactly as published: 32-bit, no augmentation, evaluated on the test split after each epoch.
The write-ups show one run each and quote its best epoch, which is selected on the test split. A
quantile of 0.9 says that nine of ten of our runs lie below the published figure.

![The spread of all runs beside the published figures](spread.svg)

{table(curves)}

Of {total} runs {best} would be called ">= 99.40 %" by their best epoch, and {last} by their last.
The best epoch lies {gap:.3f} percentage points above the last one in the mean.

{seed_table(curves)}

Machine: {"; ".join(machines)}.
"""


def write_page() -> None:
    """Write README.md and its figure."""
    curves = read_curves()
    atomic_write(FIGURE, plot(curves))
    atomic_write(FOLDER / "README.md", page(curves).encode())
