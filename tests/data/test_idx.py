"""IDX folders load under all their usual names; every kind of damage is refused and named.

pytest tests/data/test_idx.py
"""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from make import (
    IDX_NAMES,
    arrays,
    idx_bytes,
    make_images,
    make_labels,
    problems,
    write_idx,
)

from whit.data.datasets import load_dataset, probe_dataset
from whit.data.readers.idx import read_idx
from whit.errors import DataError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = IDX_NAMES.values()


def refused(root: Path) -> str:
    """Load what must be refused; return the message."""
    with pytest.raises(DataError) as caught:
        load_dataset(str(root))
    return problems(caught.value)


def styled(style: str) -> dict[tuple[str, str], str]:
    """The four names in the style of another data set: {split}, {role} and {dims} are filled in."""
    return {
        (split, role): style.format(split=split, role=role, dims=3 if role == "images" else 1)
        for split, role in IDX_NAMES
    }


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        IDX_NAMES,
        {key: name.replace("-idx", ".idx") for key, name in IDX_NAMES.items()},
        styled("emnist-balanced-{split}-{role}-idx{dims}-ubyte"),
        styled("{split}-{role}-idx{dims}-ubyte"),
    ],
    ids=["mnist", "dots", "emnist", "test"],
)
def test_it_loads_what_was_written(
    tmp_path: Path, packed: bool, names: dict[tuple[str, str], str]
) -> None:
    root = write_idx(tmp_path / "toy", packed=packed, names=names)
    dataset = load_dataset(str(root))
    expected = arrays()
    for split in (dataset.train, dataset.test):
        assert (split.images[:, 0].numpy() == expected[split.name, "images"]).all()
        assert (split.labels.numpy() == expected[split.name, "labels"]).all()
    assert (dataset.name, dataset.classes, dataset.val) == ("toy", ("0", "1", "2"), None)
    assert str(root) in dataset.source
    assert probe_dataset(str(root)) == ((1, 5, 4), 3, 30)


def test_plain_and_packed_give_the_same_fingerprint(tmp_path: Path) -> None:
    plain, packed = (write_idx(tmp_path / str(i), packed=bool(i)) for i in range(2))
    assert load_dataset(str(plain)).fingerprint == load_dataset(str(packed)).fingerprint


def test_a_plain_file_is_taken_before_its_packed_one(tmp_path: Path) -> None:
    write_idx(tmp_path, packed=True)
    write_idx(tmp_path)
    (tmp_path / f"{TRAIN_IMAGES}.gz").write_bytes(b"not looked at")
    assert len(load_dataset(str(tmp_path)).train) == 30


def test_a_gzip_file_of_several_members_loads(tmp_path: Path) -> None:
    write_idx(tmp_path, packed=True)
    data = idx_bytes(arrays()["train", "images"])
    packed = gzip.compress(data[:100]) + gzip.compress(data[100:])
    (tmp_path / f"{TRAIN_IMAGES}.gz").write_bytes(packed)
    assert len(load_dataset(str(tmp_path)).train) == 30


def test_colour_images_of_four_dimensions(tmp_path: Path) -> None:
    parts = arrays()
    parts["train", "images"] = make_images(30, 5, 4, 3)
    parts["test", "images"] = make_images(9, 3, 5, 4, seed=3)
    dataset = load_dataset(str(write_idx(tmp_path, parts)))
    assert dataset.image_shape == (3, 5, 4)
    assert dataset.train.images[7, 2, 1, 0] == parts["train", "images"][7, 1, 0, 2]


def test_qmnist_labels_of_eight_columns(tmp_path: Path) -> None:
    parts: dict[tuple[str, str], np.ndarray] = dict(arrays())
    for split, count in (("train", 30), ("test", 9)):
        table = np.arange(8 * count, dtype=np.int32).reshape(count, 8)
        table[:, 0] = make_labels(count)
        parts[split, "labels"] = table
    names = styled("qmnist-{split}-{role}-idx3-ubyte")
    names["train", "labels"] = "qmnist-train-labels-idx2-int"
    names["test", "labels"] = "qmnist-test-labels-idx2-int"
    root = write_idx(tmp_path, parts, names=names, packed=True)
    assert load_dataset(str(root)).train.labels[:4].tolist() == [0, 1, 2, 0]
    assert probe_dataset(str(root)) == ((1, 5, 4), 3, 30)


def test_labels_from_1_keep_their_names(tmp_path: Path) -> None:
    parts = arrays()
    for split in ("train", "test"):
        parts[split, "labels"] = parts[split, "labels"] + np.uint8(1)
    dataset = load_dataset(str(write_idx(tmp_path, parts)))
    assert dataset.classes == ("1", "2", "3")
    assert dataset.train.labels[:4].tolist() == [0, 1, 2, 0]
    assert probe_dataset(str(tmp_path))[1] == 3


# Each damages a folder of plain files, and gives words that the message must hold.
def truncate(root: Path) -> list[str]:
    path = root / TRAIN_IMAGES
    path.write_bytes(path.read_bytes()[:-7])
    return [str(path), "600 bytes", "593"]


def trailing(root: Path) -> list[str]:
    path = root / TEST_LABELS
    path.write_bytes(path.read_bytes() + b"\0")
    return [str(path), "9 bytes", "more"]


def empty_file(root: Path) -> list[str]:
    (root / TRAIN_LABELS).write_bytes(b"")
    return [TRAIN_LABELS, "header"]


def wrong_magic(root: Path) -> list[str]:
    path = root / TEST_IMAGES
    path.write_bytes(b"\x89PNG" + path.read_bytes()[4:])
    return [TEST_IMAGES, "89504e47"]


def wrong_type(root: Path) -> list[str]:
    path = root / TEST_IMAGES
    path.write_bytes(idx_bytes(make_images(9, 5, 4).astype(np.float32)))
    return [TEST_IMAGES, "00000d03"]


def missing(root: Path) -> list[str]:
    (root / TRAIN_LABELS).unlink()
    (root / TEST_IMAGES).unlink()
    return [str(root), "missing", TRAIN_LABELS, TEST_IMAGES]


def swapped_roles(root: Path) -> list[str]:
    (root / TRAIN_IMAGES).rename(root / "x")
    (root / TRAIN_LABELS).rename(root / TRAIN_IMAGES)
    (root / "x").rename(root / TRAIN_LABELS)
    return [TRAIN_IMAGES, "found 30", TRAIN_LABELS, "30x5x4"]


def swapped_splits(root: Path) -> list[str]:
    (root / TRAIN_LABELS).rename(root / "x")
    (root / TEST_LABELS).rename(root / TRAIN_LABELS)
    (root / "x").rename(root / TEST_LABELS)
    return [TRAIN_LABELS, "expected 30", "found 9", TEST_LABELS, "expected 9", "found 30"]


def other_label(split: str, label: int) -> Callable[[Path], list[str]]:
    def damage(root: Path) -> list[str]:
        values = arrays()[split, "labels"]
        values[4] = label
        path = root / IDX_NAMES[split, "labels"]
        path.write_bytes(idx_bytes(values))
        return [str(path), str(label)]

    return damage


def other_size(root: Path) -> list[str]:
    (root / TEST_IMAGES).write_bytes(idx_bytes(make_images(9, 4, 4)))
    return [TEST_IMAGES, "1x5x4", "1x4x4"]


def one_class(root: Path) -> list[str]:
    (root / TRAIN_LABELS).write_bytes(idx_bytes(np.zeros(30, np.uint8)))
    (root / TEST_LABELS).write_bytes(idx_bytes(np.zeros(9, np.uint8)))
    return [TRAIN_LABELS, "at least 2 classes"]


def no_images(root: Path) -> list[str]:
    (root / TEST_IMAGES).write_bytes(idx_bytes(np.zeros((0, 5, 4), np.uint8)))
    (root / TEST_LABELS).write_bytes(idx_bytes(np.zeros(0, np.uint8)))
    return [TEST_IMAGES, "at least one image", TEST_LABELS]


def no_pixels(root: Path) -> list[str]:
    (root / TRAIN_IMAGES).write_bytes(idx_bytes(np.zeros((30, 0, 4), np.uint8)))
    return [TRAIN_IMAGES, "at least one image"]


def two_channels(root: Path) -> list[str]:
    (root / TRAIN_IMAGES).write_bytes(idx_bytes(make_images(30, 2, 5, 4)))
    return [TRAIN_IMAGES, "1 or 3 channels", "30x2x5x4"]


def two_sets(root: Path) -> list[str]:
    (root / f"emnist-letters-{TRAIN_IMAGES}").write_bytes(b"")
    return [str(root), "emnist-letters", "folder of its own"]


def both_test_names(root: Path) -> list[str]:
    (root / "test-images-idx3-ubyte").write_bytes(b"")
    return [TEST_IMAGES, "test-images-idx3-ubyte"]


def link_outside(root: Path) -> list[str]:
    path = root / TRAIN_LABELS
    path.rename(root.parent / "elsewhere")
    path.symlink_to(root.parent / "elsewhere")
    return [TRAIN_LABELS, "elsewhere"]


def pipe(root: Path) -> list[str]:
    (root / TRAIN_LABELS).unlink()
    os.mkfifo(root / TRAIN_LABELS)
    return [TRAIN_LABELS, "regular file"]


def folder_instead(root: Path) -> list[str]:
    (root / TRAIN_LABELS).unlink()
    (root / TRAIN_LABELS).mkdir()
    return [TRAIN_LABELS]


def declares_too_much(root: Path) -> list[str]:
    (root / TRAIN_IMAGES).write_bytes(struct.pack(">IIII", 0x0803, 2**31, 2**20, 2**20) + b"0")
    return [TRAIN_IMAGES, "memory"]


def empty_but_huge(root: Path) -> list[str]:
    (root / TRAIN_IMAGES).write_bytes(struct.pack(">IIII", 0x0803, 0, 2**32 - 1, 2**32 - 1))
    return [TRAIN_IMAGES, "memory"]


def mostly_a_hole(root: Path) -> list[str]:
    header = struct.pack(">IIII", 0x0803, 30, 10_000, 10_000)
    (root / TRAIN_IMAGES).write_bytes(header)
    os.truncate(root / TRAIN_IMAGES, 16 + 30 * 10**8)
    return [TRAIN_IMAGES, "bomb"]


def several(root: Path) -> list[str]:
    return truncate(root) + trailing(root) + wrong_magic(root)


@pytest.mark.parametrize(
    "damage",
    [
        truncate, trailing, empty_file, wrong_magic, wrong_type, missing, swapped_roles,
        swapped_splits, other_label("train", 200), other_label("train", 4),
        other_label("test", 3), other_size, one_class, no_images, no_pixels, two_channels,
        two_sets, both_test_names, link_outside, pipe, folder_instead, declares_too_much,
        empty_but_huge, mostly_a_hole, several,
    ],
)  # fmt: skip
def test_damage_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], list[str]]) -> None:
    root = write_idx(tmp_path / "toy")
    words = damage(root)
    message = refused(root)
    assert all(word in message for word in words), message


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@example(place=0.015755943405893147, bit=3)  # harmless in the first byte that is compressed
@settings(max_examples=60)
def test_a_flipped_bit_in_a_gzip_file_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / f"{TRAIN_IMAGES}.gz"
    values = arrays()["train", "images"]
    data = bytearray(gzip.compress(idx_bytes(values), mtime=0))
    index = int(place * len(data))
    data[index] ^= 1 << bit
    path.write_bytes(data)
    try:
        found = read_idx(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:  # a bit without meaning, of gzip's header or of how deflate writes its codes
        assert (found == values).all()


@given(length=st.integers(0, 700))
@settings(max_examples=40)
def test_a_truncated_gzip_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    path = tmp_path_factory.mktemp("short") / f"{TRAIN_IMAGES}.gz"
    data = gzip.compress(idx_bytes(arrays()["train", "images"]), mtime=0)
    path.write_bytes(data[: min(length, len(data) - 1)])
    with pytest.raises(DataError, match=path.name):
        read_idx(path)


@given(data=st.binary(max_size=40), packed=st.booleans())
@settings(max_examples=100)
def test_noise_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("noise") / TRAIN_IMAGES
    head = b"\0\0\x08\x01" + data[:4]
    path.write_bytes(gzip.compress(head + data) if packed else head + data)
    try:
        values = read_idx(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert values.tobytes() == (head + data)[8:]


@pytest.mark.parametrize("declared", [4_000_000, 20_000_000, 2**40])
def test_a_gzip_bomb_takes_no_memory(tmp_path: Path, declared: int) -> None:
    """4 MB are within what may be unpacked; then the bomb must not continue after them."""
    header = struct.pack(">II", 0x0801, min(declared, 2**32 - 1))
    if declared >= 2**32:
        header = struct.pack(">III", 0x0802, 2**20, declared >> 20)
    path = tmp_path / f"{TRAIN_LABELS}.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(20):
            file.write(bytes(1_000_000))
    tracemalloc.start()
    with pytest.raises(DataError, match=TRAIN_LABELS):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000
