"""Folders of images load as they are; whatever is odd is refused with the file's name.

pytest tests/data/test_image_folder.py
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make import make_images, problems, write_folder
from PIL import Image

from whit.data.datasets import load_dataset, probe_dataset
from whit.data.readers.image_file import read_image, read_image_shape
from whit.errors import DataError


def refused(root: Path) -> str:
    """Load what must be refused; return the message."""
    with pytest.raises(DataError) as caught:
        load_dataset(str(root))
    return problems(caught.value)


def read(path: Path) -> np.ndarray:
    """Read one picture by itself, of whatever shape it is."""
    return read_image(path, path.parent, read_image_shape(path, path.parent), path)


def test_train_and_test_folders(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "insects")
    (root / "README.txt").write_text("beside the folders")
    (root / "train" / "ant" / ".hidden").write_text("passed over")
    (root / "train" / "ant" / "Thumbs.db").write_text("passed over")
    dataset = load_dataset(str(root))
    assert repr(dataset) == "Dataset(insects: train 12, test 12; 1x5x4, 3 classes)"
    assert dataset.classes == ("ant", "bee", "cat")
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    bee = np.asarray(Image.open(root / "train" / "bee" / "02.png"))
    assert (dataset.train.images[6, 0].numpy() == bee).all()
    assert probe_dataset(str(root)) == ((1, 5, 4), 3, 12)


def test_a_val_folder_is_used(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "x", ("train", "valid", "test"))
    dataset = load_dataset(str(root))
    assert [(split.name, len(split)) for split in dataset.splits] == [
        ("train", 12), ("val", 12), ("test", 12),
    ]  # fmt: skip


def test_classes_alone_have_a_test_split_cut(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "x", (), count=10)
    dataset = load_dataset(str(root), val=3)
    assert [len(split) for split in dataset.splits] == [21, 3, 6]
    assert [split.labels.bincount().tolist() for split in dataset.splits] == [
        [7] * 3, [1] * 3, [2] * 3,
    ]  # fmt: skip
    assert probe_dataset(str(root)) == ((1, 5, 4), 3, 24)
    again = load_dataset(str(shutil.copytree(root, tmp_path / "y")), val=3)
    assert again.fingerprint == dataset.fingerprint


def test_other_names_of_splits_and_leftovers(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets", ("Training", "Testing"))
    (root / "__MACOSX" / "Training").mkdir(parents=True)
    dataset = load_dataset(str(root))
    assert (len(dataset.train), len(dataset.test)) == (12, 12)
    (root / "train").mkdir()
    with pytest.raises(DataError, match=r"expected one folder for each split, found .*Training"):
        load_dataset(str(root))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "x", (), count=10)
    (root / "ant").rename(root / "train")
    assert load_dataset(str(root)).classes == ("bee", "cat", "train")


def test_links_inside_are_followed_and_copies_counted(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "x")
    (root / "test" / "ant" / "00.png").unlink()
    (root / "test" / "ant" / "00.png").symlink_to(root / "train" / "ant" / "00.png")
    assert load_dataset(str(root)).overlap == 1


COLOUR = make_images(1, 5, 4, 3, seed=7)[0]
GREY = make_images(1, 5, 4, seed=8)[0]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".webp"])
def test_colour_formats_keep_every_byte(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(COLOUR).save(path, lossless=True)
    assert (read(path) == np.moveaxis(COLOUR, -1, 0)).all()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".pgm", ".gif"])
def test_grey_formats_keep_every_byte(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(GREY).save(path)
    assert (read(path) == GREY).all()


def test_jpeg_is_grey_or_colour(tmp_path: Path) -> None:
    for pixels, channels in ((GREY, 1), (COLOUR, 3)):
        Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
        assert read(tmp_path / "a.jpg").shape == (channels, 5, 4)


def test_black_and_white_palettes_and_opaque_alpha(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(GREY > 100).save(path)
    assert (read(path)[0] == 255 * (GREY > 100)).all()
    palette = Image.fromarray(GREY, "L").convert("P")
    palette.save(path)
    assert (read(path)[0] == GREY).all()
    colours = Image.fromarray(COLOUR).quantize(8)
    colours.save(path)
    assert (read(path) == np.moveaxis(np.asarray(colours.convert("RGB")), -1, 0)).all()
    Image.fromarray(COLOUR).convert("RGBA").save(path)
    assert (read(path) == np.moveaxis(COLOUR, -1, 0)).all()
    Image.fromarray(GREY).convert("LA").save(path)
    assert (read(path)[0] == GREY).all()
    Image.fromarray(GREY).save(path, transparency=int(GREY[0, 0]))
    with pytest.raises(DataError, match="transparent"):
        read(path)


def see_through(path: Path) -> str:
    image = Image.fromarray(GREY).convert("LA")
    image.putpixel((1, 1), (1, 254))
    image.save(path)
    return "transparent"


def see_through_palette(path: Path) -> str:
    Image.fromarray(GREY).convert("P").save(path, transparency=int(GREY[0, 0]))
    return "transparent"


def sixteen_bits(path: Path) -> str:
    Image.fromarray(GREY.astype(np.uint16) * 200).save(path)
    return "8 bits"


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG with any header; `rows` are its raw rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, data)
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def sixteen_bit_colour(path: Path) -> str:
    path.write_bytes(png(4, 5, 16, 2, (b"\0" + bytes(24)) * 5))
    return "8 bits"


def sixteen_bit_ppm(path: Path) -> str:
    path.write_bytes(b"P6 4 5 65535\n" + bytes(120))
    return "8 bits"


def animated(path: Path) -> str:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])
    return "several frames"


def animated_png(path: Path) -> str:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return "several frames"


def cmyk(path: Path) -> str:
    Image.fromarray(COLOUR).convert("CMYK").save(path, format="JPEG")
    return "CMYK"


def larger_bomb(path: Path) -> str:
    path.write_bytes(png(60_000, 60_000, 8, 0, bytes(1000)))
    return "4,194,304 pixels"


def bomb(path: Path) -> str:
    path.write_bytes(png(10_000, 10_000, 8, 0, bytes(1000)))
    return "4,194,304 pixels"


def small_bomb(path: Path) -> str:
    path.write_bytes(png(3_000, 3_000, 8, 0, bytes(1000)))
    return "found 3000x3000"


def other_size(path: Path) -> str:
    Image.fromarray(GREY.T.copy()).save(path)
    return "expected 1x5x4 (channels x height x width), as in"


def colour_among_grey(path: Path) -> str:
    Image.fromarray(COLOUR).save(path)
    return "found 3x5x4"


def truncated(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-30])
    return "damage"


def flipped(path: Path) -> str:
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    return "damage"


def no_image(path: Path) -> str:
    path.write_text("not an image")
    return "expected an image"


def postscript(path: Path) -> str:
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 5\n%%EOF\n")
    return "expected an image"


def tiff(path: Path) -> str:
    Image.fromarray(GREY).save(path, format="TIFF")
    return "expected an image"


def empty_file(path: Path) -> str:
    path.write_bytes(b"")
    return "expected an image"


def huge_file(path: Path) -> str:
    os.truncate(path, 40 << 20)
    return "at most"


def pipe(path: Path) -> str:
    path.unlink()
    os.mkfifo(path)
    return "regular file"


def link_outside(path: Path) -> str:
    path.unlink()
    path.symlink_to("/etc/passwd")
    return "/etc/passwd"


def broken_link(path: Path) -> str:
    path.unlink()
    path.symlink_to("nowhere.png")
    return "cannot be opened"


def link_to_itself(path: Path) -> str:
    path.unlink()
    path.symlink_to(path.name)
    return "cannot be opened"


def folder_for_file(path: Path) -> str:
    path.unlink()
    path.mkdir()
    return "regular file"


@pytest.mark.parametrize(
    "damage",
    [
        see_through, see_through_palette, sixteen_bits, sixteen_bit_colour, sixteen_bit_ppm,
        animated, animated_png, cmyk, larger_bomb, bomb, small_bomb, other_size,
        colour_among_grey, truncated, flipped, no_image, postscript, tiff, empty_file, huge_file,
        pipe, link_outside, broken_link, link_to_itself, folder_for_file,
    ],
)  # fmt: skip
def test_an_odd_file_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], str]) -> None:
    root = write_folder(tmp_path / "x")
    path = root / "test" / "bee" / "02.png"
    word = damage(path)
    tracemalloc.start()
    message = refused(root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in message
    assert word in message, message
    assert len(message.splitlines()) == 1
    assert peak < 20_000_000


def no_test(root: Path) -> list[str]:
    shutil.rmtree(root / "test")
    return [str(root), "train and test", "found only train"]


def another_folder(root: Path) -> list[str]:
    (root / "extra").mkdir()
    return [str(root / "extra"), "move it elsewhere"]


def empty_class(root: Path) -> list[str]:
    for path in (root / "train" / "bee").iterdir():
        path.unlink()
    return [str(root / "train" / "bee"), "found none"]


def missing_class(root: Path) -> list[str]:
    shutil.rmtree(root / "test" / "bee")
    return [str(root / "test"), "does not have bee"]


def extra_class(root: Path) -> list[str]:
    shutil.copytree(root / "test" / "bee", root / "test" / "dog")
    return [str(root / "test"), "also has dog"]


def one_class(root: Path) -> list[str]:
    for part in ("train", "test"):
        for name in ("bee", "cat"):
            shutil.rmtree(root / part / name)
    return ["at least 2 classes"]


def other_files(root: Path) -> list[str]:
    (root / "train" / "bee" / "list.csv").write_text("a,b")
    (root / "train" / "cat" / "model.pkl").write_bytes(b"\x80\x04.")
    return ["2 others", "list.csv", "model.pkl"]


def image_beside_classes(root: Path) -> list[str]:
    path = root / "train" / "loose.png"
    shutil.copy(root / "train" / "bee" / "00.png", path)
    return [str(path), "folder of their class"]


def class_outside(root: Path) -> list[str]:
    (root / "train" / "bee").rename(root.parent / "away")
    (root / "train" / "bee").symlink_to(root.parent / "away")
    return [str(root / "train" / "bee"), "away"]


def split_outside(root: Path) -> list[str]:
    (root / "test").rename(root.parent / "away")
    (root / "test").symlink_to("../away")
    return [str(root / "test"), "away"]


def names_that_are_no_text(root: Path) -> list[str]:
    (root / "train" / "bee" / "00.png").rename(
        os.fsdecode(bytes(root / "train/bee") + b"/\xff.png")
    )
    (root / "test" / "bee" / "00.png").rename(root / "test" / "bee" / "\x1b[2J.png")
    return [r"'\udcff.png'", r"'\x1b[2J.png'", "rename it"]


def several(root: Path) -> list[str]:
    return other_files(root) + missing_class(root) + image_beside_classes(root)


def many(root: Path) -> list[str]:
    for index in range(100):
        (root / "train" / "ant" / f"x{index}.png").write_bytes(b"")
    return ["x0.png", "and perhaps more"]


@pytest.mark.parametrize(
    "damage",
    [
        no_test, another_folder, empty_class, missing_class, extra_class, one_class, other_files,
        image_beside_classes, class_outside, split_outside,
        names_that_are_no_text, several, many,
    ],
)  # fmt: skip
def test_an_odd_folder_is_refused(tmp_path: Path, damage: Callable[[Path], list[str]]) -> None:
    root = write_folder(tmp_path / "x")
    words = damage(root)
    message = refused(root)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) <= 21


@given(
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    suffix=st.sampled_from([".png", ".jpg", ".bmp", ".gif", ".webp", ".ppm"]),
)
@settings(max_examples=150)
def test_a_flipped_bit_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("flip") / f"a{suffix}"
    Image.fromarray(COLOUR).save(path)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        pixels = read(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3


def test_a_png_text_bomb_takes_no_memory(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "PNG")
    data = buffer.getvalue()
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000)))
    path = tmp_path / "a.png"
    path.write_bytes(data[:33] + text + data[33:])
    tracemalloc.start()
    with pytest.raises(DataError, match=path.name):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
