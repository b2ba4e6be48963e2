"""Data sets are told apart by content; whatever is none gets one message saying what is accepted.

pytest tests/data/test_datasets.py, and with -m slow for Fashion-MNIST from Debian's package
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from make import make_images, make_labels, problems, write_folder, write_idx, write_npz
from make import npz_arrays as some_arrays

from whit.data.datasets import FORMATS, load_dataset, probe_dataset
from whit.data.splits import DatasetShape, RawSplit, SplitName
from whit.errors import DataError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.parametrize("act", [load_dataset, probe_dataset])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnits", ["Did you mean 'mnist'?", "no such file"]),
        ("", ["a folder without any"]),
        ("nowhere/at/all", ["no such file", "IDX", ".npz", "CLASS"]),
        ("a\0b", ["no such file"]),
        ("x" * 5000, ["cannot be read", "too long"]),
        ("empty", ["a folder without any"]),
        ("text.npz", ["another kind of file"]),
        ("idx/train-images-idx3-ubyte", ["expected the folder"]),
        ("folders", ["a folder without any"]),
    ],
)
def test_what_is_no_data_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: object, name: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "folders" / "a" / "b").mkdir(parents=True)
    (tmp_path / "text.npz").write_text("not a zip")
    write_idx(tmp_path / "idx")
    assert callable(act)
    with pytest.raises(DataError) as caught:
        act(name)
    message = problems(caught.value)
    assert all(word in message for word in words), message


def test_every_kind_is_described_as_it_loads(tmp_path: Path) -> None:
    paths = [
        write_idx(tmp_path / "idx", packed=True),
        write_npz(tmp_path / "some.npz", **some_arrays()),
        write_folder(tmp_path / "split"),
        write_folder(tmp_path / "whole", (), count=7),
    ]
    for path in paths:
        dataset = load_dataset(str(path))
        found = (dataset.image_shape, dataset.num_classes, len(dataset.train))
        assert probe_dataset(str(path)) == found


def test_val_is_cut_from_train_alone(tmp_path: Path) -> None:
    path = str(write_idx(tmp_path / "idx"))
    whole, cut = load_dataset(path), load_dataset(path, val=6)
    assert cut.val is not None
    assert sorted(cut.train.digests + cut.val.digests) == sorted(whole.train.digests)
    assert cut.test.fingerprint == whole.test.fingerprint
    assert cut.val.labels.bincount().tolist() == [2, 2, 2]
    for size in (-1, 28, 10**9):
        with pytest.raises(DataError, match=f"val = {size:,}"):
            load_dataset(path, val=size)


def test_a_format_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format added to FORMATS is loaded, probed, and named where nothing fits."""

    class Raw:
        NAME, EXAMPLE = "raw folder", "a folder with train.raw"

        @staticmethod
        def sniff(path: Path) -> bool:
            return (path / "train.raw").is_file()

        @staticmethod
        def probe(path: Path) -> DatasetShape:
            return DatasetShape((1, 5, 4), 3, 24)

        @staticmethod
        def load(path: Path) -> tuple[dict[SplitName, RawSplit], tuple[str, ...]]:
            pixels = np.frombuffer((path / "train.raw").read_bytes(), np.uint8)
            labels = make_labels(30).astype(np.int64)
            split = RawSplit(pixels.reshape(30, 1, 5, 4), labels, str(path), str(path))
            return {"train": split}, ("ant", "bee", "cat")

    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "train.raw").write_bytes(make_images(30, 5, 4).tobytes())
    with pytest.raises(DataError) as caught:
        load_dataset(str(tmp_path / "some"))
    assert "train.raw" not in problems(caught.value)
    monkeypatch.setattr("whit.data.datasets.FORMATS", (*FORMATS, Raw))
    dataset = load_dataset(str(tmp_path / "some"), val=6)
    assert [len(split) for split in dataset.splits] == [18, 6, 6]
    assert dataset.classes == ("ant", "bee", "cat")
    assert dataset.source == f"raw folder {tmp_path / 'some'}"
    assert probe_dataset(str(tmp_path / "some")) == ((1, 5, 4), 3, 24)
    with pytest.raises(DataError) as caught:
        load_dataset("nowhere")
    assert problems(caught.value).count("a folder with train.raw") == 1


def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    root = write_idx(tmp_path / "idx")
    root.chmod(0)
    try:
        if os.access(root, os.R_OK):
            pytest.skip("root may read everything")
        with pytest.raises(DataError, match="cannot be read"):
            load_dataset(str(root))
    finally:
        root.chmod(0o700)


@pytest.mark.slow
def test_fashion_mnist_of_debian_loads() -> None:
    if not FASHION_MNIST.is_dir():
        pytest.skip(f"{FASHION_MNIST} is not here: apt-get install dataset-fashion-mnist")
    dataset = load_dataset(str(FASHION_MNIST), val=5000)
    assert [len(split) for split in dataset.splits] == [55_000, 5_000, 10_000]
    assert (dataset.image_shape, dataset.num_classes) == ((1, 28, 28), 10)
    assert (dataset.name, dataset.overlap) == ("fashion-mnist", 0)
    assert dataset.test.labels.bincount().tolist() == [1000] * 10
    assert dataset.val is not None
    assert dataset.val.labels.bincount().tolist() == [500] * 10
    assert probe_dataset(str(FASHION_MNIST)) == ((1, 28, 28), 10, 60_000)


def test_a_folder_above_the_data_is_answered_with_the_right_one(tmp_path: Path) -> None:
    """As torchvision keeps MNIST; hidden folders and those too deep are not looked into."""
    write_idx(tmp_path / "data" / "MNIST" / "raw")
    with pytest.raises(DataError, match=r"without any of these; did you mean '.*/data/MNIST/raw'"):
        load_dataset(str(tmp_path / "data"))
    for inner in (".cache", "a/b/c/d"):
        write_idx(tmp_path / "other" / inner)
    with pytest.raises(DataError, match=r"found a folder without any of these$"):
        load_dataset(str(tmp_path / "other"))
    write_folder(tmp_path / "pets" / "images", ())
    with pytest.raises(DataError, match=r"found only images, which .*; give .*pets/images$"):
        load_dataset(str(tmp_path / "pets"))


def test_upper_case_is_no_other_name() -> None:
    with pytest.raises(DataError, match="Did you mean 'mnist'"):
        load_dataset("MNIST")
