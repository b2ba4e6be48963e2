"""One image file: PNG, JPEG, BMP, PGM/PPM, GIF or WebP of 8 bits.

Grey images have 1 channel, colour ones 3. A palette of greys makes a grey image, another one a
colour image; black and white is 0 and 255. Transparency is accepted where nothing is
transparent. Refused, with what to do: 16 bits, several frames, CMYK, any real transparency (it
would need a background that whit cannot know), and more than MAX_PIXELS. A JPEG's orientation
tag is not followed.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from whit.data.files import file_size, open_file
from whit.data.pixels import Pixels
from whit.errors import DataError

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".pbm", ".gif", ".webp"}

# The only decoders that are ever asked: Pillow has others that start programs (EPS).
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "GIF", "WEBP")

MAX_PIXELS = 1 << 22  # 2048 x 2048; decoded that is at most 16 MB
_MAX_FILE = 32 << 20  # bytes; an uncompressed image of MAX_PIXELS has half of it


def read_picture_shape(path: Path, root: Path) -> tuple[int, int, int]:
    """Return (C, H, W) of an image file. Raises DataError."""
    with warnings.catch_warnings():
        image, channels = _open(path, root)
        return channels, image.height, image.width


def read_picture(path: Path, root: Path, wanted: tuple[int, int, int], first: Path) -> Pixels:
    """Return the pixels, uint8 (C, H, W).

    `wanted` is the shape of `first`, the image that all others must equal in shape. Raises
    DataError if the file is damaged, not of an accepted kind, leads outside `root`, or differs.
    """
    with warnings.catch_warnings():
        image, channels = _open(path, root)
        found = (channels, image.height, image.width)
        if found != wanted:
            raise DataError(
                f"{path}: wanted {_text(wanted)} (channels x height x width), as in {first}, "
                f"found {_text(found)}; bring all images to one size and to grey or colour"
            )
        with _damage_named(path):
            return _decode(image, channels, path)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turn what a decoder raises on damaged data, which is nearly anything, into a DataError."""
    try:
        yield
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: wanted at most {MAX_PIXELS:,} pixels ({error})") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path}: wanted an image ({', '.join(_FORMATS)}), found another file or damage"
        ) from error
    except Exception as error:
        raise DataError(
            f"{path}: wanted a whole image, found damage ({type(error).__name__}: {error})"
        ) from error


def _open(path: Path, root: Path) -> tuple[Image.Image, int]:
    """Return an image that is accepted, and its channels; its pixels are not yet decoded."""
    warnings.simplefilter("ignore")  # remarks on odd metadata, which is not used
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    with open_file(path, root) as file:
        if file_size(file) > _MAX_FILE:
            raise DataError(
                f"{path}: wanted an image file of at most {_MAX_FILE:,} bytes, found "
                f"{file_size(file):,}"
            )
        data = file.read()
    with _damage_named(path):
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise DataError(
                f"{path}: wanted at most {MAX_PIXELS:,} pixels, found {image.width}x{image.height}"
            )
        if getattr(image, "is_animated", False):
            raise DataError(f"{path}: wanted one image, found several frames; save one of them")
        if _has_16_bits(image, data):
            raise DataError(f"{path}: wanted 8 bits a channel, found 16 or more; save it with 8")
        return image, _channels(image, path)


def _has_16_bits(image: Image.Image, data: bytes) -> bool:
    """Whether values are wider than a byte; Pillow narrows some such files without a word."""
    if image.mode == "F" or image.mode.startswith("I"):
        return True
    if image.format == "PNG":
        return data[24] == 16  # IHDR: signature 8, length and type 8, width 4, height 4, depth
    if image.format == "PPM":
        largest = [tile[3][1] for tile in getattr(image, "tile", []) if len(tile[3]) > 1]
        return any(isinstance(value, int) and value > 255 for value in largest)
    return False


def _channels(image: Image.Image, path: Path) -> int:
    """Return 1 for a grey image and 3 for a colour one, told from its mode."""
    if image.mode in ("1", "L", "LA"):
        return 1
    if image.mode in ("RGB", "RGBA"):
        return 3
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return 1 if (palette == palette[:, :1]).all() else 3
    raise DataError(f"{path}: wanted a grey or RGB image, found {image.mode}; save it as RGB")


def _decode(image: Image.Image, channels: int, path: Path) -> Pixels:
    """Return the pixels, uint8 (C, H, W); raises DataError where one is transparent."""
    image.load()
    if image.has_transparency_data:
        pixels = np.asarray(image.convert("RGBA"))
        if pixels[..., 3].min() < 255:
            raise DataError(
                f"{path}: wanted an opaque image, found transparent pixels; lay it on the "
                "background it should have"
            )
    elif image.mode in ("1", "L"):
        pixels = np.asarray(image.convert("L"))[..., None]
    else:
        pixels = np.asarray(image.convert("RGB"))
    return np.moveaxis(pixels[..., :channels], -1, 0)  # a grey image has equal R, G and B


def _text(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))
