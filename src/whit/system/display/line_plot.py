"""Small plots as inline SVG, without a plotting library: lines over a number, dots by name.

Text and axes have the colour of the page; lines have colours that are visible on white and on
black, and differ in their dashes as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 340, 170  # of a plot of lines, in pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 8, 34  # margins
_COLORS = ("#3b82c4", "#d97706", "#2f9e61", "#b4509e", "#7a7a7a")
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2")
_MAX_DOTS = 40  # a line of more points is drawn without dots
_ROW = 22  # height of a row of dots
_CHARACTER = 6.4  # width of a character of 11 pixels, about

Bounds = tuple[float, float]  # what an axis does not reach beyond
UNBOUNDED = (-math.inf, math.inf)
PERCENT = (0.0, 100.0)


@dataclass(frozen=True)
class Series:
    """A named line through (x, y); a y that is None interrupts it."""

    name: str
    points: Sequence[tuple[float, float | None]]


def line_plot(
    series: Sequence[Series], x_label: str, y_label: str, bounds: Bounds = UNBOUNDED
) -> str:
    """Return a plot of lines with axes and a legend; nothing where no series has a point.

    The y axis does not reach beyond `bounds`.
    """
    known = [
        (x, y) for line in series for x, y in line.points if y is not None and math.isfinite(y)
    ]
    if not known:
        return ""
    x_low, x_high = min(x for x, _ in known), max(x for x, _ in known)
    x_ticks = ticks(x_low, x_high, 6)
    if all(x == round(x) for x, _ in known):
        x_ticks = [x for x in x_ticks if x == round(x)]  # there is no epoch 1.5
    y_ticks = ticks(min(y for _, y in known), max(y for _, y in known), 5, bounds)
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def px(x: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (x - x_low) / (x_high - x_low)

    def py(y: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (y - y_low) / (y_high - y_low)

    parts = []
    for y in y_ticks:
        parts.append(_rule(_LEFT, py(y), _WIDTH - _RIGHT, py(y)))
        parts.append(_text(_LEFT - 5, py(y) + 4, format_tick(y, y_ticks), "end"))
    for x in x_ticks:
        if x_low <= x <= x_high:
            parts.append(_text(px(x), _HEIGHT - _BOTTOM + 14, format_tick(x, x_ticks), "middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, x_label, "middle"))
    for i, line in enumerate(series):
        color, dash = _COLORS[i % len(_COLORS)], _DASHES[i % len(_DASHES)]
        for run in _unbroken(line.points):
            path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in run)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8" '
                f'stroke-dasharray="{dash}"/>'
            )
            if len(line.points) <= _MAX_DOTS:
                parts += [_dot(px(x), py(y), color) for x, y in run]
    return _svg(_WIDTH, _HEIGHT, y_label, parts) + _legend(series, y_label)


def dot_plot(
    rows: Sequence[tuple[str, Sequence[float]]], x_label: str, bounds: Bounds = UNBOUNDED
) -> str:
    """Return values as dots, a row for each name, with a mark at their mean.

    The axis does not reach beyond `bounds`.
    """
    values = [value for _, row in rows for value in row]
    if not values:
        return ""
    x_ticks = ticks(min(values), max(values), 5, bounds)
    low, high = x_ticks[0], x_ticks[-1]
    # The end of a path tells it from others.
    names = [name if len(name) <= 24 else f"…{name[-23:]}" for name, _ in rows]
    left = 14 + _CHARACTER * max(map(len, names))
    width, bottom = left + 320, _TOP + _ROW * len(rows)

    def px(x: float) -> float:
        return left + (width - left - 24) * (x - low) / (high - low)

    parts = []
    for x in x_ticks:
        parts.append(_rule(px(x), _TOP, px(x), bottom))
        parts.append(_text(px(x), bottom + 14, format_tick(x, x_ticks), "middle"))
    for i, (name, (_, row)) in enumerate(zip(names, rows, strict=True)):
        y, color = _TOP + _ROW * (i + 0.5), _COLORS[i % len(_COLORS)]
        parts.append(_text(left - 8, y + 4, name, "end"))
        parts += [_dot(px(value), y, color, 3.5, 0.65) for value in row]
        if row:
            mean = px(sum(row) / len(row))
            parts.append(_rule(mean, y - 8, mean, y + 8, 1.0, 2))
    label = f'<div style="padding-left:{left:.0f}px">{escape(x_label)}</div>'
    return _svg(width, bottom + 20, x_label, parts) + label


def ticks(low: float, high: float, count: int, bounds: Bounds = UNBOUNDED) -> list[float]:
    """Return at least two round numbers, about `count`, from `low` or below to `high` or above.

    `low` and `high` lie within `bounds`, which are round numbers themselves; so do the ticks.
    """
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # equal but for rounding
        margin = abs(low) / 100 or 0.5
        low, high = max(low - margin, bounds[0]), min(high + margin, bounds[1])
    raw = (high - low) / max(count - 1, 1)
    power: float = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    tolerance = 1e-9 * min(1.0, max(abs(low), abs(high)) / step)  # of rounding, in steps
    first, last = math.floor(low / step + tolerance), math.ceil(high / step - tolerance)
    return [min(max(step * i, bounds[0]), bounds[1]) for i in range(first, last + 1)]


def format_tick(value: float, among: Sequence[float]) -> str:
    """Return a number with as many decimals as the distance of `among` needs."""
    step = abs(among[1] - among[0]) if len(among) > 1 else 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value + 0.0:.{decimals}f}" if decimals <= 6 else f"{value:.1e}"


def _unbroken(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """Return the stretches of a line between values that are missing."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None or not math.isfinite(y):
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'style="display:block;width:{width:.0f}px;max-width:100%;height:auto" '
        f'font-size="11" fill="currentColor">{"".join(parts)}</svg>'
    )


def _legend(series: Sequence[Series], y_label: str) -> str:
    """Return what is drawn, and a sample of each line where there are several."""
    if len(series) == 1:
        return f'<div style="padding-left:{_LEFT}px">{escape(y_label)}</div>'
    entries = "".join(
        f'<span style="white-space:nowrap;margin-left:0.8em"><svg width="26" height="8">'
        f'<line x1="1" y1="4" x2="25" y2="4" stroke="{_COLORS[i % len(_COLORS)]}" '
        f'stroke-width="2" stroke-dasharray="{_DASHES[i % len(_DASHES)]}"/></svg> '
        f"{escape(line.name)}</span>"
        for i, line in enumerate(series)
    )
    return f'<div style="padding-left:{_LEFT}px">{escape(y_label)}:{entries}</div>'


def _rule(
    x1: float, y1: float, x2: float, y2: float, opacity: float = 0.25, width: float = 1
) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="currentColor" stroke-width="{width}" stroke-opacity="{opacity}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _dot(x: float, y: float, color: str, radius: float = 2.2, opacity: float = 1.0) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}" fill-opacity="{opacity}"/>'
    )
