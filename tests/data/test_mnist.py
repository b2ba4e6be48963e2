"""The included MNIST is the published one, complete and quick; any changed byte is found.

pytest tests/data/test_mnist.py
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from make import problems

from whit.data.datasets import load_dataset, probe_dataset
from whit.data.holdout import select_indices
from whit.data.normalization import compute_channel_stats
from whit.data.readers.mnist import SHA256, read_mnist
from whit.data.splits import Dataset
from whit.errors import DataError
from whit.recipes.recipe_tables import DataSpec


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return load_dataset("mnist", val=5000)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(str(files("whit.data") / "mnist"), tmp_path / "mnist")
    return tmp_path / "mnist"


def test_its_shape_and_sizes(mnist: Dataset) -> None:
    assert mnist.image_shape == (1, 28, 28)
    assert mnist.classes == tuple("0123456789")
    assert mnist.val is not None
    assert [len(split) for split in mnist.splits] == [55_000, 5_000, 10_000]
    assert mnist.train.images.is_contiguous()
    assert mnist.overlap == 0
    assert mnist.notes == ()


def test_its_first_labels_and_counts(mnist: Dataset) -> None:
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert torch.bincount(mnist.test.labels).tolist() == counts


def test_val_is_the_last_images_so_that_train_has_other_writers(mnist: Dataset) -> None:
    whole = load_dataset("mnist").train
    assert mnist.val is not None
    assert mnist.val.images.equal(whole.images[55_000:])
    assert mnist.train.labels.equal(whole.labels[:55_000])
    third = load_dataset(DataSpec(name="mnist", val_size=5000, val_block=3)).val
    assert third is not None
    assert third.images.equal(whole.images[15_000:20_000])


def test_the_split_by_digest_is_fixed() -> None:
    """A changed sum here means that val results recorded by digest are of other images."""
    by_digest = load_dataset(DataSpec(name="mnist", val_size=5000, val_by="digest"))
    chosen = select_indices(load_dataset("mnist").train, 5000, "val")
    digest = hashlib.sha256(chosen.numpy().astype("<i8").tobytes()).hexdigest()
    assert digest == "34bc9db36eeeabc266a2fac04227fffa42d3a8d57622209f27e3e80d5a2b9d38"
    assert by_digest.val is not None
    counts = [494, 562, 496, 511, 487, 452, 493, 522, 487, 496]
    assert torch.bincount(by_digest.val.labels).tolist() == counts


def test_its_normalization_is_the_well_known_one() -> None:
    mean, std = compute_channel_stats(load_dataset("mnist").train)
    assert mean == pytest.approx((0.1306604762738429,), abs=1e-15)
    assert std == pytest.approx((0.30810780385646264,), abs=1e-15)


def test_the_facts_agree_with_the_files(mnist: Dataset) -> None:
    train = load_dataset("mnist").train
    assert probe_dataset("mnist") == (mnist.image_shape, mnist.num_classes, len(train))


def test_a_changed_pixel_or_label_is_named_with_both_sums(copy: Path) -> None:
    path = copy / "t10k-labels-idx1-ubyte.gz"
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[1000] = (data[1000] + 1) % 10
    path.write_bytes(gzip.compress(bytes(data)))
    with pytest.raises(DataError) as caught:
        read_mnist(copy)
    message = problems(caught.value)
    assert "t10k-labels-idx1-ubyte.gz" in message
    assert SHA256["t10k-labels-idx1-ubyte"] in message
    assert hashlib.sha256(data).hexdigest() in message


def test_all_damaged_files_are_named_at_once(copy: Path) -> None:
    flipped = copy / "t10k-images-idx3-ubyte.gz"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 4
    flipped.write_bytes(data)
    short = copy / "train-labels-idx1-ubyte.gz"
    short.write_bytes(short.read_bytes()[:-100])
    (copy / "t10k-labels-idx1-ubyte.gz").unlink()
    shutil.copy(short, copy / "train-images-idx3-ubyte.gz")
    with pytest.raises(DataError) as caught:
        read_mnist(copy)
    assert len(caught.value.problems) == 4
    assert all(name in problems(caught.value) for name in SHA256)


def test_the_licence_lies_beside_the_data() -> None:
    text = (files("whit.data") / "mnist" / "LICENSE.md").read_text()
    assert all(name in text and digest in text for name, digest in SHA256.items())
    assert all(word in text for word in ("LeCun", "Cortes", "Burges", "CC BY-SA 3.0"))
