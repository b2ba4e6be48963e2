"""Images of a data set as small PNG files, the same bytes for the same image."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

_MAX_SIDE = 48  # pixels; a larger image is scaled down, so that a report stays small
_PER_ROW = 10  # images of a contact sheet
_CELL, _GAP = 56, 4  # pixels of a contact sheet
_BACKGROUND = (255, 255, 255)


def encode_png(image: Tensor) -> bytes:
    """Return an image, uint8 (C, H, W) of 1 or 3 channels, as PNG of at most 48 x 48."""
    pixels = image.movedim(0, -1).contiguous().numpy()  # (H, W, C)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if max(picture.size) > _MAX_SIDE:
        picture.thumbnail((_MAX_SIDE, _MAX_SIDE))
    return _save(picture)


def build_contact_sheet(pngs: Sequence[bytes]) -> bytes:
    """Return images in rows of ten, in their order, as one PNG."""
    columns = min(len(pngs), _PER_ROW)
    rows = -(-len(pngs) // _PER_ROW)
    step = _CELL + _GAP
    sheet = Image.new("RGB", (columns * step + _GAP, rows * step + _GAP), _BACKGROUND)
    for i, content in enumerate(pngs):
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            scale = _CELL / max(image.size)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            scaled = image.resize(size, Image.Resampling.NEAREST)
        row, column = divmod(i, _PER_ROW)
        sheet.paste(scaled, (_GAP + column * step, _GAP + row * step))
    return _save(sheet)


def _save(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()
