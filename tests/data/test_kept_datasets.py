"""A data set that is kept from run to run: read once, and again when its files change."""

from __future__ import annotations

import gzip
import shutil
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whit.data import kept_datasets
from whit.data.datasets import DATASETS, DatasetInfo, load_dataset
from whit.data.kept_datasets import load_kept_dataset
from whit.data.readers.mnist import digest_mnist, read_mnist
from whit.data.splits import DatasetShape, RawSplit, SplitName
from whit.errors import DataError
from whit.recipes.recipe_tables import DataSpec


class Reader:
    """Reads 40 images for training and 20 for test, and counts how often."""

    def __init__(self) -> None:
        self.count = 0
        self.sha256 = "1"

    def read(self) -> dict[SplitName, RawSplit]:
        self.count += 1
        random = np.random.default_rng(0)
        splits: dict[SplitName, RawSplit] = {}
        for name, number in (("train", 40), ("test", 20)):
            images = random.integers(0, 256, (number, 1, 28, 28), dtype=np.uint8)
            splits[name] = RawSplit(images, np.arange(number) % 10, "images", "labels")  # type: ignore[index]
        return splits


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    reader = Reader()
    info = DatasetInfo(
        DatasetShape((1, 28, 28), 10, 40), "small", reader.read, lambda: reader.sha256
    )
    monkeypatch.setitem(DATASETS, "mnist", info)
    for name in ("_whole", "_latest"):
        monkeypatch.setattr(kept_datasets, name, {})
    return reader


def spec(**changes: Any) -> DataSpec:
    return DataSpec(name="mnist", **changes)


@pytest.mark.parametrize("changes", [{}, {"val_size": 10}, {"transpose": True}])
def test_the_second_time_nothing_is_read(reader: Reader, changes: dict[str, Any]) -> None:
    first = load_kept_dataset(spec(**changes))
    assert load_kept_dataset(spec(**changes)) is first
    assert reader.count == 1
    assert first.fingerprint == load_dataset(spec(**changes)).fingerprint


def test_another_split_is_made_from_the_same_images(reader: Reader) -> None:
    for block in (0, 1, 0, None):
        data = spec(val_size=10, val_block=block, val_by="block")
        kept = load_kept_dataset(data)
        assert kept.val is not None
        assert (len(kept.train), len(kept.val)) == (30, 10)
        reads = reader.count
        assert kept.fingerprint == load_dataset(data).fingerprint
        reader.count = reads
    assert load_kept_dataset(spec()).val is None
    assert reader.count == 1


def test_it_is_read_again_when_its_files_have_changed(reader: Reader) -> None:
    first = load_kept_dataset(spec())
    reader.sha256 = "2"
    assert load_kept_dataset(spec()) is not first
    assert reader.count == 2


@pytest.mark.parametrize("val_size", [0, 10])
@pytest.mark.parametrize("split", [0, -1])
@pytest.mark.parametrize("what", ["images", "labels"])
def test_it_is_read_again_when_someone_wrote_into_it(
    reader: Reader, what: str, split: int, val_size: int
) -> None:
    before = load_dataset(spec(val_size=val_size)).fingerprint
    kept = load_kept_dataset(spec(val_size=val_size))
    getattr(kept.splits[split], what)[3:5].mul_(0)  # a part that shares its memory
    again = load_kept_dataset(spec(val_size=val_size))
    assert again is not kept
    assert again.fingerprint == before


def test_a_changed_byte_of_mnist_is_found_between_two_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "mnist"
    shutil.copytree(str(files("whit.data") / "mnist"), copy)
    monkeypatch.setattr(kept_datasets, "_whole", {})
    monkeypatch.setattr(kept_datasets, "_latest", {})
    info = DatasetInfo(
        DATASETS["mnist"].shape, "copy", partial(read_mnist, copy), partial(digest_mnist, copy)
    )
    monkeypatch.setitem(DATASETS, "mnist", info)
    kept = load_kept_dataset(spec())
    path = copy / "t10k-labels-idx1-ubyte.gz"
    packed = path.read_bytes()
    labels = bytearray(gzip.decompress(packed))
    labels[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(labels)))
    with pytest.raises(DataError, match=r"t10k-labels.*expected SHA-256"):
        load_kept_dataset(spec())
    path.unlink()
    with pytest.raises(DataError, match=r"t10k-labels.*cannot be opened"):
        load_kept_dataset(spec())
    path.write_bytes(packed)
    assert load_kept_dataset(spec()) is kept


def test_a_users_own_data_is_read_each_time(easy_npz: Path) -> None:
    own = DataSpec(name=str(easy_npz))
    assert load_kept_dataset(own) is not load_kept_dataset(own)
