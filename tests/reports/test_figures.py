"""The figures of a report: the learning-rate schedule, and legends that cover nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from whit.recipes.recipe import load_recipe
from whit.reports.figures import plots
from whit.reports.study_facts import collect_study_facts, find_groups
from whit.runs.reader import read_run
from whit.verification.error_analysis import analyze_run
from whit.verification.restore import load_run_model


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, laid out, in place of their SVG."""
    figures: list[Figure] = []

    def lay_out(draw: Callable[[Figure], None], height: float) -> bytes:
        figure = Figure(figsize=(plots.WIDTH, height), layout="constrained")
        draw(figure)
        FigureCanvasAgg(figure).draw()
        figures.append(figure)
        return b""

    monkeypatch.setattr(plots, "render_svg", lay_out)
    return figures


def schedule_line(figure: Figure) -> list[tuple[float, float]]:
    """(epoch, learning rate) along the schedule of the last axes."""
    (line,) = (ln for ln in figure.axes[-1].lines if ln.get_label() == "learning-rate schedule")
    return [(float(x), float(y)) for x, y in line.get_xydata()]


def test_the_schedule_is_plotted_over_the_epochs() -> None:
    recipe = load_recipe("sprint").with_overrides(["train.epochs=8", "optim.lr=0.5"])
    figure = Figure()
    plots.plot_schedule(figure.add_subplot(), recipe)
    points = schedule_line(figure)
    factor = recipe.lr_factor()
    assert (points[0][0], points[-1][0]) == (0, 8)
    for epoch, lr in points:
        assert lr == pytest.approx(0.5 * factor(epoch / 8))
    assert max(lr for _, lr in points) == pytest.approx(0.5, rel=0.01)


def test_runs_and_studies_show_the_schedule(runs: Path, drawn: list[Figure]) -> None:
    record = read_run(runs / "seed-0")
    plots.draw_curves(record.log, record.recipe)
    (group,) = find_groups(runs)
    plots.draw_seed_curves(collect_study_facts(group, cache={}).seeds)
    of_run, of_study = drawn
    assert schedule_line(of_run) == schedule_line(of_study)
    labels = [axes.get_ylabel() for axes in of_run.axes]
    assert labels == ["loss, nats", "accuracy, %", "learning rate"]


def test_no_legend_covers_the_axes(runs: Path, drawn: list[Figure]) -> None:
    record = read_run(runs / "seed-0")
    plots.draw_curves(record.log, record.recipe)
    plots.draw_reliability(analyze_run(load_run_model(record)).calibration)
    (group,) = find_groups(runs)
    plots.draw_seed_spread([collect_study_facts(group, cache={}).seeds], 10.0)
    assert len(drawn) == 3
    for figure in drawn:
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
        assert all(axes.get_legend() is None for axes in figure.axes)
