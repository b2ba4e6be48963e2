"""Mixed ranges of pixels are refused or reported; so are duplicates, and EMNIST's turned images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make import arrays, make_images, npz_arrays, problems, write_idx, write_npz

from whit.cli.inspect import dataset_facts, facts_table
from whit.data.datasets import load_dataset, probe_dataset
from whit.data.splits import Dataset
from whit.errors import DataError
from whit.recipes.recipe_tables import DataSpec


def load(tmp_path: Path, **changes: Any) -> Dataset:
    return load_dataset(str(write_npz(tmp_path / "toy.npz", **{**npz_arrays(), **changes})))


BYTES = npz_arrays()["x_train"]
TEST_BYTES = npz_arrays()["x_test"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, np.float32])
@pytest.mark.parametrize("key", ["x_train", "x_test"])
def test_zero_and_one_beside_bytes_is_refused(tmp_path: Path, dtype: type, key: str) -> None:
    images = (npz_arrays()[key] > 127).astype(dtype)
    if dtype == np.float32:  # read as 0 and 255
        (note,) = load(tmp_path, **{key: images}).notes
        assert f"{key} has floats from 0 to 1" in note
        return
    with pytest.raises(DataError) as caught:
        load(tmp_path, **{key: images})
    text = problems(caught.value)
    assert f"{key}: its largest pixel is 1, but that of {tmp_path}/toy.npz: x_" in text


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"x_train": BYTES > 127}, "x_train has booleans, "),
        ({"x_train": BYTES.astype(np.float32) / 255}, "x_train has floats from 0 to 1, "),
        ({"x_test": TEST_BYTES / 255}, "x_test has floats from 0 to 1; all are read as bytes"),
        ({"x_train": (BYTES > 127) * np.uint8(255)}, "x_train: its pixels have only two values"),
        ({"x_test": TEST_BYTES // 16}, "x_test: its largest pixel is 15, but that of "),
        ({"x_train": np.where(np.arange(30)[:, None, None] < 5, BYTES // 128, BYTES)}, "images"),
        ({"x_train": BYTES // 128, "x_test": TEST_BYTES // 128}, "0 and 1 of at most 255"),
    ],
    ids=["bool", "float train", "float test", "binary", "16 levels", "mixed within", "all 0, 1"],
)
def test_other_mixtures_are_reported(tmp_path: Path, change: dict[str, Any], note: str) -> None:
    dataset = load(tmp_path, **change)
    notes = "\n".join(dataset.reading_notes)
    assert note in notes
    assert "\nNote:" in facts_table(dataset_facts(dataset), 80)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"x_train": BYTES.astype(np.int64), "x_test": TEST_BYTES.astype(np.float32)},
        {"x_train": BYTES / 255, "x_test": (TEST_BYTES / 255).astype(np.float32)},
        {"x_train": BYTES > 127, "x_test": TEST_BYTES > 127},
        {"x_test": TEST_BYTES // 2},
    ],
    ids=["bytes", "types", "floats", "booleans", "darker"],
)
def test_one_range_is_not_reported(tmp_path: Path, change: dict[str, Any]) -> None:
    assert load(tmp_path, **change).notes == ()


@pytest.mark.parametrize("images", [BYTES / 127.5 - 1, BYTES.astype(np.uint16) * 257, BYTES / 2])
def test_ranges_that_are_no_bytes_are_refused(tmp_path: Path, images: Any) -> None:
    with pytest.raises(DataError, match="expected pixels as integers from 0 to 255"):
        load(tmp_path, x_train=images)


def test_idx_files_are_held_to_it_too(tmp_path: Path) -> None:
    parts = arrays()
    parts["test", "images"] = parts["test", "images"] // 128
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte: its largest pixel is 1"):
        load_dataset(str(write_idx(tmp_path / "d", parts)))


def test_each_image_ten_times(tmp_path: Path) -> None:
    x, y = npz_arrays()["x_train"], npz_arrays()["y_train"]
    dataset = load(tmp_path, x_train=np.repeat(x, 10, 0), y_train=np.repeat(y, 10))
    assert dataset.notes == (
        "each of the 30 different training images occurs 10 times; an epoch counts each copy, so "
        "it shows these images up to 10 times",
    )
    assert dataset_facts(dataset)["duplicate_images"] == {"train": 270, "test": 0}


def test_some_copies_some_of_another_class(tmp_path: Path) -> None:
    x, y = npz_arrays()["x_train"].copy(), npz_arrays()["y_train"]
    x[3] = x[6] = x[0]  # of the class of the first one
    x[4] = x[0]  # of another
    x_test = npz_arrays()["x_test"].copy()
    x_test[1] = x_test[2]
    dataset = load(tmp_path, x_train=x, y_train=y, x_test=x_test)
    assert dataset.notes == (
        "3 of 30 training images are copies of others, byte for byte (one occurs 4 times), 1 of "
        "them under another label; an epoch counts each copy, so it shows these images up to 4 "
        "times",
        "1 of 9 test images are copies of others, byte for byte (one occurs 2 times), 1 of them "
        "under another label; the accuracy counts each copy",
    )


def test_all_images_equal(tmp_path: Path) -> None:
    x, x_test = npz_arrays()["x_train"], npz_arrays()["x_test"]
    dataset = load(tmp_path, x_train=np.repeat(x[:1], 30, 0), x_test=x_test)
    (note,) = dataset.notes
    assert note.startswith("all 30 training images are equal, under 3 labels; an epoch counts")


def test_emnist_is_recognized_and_turned(tmp_path: Path) -> None:
    """Non-square images, so that a shape that is not turned with them fails."""
    names = {
        (split, role): f"emnist-letters-{split}-{role}-idx{dims}-ubyte"
        for split in ("train", "test")
        for role, dims in (("images", 3), ("labels", 1))
    }
    root = write_idx(tmp_path / "letters", names=names)
    dataset = load_dataset(str(root))
    (note,) = dataset.notes
    assert note == (
        f"IDX folder {root}: EMNIST's files have rows and columns swapped, so every image lies on "
        "its side, mirrored; turn them with data.transpose = true"
    )
    assert dataset_facts(dataset)["notes"] == [note]
    spec = DataSpec(name=str(root), transpose=True, val_size=6)
    turned, plain = load_dataset(spec), load_dataset(str(root), val=6)
    assert turned.notes == ()
    assert turned.image_shape == probe_dataset(spec).image_shape == (1, 4, 5)
    assert probe_dataset(str(root)).image_shape == (1, 5, 4)
    for one, other in zip(turned.splits, plain.splits, strict=True):
        assert (one.images == other.images.transpose(2, 3)).all()
        assert (one.labels == other.labels).all()  # the same images are held out
        assert one.images.is_contiguous()
    assert turned.fingerprint != plain.fingerprint


def test_a_folder_called_emnist_is_recognized(tmp_path: Path) -> None:
    assert "transpose = true" in load_dataset(str(write_idx(tmp_path / "EMNIST-digits"))).notes[0]
    assert load_dataset(str(write_idx(tmp_path / "fashion"))).notes == ()
    # As torchvision keeps it, and by the file of its classes.
    assert "transpose" in load_dataset(str(write_idx(tmp_path / "EMNIST" / "raw"))).notes[0]
    assert load_dataset(str(write_idx(tmp_path / "emnist" / "fashion"))).notes == ()
    root = write_idx(tmp_path / "letters")
    (root / "emnist-letters-mapping.txt").write_text("1 65 97\n")
    assert "transpose" in load_dataset(str(root)).notes[0]


def test_any_format_can_be_turned(tmp_path: Path) -> None:
    path = str(write_npz(tmp_path / "toy.npz", **npz_arrays()))
    turned = load_dataset(DataSpec(name=path, transpose=True))
    assert (turned.test.images[:, 0].numpy() == npz_arrays()["x_test"].swapaxes(1, 2)).all()


def test_large_splits_are_compared_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    from whit.data import value_ranges
    from whit.data.splits import RawSplit

    monkeypatch.setattr(value_ranges, "_CHUNK", 3)
    images = make_images(10, 1, 5, 4) // 128 * np.uint8(255)
    labels = np.zeros(10, np.int64)
    assert value_ranges._is_binary(RawSplit(images, labels, "x", "y"))
    images[9, 0, 0, 0] = 7
    assert not value_ranges._is_binary(RawSplit(images, labels, "x", "y"))
