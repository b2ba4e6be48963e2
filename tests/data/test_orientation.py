"""Images with an EXIF orientation are turned as Pillow's own function, and every viewer, does."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from make import make_images, problems, write_folder
from PIL import Image, ImageOps

from whit.data.datasets import load_dataset, probe_dataset
from whit.data.readers.image_file import read_image, read_image_shape
from whit.errors import DataError

GREY = make_images(1, 5, 4, seed=8)[0]
COLOUR = make_images(1, 5, 4, 3, seed=7)[0]
TAG = 0x0112


def exif(orientation: object) -> Image.Exif:
    tags = Image.Exif()
    tags[TAG] = orientation
    return tags


def read(path: Path) -> np.ndarray:
    return read_image(path, path.parent, read_image_shape(path, path.parent), path)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_all_orientations(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a.{suffix}"
    for pixels in (GREY, COLOUR):
        image = Image.fromarray(pixels)
        image.save(path, exif=exif(orientation), lossless=True, quality=95)
        shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))
        expected = shown[None] if shown.ndim == 2 else np.moveaxis(shown, -1, 0)
        found = read(path)
        # Every WebP is a color image.
        assert found.shape == read_image_shape(path, tmp_path) == expected.shape
        assert (found == expected).all()
        assert found.shape[1:] == ((4, 5) if orientation in (5, 6, 7, 8) else (5, 4))


def test_palettes_and_opaque_alpha_are_turned(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    colours = Image.fromarray(COLOUR).quantize(8)
    for image in (colours, Image.fromarray(COLOUR).convert("RGBA"), Image.fromarray(GREY > 99)):
        image.save(path, exif=exif(6))
        shown = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        found = read(path)
        assert (found == np.moveaxis(np.asarray(shown), -1, 0)[: len(found)]).all()


def test_a_tag_after_the_pixels(tmp_path: Path) -> None:
    """PNG allows it there."""
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "PNG", exif=exif(8))
    content = stream.getvalue()
    start = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[start : start + 4], "big")
    chunk = content[start : start + length]
    rest = content[:start] + content[start + length :]
    end = rest.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(rest[:end] + chunk + rest[end:])
    assert (read(tmp_path / "a.png")[0] == np.rot90(GREY, 1)).all()


def test_damaged_metadata_is_ignored(tmp_path: Path) -> None:
    for raw in (b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 60):
        for suffix in ("jpg", "webp"):
            path = tmp_path / f"a.{suffix}"
            Image.fromarray(COLOUR).save(path, exif=raw, quality=95, lossless=True)
            assert read(path).shape == (3, 5, 4)


def test_turned_images_of_a_folder_are_counted(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "insects")
    first = root / "train" / "ant" / "00.png"
    Image.fromarray(make_images(1, 4, 5, seed=3)[0]).save(first, exif=exif(6))
    Image.open(root / "train" / "bee" / "01.png").convert("RGBA").save(
        root / "train" / "bee" / "01.png"
    )
    with pytest.raises(DataError) as caught:
        load_dataset(str(root))
    assert "found 3x5x4" in problems(caught.value)
    Image.open(root / "train" / "bee" / "00.png").convert("LA").save(
        root / "train" / "bee" / "01.png"
    )
    dataset = load_dataset(str(root))
    assert dataset.image_shape == probe_dataset(str(root)).image_shape == (1, 5, 4)
    assert dataset.reading_notes == (
        f"{root}/train: 1 of 12 images are turned by their EXIF orientation",
        f"{root}/train: 1 of 12 images have an alpha channel, which is opaque and dropped",
    )
    shutil.rmtree(root)
    assert load_dataset(str(write_folder(root))).notes == ()


def test_a_turned_image_of_another_size_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "insects")
    path = root / "train" / "bee" / "00.png"
    Image.open(path).save(path, exif=exif(5))
    with pytest.raises(DataError, match="found 1x4x5"):
        load_dataset(str(root))
