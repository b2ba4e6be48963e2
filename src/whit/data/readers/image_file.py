"""One image file: PNG, JPEG, BMP, PGM/PPM, GIF or WebP of 8 bits.

Grey images have 1 channel, color images 3. A palette of greys gives a grey image, any other a
color image; black and white are 0 and 255. An alpha channel is accepted if all pixels are opaque.
An image with an EXIF orientation is turned, as every viewer does. Refused, with advice: 16 bits,
several frames, CMYK, transparent pixels (their background is not known), and more than MAX_PIXELS.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from whit.data.readers.arrays import format_shape
from whit.data.readers.bounded_io import file_size, open_file
from whit.data.splits import Pixels
from whit.errors import DataError

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".pbm", ".gif", ".webp"}

# The only decoders that Pillow may use: others start programs (EPS).
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "GIF", "WEBP")

# How Pillow turns an image of each orientation; 1 needs no turn.
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TRANSPOSED = (5, 6, 7, 8)  # these swap width and height

MAX_PIXELS = 1 << 22  # 2048 x 2048; at most 16 MB decoded
_MAX_FILE_BYTES = 32 << 20  # twice an uncompressed image of MAX_PIXELS


def read_image_shape(path: Path, root: Path) -> tuple[int, int, int]:
    """Return (C, H, W) of an image file. Raises DataError."""
    with warnings.catch_warnings():
        image, channels = _open(path, root)
        with _name_damage(path):
            return channels, *_turned_size(image)


def read_image(
    path: Path,
    root: Path,
    shape: tuple[int, int, int],
    first: Path,
    traits: Counter[str] | None = None,
) -> Pixels:
    """Return the pixels, uint8 (C, H, W), turned by the EXIF orientation.

    `shape` is that of `first`, which all images must have. What was done to the image is counted
    in `traits`. Raises DataError if the file is damaged, not of an accepted kind, leads outside
    `root`, or has another shape.
    """
    with warnings.catch_warnings():
        image, channels = _open(path, root)
        with _name_damage(path):
            actual = (channels, *_turned_size(image))
        if actual != shape:
            raise DataError(
                f"{path}: expected {format_shape(shape)} (channels x height x width), as in "
                f"{first}, found {format_shape(actual)}; convert all images to one size and to "
                "grey or color"
            )
        with _name_damage(path):
            if traits is not None:
                traits.update(_find_traits(image))
            return _decode(image, channels, path)


@contextmanager
def _name_damage(path: Path) -> Iterator[None]:
    """Turn any exception of a decoder, which damaged data can cause, into a DataError."""
    try:
        yield
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: expected at most {MAX_PIXELS:,} pixels ({error})") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path}: expected an image ({', '.join(_FORMATS)}), found another file or damage"
        ) from error
    except Exception as error:
        raise DataError(
            f"{path}: expected a complete image, found damage ({type(error).__name__}: {error})"
        ) from error


def _open(path: Path, root: Path) -> tuple[Image.Image, int]:
    """Return an accepted image and its number of channels; its pixels are not decoded yet."""
    warnings.simplefilter("ignore")  # about metadata, which is not used
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    with open_file(path, root) as file:
        if file_size(file) > _MAX_FILE_BYTES:
            raise DataError(
                f"{path}: expected an image file of at most {_MAX_FILE_BYTES:,} bytes, found "
                f"{file_size(file):,}"
            )
        data = file.read()
    with _name_damage(path):
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise DataError(
                f"{path}: expected at most {MAX_PIXELS:,} pixels, found "
                f"{image.width}x{image.height}"
            )
        if getattr(image, "is_animated", False):
            raise DataError(f"{path}: expected one image, found several frames; save one of them")
        if _has_16_bits(image, data):
            raise DataError(
                f"{path}: expected 8 bits per channel, found 16 or more; save it with 8"
            )
        return image, _count_channels(image, path)


def _has_16_bits(image: Image.Image, data: bytes) -> bool:
    """Return whether values are wider than a byte; Pillow narrows some such files silently."""
    if image.mode == "F" or image.mode.startswith("I"):
        return True
    if image.format == "PNG":
        return data[24] == 16  # IHDR: signature 8, length and type 8, width 4, height 4, depth
    if image.format == "PPM":
        max_values = [tile[3][1] for tile in getattr(image, "tile", []) if len(tile[3]) > 1]
        return any(isinstance(value, int) and value > 255 for value in max_values)
    return False


def _count_channels(image: Image.Image, path: Path) -> int:
    if image.mode in ("1", "L", "LA"):
        return 1
    if image.mode in ("RGB", "RGBA"):
        return 3
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return 1 if (palette == palette[:, :1]).all() else 3
    raise DataError(f"{path}: expected a grey or RGB image, found {image.mode}; save it as RGB")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where the file has none, or a damaged one."""
    if image.format == "PNG":
        image.load()  # the tag may follow the pixels; damage of these is an error
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata can raise anything; viewers ignore it
        return 1
    return orientation if orientation in _TURNS else 1


def _turned_size(image: Image.Image) -> tuple[int, int]:
    """Return (H, W) of the image as it is shown."""
    is_transposed = _orientation(image) in _TRANSPOSED
    return (image.width, image.height) if is_transposed else (image.height, image.width)


def _find_traits(image: Image.Image) -> list[str]:
    """Return what reading the image changes, for a note: `N of M images ...`."""
    traits = []
    if _orientation(image) != 1:
        traits.append("are turned by their EXIF orientation")
    if image.has_transparency_data:
        traits.append("have an alpha channel, which is opaque and dropped")
    if image.mode in ("P", "PA"):
        traits.append("have a palette, whose colors are read")
    return traits


def _decode(image: Image.Image, channels: int, path: Path) -> Pixels:
    """Return the turned pixels, uint8 (C, H, W); raises DataError where one is transparent."""
    image.load()
    if (orientation := _orientation(image)) in _TURNS:
        image = image.transpose(_TURNS[orientation])
    pixels = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    if image.has_transparency_data and pixels[..., 3].min() < 255:
        raise DataError(
            f"{path}: expected an opaque image, found transparent pixels; "
            "composite it onto an opaque background"
        )
    return np.moveaxis(pixels[..., :channels], -1, 0)  # a grey image has equal R, G and B
