"""Figures of a network: its feature maps from layer to layer, and its receptive fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from whit.analysis import Audit, Layer
from whit.reports.figures import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Item = TypeVar("Item")

_PER_ROW = 5  # feature maps
_MAX_MAPS = 20
_MAX_SHEETS = 4  # drawn one behind the other for the channels of a feature map
_COLOURS = (plots.SKY, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.BLUE, plots.VERMILION)
_DASHES = ("-", "--", "-.", ":", "--", "-")


@dataclass(frozen=True)
class FieldSize:
    """The receptive field of a position of a layer's output, in input pixels."""

    layer: str
    rows: float
    columns: float

    def __str__(self) -> str:
        return f"{self.rows:g}×{self.columns:g}"


def select_feature_maps(audit: Audit) -> tuple[Layer, ...]:
    """Return the layers whose output shape differs from the one before."""
    layers: list[Layer] = []
    for layer in audit.layers:
        shape = layer.output_shape
        if shape and len(shape) in (1, 3) and (not layers or layers[-1].output_shape != shape):
            layers.append(layer)
    return tuple(layers)


def select_receptive_fields(audit: Audit) -> tuple[FieldSize, ...]:
    """Return the receptive fields that are larger than all before them, the smallest first."""
    fields: list[FieldSize] = []
    for layer in audit.layers:
        size = layer.receptive_field
        if size is None:
            continue
        rows, columns = size if isinstance(size, tuple) else (size, size)
        if rows * columns > (fields[-1].rows * fields[-1].columns if fields else 1):
            fields.append(FieldSize(layer.name, float(rows), float(columns)))
    return tuple(fields)


def draw_feature_maps(audit: Audit, image_shape: tuple[int, int, int]) -> bytes:
    """Draw the feature maps to one scale, starting with the image; `image_shape` is (C, H, W)."""
    layers = _subsample(select_feature_maps(audit), _MAX_MAPS)
    maps = [("image", image_shape)]
    maps += [(layer.name, layer.output_shape) for layer in layers]  # type: ignore[misc]
    rows = -(-len(maps) // _PER_ROW)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for i, (name, shape) in enumerate(maps):
            row, column = divmod(i, _PER_ROW)
            _draw_map(axes, column * 1.3, -row * 1.75, name, shape, max(image_shape[1:]))
        axes.set_xlim(-0.7, (_PER_ROW - 1) * 1.3 + 0.7)
        axes.set_ylim(-(rows - 1) * 1.75 - 1.05, 0.65)
        axes.set_aspect("equal")
        axes.axis("off")

    return plots.render_svg(draw, 0.2 + 1.28 * rows)


def draw_receptive_fields(
    audit: Audit, image: Tensor | None, image_shape: tuple[int, int, int]
) -> bytes:
    """Draw receptive fields as nested rectangles centred on an image, clipped at its edge.

    `image` is uint8 (C, H, W), `image_shape` its shape; without it only its frame is drawn.
    """
    from matplotlib.patches import Rectangle

    fields = _subsample(select_receptive_fields(audit), len(_COLOURS))
    _, height, width = image_shape

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if image is not None:
            pixels = image.movedim(0, -1).numpy()
            is_grey = pixels.shape[2] == 1
            axes.imshow(
                pixels[..., 0] if is_grey else pixels, cmap="gray" if is_grey else None,
                interpolation="nearest", alpha=0.45, extent=(0, width, height, 0),
            )  # fmt: skip
        axes.add_patch(Rectangle((0, 0), width, height, fill=False, color=plots.BLACK, linewidth=1))
        margin = 0.0
        for field, colour, dashes in zip(fields, _COLOURS, _DASHES, strict=False):
            is_clipped = field.columns > width or field.rows > height
            if is_clipped:  # a little outside the one before, so that both are visible
                margin += 0.03 * max(width, height)
            columns, rows = min(field.columns, width + margin), min(field.rows, height + margin)
            corner = ((width - columns) / 2, (height - rows) / 2)
            label = f"{_label(field.layer)}: {field}{', clipped' if is_clipped else ''}"
            axes.add_patch(Rectangle(
                corner, columns, rows, fill=False, edgecolor=colour, linestyle=dashes,
                linewidth=2.4, clip_on=False, label=label,
            ))  # fmt: skip
        axes.set_xlim(-0.5 - margin / 2, width + 0.5 + margin / 2)
        axes.set_ylim(height + 0.5 + margin / 2, -0.5 - margin / 2)
        axes.set_aspect("equal")
        axes.axis("off")
        if fields:
            figure.legend(loc="outside right center", fontsize=9, handlelength=3)

    return plots.render_svg(draw, 3.0)


def _subsample(items: Sequence[Item], max_items: int) -> list[Item]:
    """Return at most `max_items` of the items, evenly from the first to the last."""
    if len(items) <= max_items:
        return list(items)
    last = len(items) - 1
    return [items[round(i * last / (max_items - 1))] for i in range(max_items)]


def _draw_map(
    axes: Axes, x: float, y: float, name: str, shape: tuple[int, ...], max_side: int
) -> None:
    from matplotlib.patches import Rectangle

    channels = shape[0]
    height, width = shape[1:] if len(shape) == 3 else (1, 1)
    tall, wide = (max(0.04, min(1.0, side / max_side)) for side in (height, width))
    for sheet in reversed(range(min(channels, _MAX_SHEETS))):
        corner = (x - wide / 2 + 0.035 * sheet, y - tall / 2 + 0.035 * sheet)
        axes.add_patch(
            Rectangle(corner, wide, tall, facecolor=plots.SKY, edgecolor=plots.BLACK, linewidth=0.7)
        )
    size = f" × {height}×{width}" if len(shape) == 3 else ""
    axes.text(x, y - 0.58, f"{_label(name)}\n{channels}{size}", ha="center", va="top", fontsize=9)


def _label(name: str) -> str:
    text = name if len(name) <= 12 else f"…{name[-11:]}"
    # An unescaped dollar sign starts a formula; a legend skips labels that begin with _.
    return text.replace("$", r"\$").lstrip("_")
