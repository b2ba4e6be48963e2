"""Images of a data set as small PNG files, the same bytes for the same image."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

_LARGEST = 48  # pixels a side; a larger image is shown smaller, so that a report stays small
_ROW = 10  # images in a row of a sheet
_CELL, _GAP = 56, 4  # pixels of a sheet
_PAPER = (255, 255, 255)


def png_of(image: Tensor) -> bytes:
    """Return an image, uint8 (C, H, W) of 1 or 3 channels, as PNG of at most 48 x 48."""
    return _saved(_opened(image))


def sheet_of(pngs: Sequence[bytes]) -> bytes:
    """Return images side by side in rows of ten, in their order, as one PNG."""
    columns = min(len(pngs), _ROW)
    rows = -(-len(pngs) // _ROW)
    step = _CELL + _GAP
    sheet = Image.new("RGB", (columns * step + _GAP, rows * step + _GAP), _PAPER)
    for place, content in enumerate(pngs):
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            scale = _CELL / max(image.size)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            larger = image.resize(size, Image.Resampling.NEAREST)
        row, column = divmod(place, _ROW)
        sheet.paste(larger, (_GAP + column * step, _GAP + row * step))
    return _saved(sheet)


def _opened(image: Tensor) -> Image.Image:
    pixels = image.movedim(0, -1).contiguous().numpy()  # (H, W, C)
    opened = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if max(opened.size) > _LARGEST:
        opened.thumbnail((_LARGEST, _LARGEST))
    return opened


def _saved(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()
