"""A drawing of how the maps shrink from layer to layer, and how much of the image each sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from whit.auditing import Audit, Layer
from whit.reports.figures.plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Item = TypeVar("Item")

_PER_ROW = 5  # maps
_MOST_MAPS = 20
_MOST_FIELDS = 6  # squares that can be told apart
_MOST_SHEETS = 4  # drawn behind each other for the channels of a map
_LINES = (
    (SKY, "-"),
    (ORANGE, "--"),
    (GREEN, "-."),
    (PURPLE, ":"),
    (BLUE, "--"),
    (VERMILION, "-"),
)


@dataclass(frozen=True)
class Field:
    """What the positions of a layer see: rows and columns of input pixels."""

    name: str
    rows: float
    columns: float

    @property
    def said(self) -> str:
        if self.rows == self.columns:
            return f"{self.rows:g}×{self.rows:g}"
        return f"{self.rows:g}×{self.columns:g}"


def maps_of(audit: Audit) -> tuple[Layer, ...]:
    """Return the layers whose output has another shape than the layer before."""
    found: list[Layer] = []
    for layer in audit.layers:
        shape = layer.output_shape
        if shape and len(shape) in (1, 3) and (not found or found[-1].output_shape != shape):
            found.append(layer)
    return tuple(found)


def fields_of(audit: Audit) -> tuple[Field, ...]:
    """Return the layers that see more than all before them, the smallest field first."""
    found: list[Field] = []
    for layer in audit.layers:
        seen = layer.receptive_field
        if seen is None:
            continue
        rows, columns = seen if isinstance(seen, tuple) else (seen, seen)
        if rows * columns > (found[-1].rows * found[-1].columns if found else 1):
            found.append(Field(layer.name, float(rows), float(columns)))
    return tuple(found)


def draw_maps(audit: Audit, image_shape: tuple[int, int, int]) -> bytes:
    """Draw the maps as squares to one scale, the image first; `image_shape` is (C, H, W)."""
    chosen = thinned(maps_of(audit), _MOST_MAPS)
    maps = [("image", image_shape)]
    maps += [(layer.name, layer.output_shape) for layer in chosen]  # type: ignore[misc]
    rows = -(-len(maps) // _PER_ROW)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        largest = max(image_shape[1:])
        for place, (name, shape) in enumerate(maps):
            row, column = divmod(place, _PER_ROW)
            _draw_map(axes, column * 1.3, -row * 1.75, name, shape, largest)
        axes.set_xlim(-0.7, (_PER_ROW - 1) * 1.3 + 0.7)
        axes.set_ylim(-(rows - 1) * 1.75 - 1.05, 0.65)
        axes.set_aspect("equal")
        axes.axis("off")

    return drawn(draw, 0.2 + 1.28 * rows)


def draw_fields(audit: Audit, image: Tensor | None, image_shape: tuple[int, int, int]) -> bytes:
    """Draw receptive fields as nested squares about the middle of an image, cut at its edge.

    `image` is uint8 (C, H, W), `image_shape` its shape; without it the squares stand alone.
    """
    from matplotlib.patches import Rectangle

    fields = thinned(fields_of(audit), _MOST_FIELDS)
    _, height, width = image_shape

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if image is not None:
            pixels = image.movedim(0, -1).numpy()
            grey = pixels.shape[2] == 1
            axes.imshow(
                pixels[..., 0] if grey else pixels, cmap="gray" if grey else None,
                interpolation="nearest", alpha=0.45, extent=(0, width, height, 0),
            )  # fmt: skip
        axes.add_patch(Rectangle((0, 0), width, height, fill=False, color=BLACK, linewidth=1))
        edge = 0.0
        for field, (colour, dashes) in zip(fields, _LINES, strict=False):
            over = field.columns > width or field.rows > height
            if over:  # side by side, so that all of them are seen
                edge += 0.03 * max(width, height)
            columns, rows = min(field.columns, width + edge), min(field.rows, height + edge)
            corner = ((width - columns) / 2, (height - rows) / 2)
            axes.add_patch(
                Rectangle(
                    corner,
                    columns,
                    rows,
                    fill=False,
                    edgecolor=colour,
                    linestyle=dashes,
                    linewidth=2.4,
                    clip_on=False,
                    label=f"{_plain(field.name)}: {field.said}{', cut' if over else ''}",
                )
            )
        axes.set_xlim(-0.5 - edge / 2, width + 0.5 + edge / 2)
        axes.set_ylim(height + 0.5 + edge / 2, -0.5 - edge / 2)
        axes.set_aspect("equal")
        axes.axis("off")
        if fields:
            figure.legend(loc="outside right center", fontsize=9, handlelength=3)

    return drawn(draw, 3.0)


def thinned(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most `most` of the items, evenly from the first to the last."""
    if len(items) <= most:
        return list(items)
    last = len(items) - 1
    return [items[round(place * last / (most - 1))] for place in range(most)]


def _draw_map(
    axes: Axes, x: float, y: float, name: str, shape: tuple[int, ...], largest: int
) -> None:
    from matplotlib.patches import Rectangle

    channels = shape[0]
    height, width = shape[1:] if len(shape) == 3 else (1, 1)
    tall, wide = (max(0.04, min(1.0, side / largest)) for side in (height, width))
    for sheet in reversed(range(min(channels, _MOST_SHEETS))):
        corner = (x - wide / 2 + 0.035 * sheet, y - tall / 2 + 0.035 * sheet)
        axes.add_patch(Rectangle(corner, wide, tall, facecolor=SKY, edgecolor=BLACK, linewidth=0.7))
    size = f"{height}×{width}" if len(shape) == 3 else "numbers"
    said = (
        f"{_plain(name)}\n{channels} × {size}" if len(shape) == 3 else f"{_plain(name)}\n{channels}"
    )
    axes.text(x, y - 0.58, said, ha="center", va="top", fontsize=9)


def _plain(name: str) -> str:
    shown = name if len(name) <= 12 else f"…{name[-11:]}"
    return shown.replace("$", r"\$").lstrip("_")  # a legend leaves out what begins with _
