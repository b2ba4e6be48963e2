"""Splits hold what they say, fingerprints see every byte, normalization is exact.

pytest tests/data/test_splits.py
"""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from make import make_images, make_split

from whit.data.normalization import MIN_STD, compute_channel_stats
from whit.data.splits import Dataset, Split
from whit.errors import DataError


def make_dataset(train: Split, test: Split, val: Split | None = None) -> Dataset:
    return Dataset("toy", train, val, test, ("a", "b"), "made here")


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (torch.zeros(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64), "uint8"),
        (torch.zeros(2, 3, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "(N, C,"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(2), "int64"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "3 labels"),
        (
            torch.zeros(2, 1, 3, 4, dtype=torch.uint8).transpose(2, 3),
            torch.zeros(2, dtype=torch.int64),
            "contiguous",
        ),
    ],
)
def test_a_split_refuses_other_tensors(
    images: torch.Tensor, labels: torch.Tensor, expected: str
) -> None:
    with pytest.raises(DataError) as caught:
        Split("train", images, labels)
    assert expected in str(caught.value)


@given(
    shape=st.tuples(*[st.integers(1, high) for high in (6, 3, 4, 4)]),
    seed=st.integers(0, 1000),
    highest=st.sampled_from([0, 1, 17, 255]),
)
@settings(max_examples=40)
def test_normalization_equals_plain_arithmetic(
    shape: tuple[int, int, int, int], seed: int, highest: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, highest + 1, shape, dtype=np.uint8)
    split = Split("train", torch.from_numpy(pixels), torch.zeros(shape[0], dtype=torch.int64))
    means, stds = compute_channel_stats(split)
    assert len(means) == len(stds) == shape[1]
    for channel, (mean, std) in enumerate(zip(means, stds, strict=True)):
        values = [Fraction(int(value), 255) for value in pixels[:, channel].flatten()]
        average = sum(values) / len(values)
        variance = sum((value - average) ** 2 for value in values) / len(values)
        assert mean == float(average)
        assert (
            std == max(float(variance) ** 0.5, MIN_STD)
            or abs(std - float(variance) ** 0.5) <= 1e-15
        )


def test_a_constant_channel_can_be_divided_by() -> None:
    images = torch.full((4, 3, 5, 5), 255, dtype=torch.uint8)
    mean, std = compute_channel_stats(Split("train", images, torch.zeros(4, dtype=torch.int64)))
    assert mean == (1.0, 1.0, 1.0)
    assert std == (MIN_STD,) * 3


def test_normalization_counts_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    split = make_split([0, 1] * 20)
    whole = compute_channel_stats(split)
    monkeypatch.setattr("whit.data.splits._CHUNK", 50)
    assert compute_channel_stats(make_split([0, 1] * 20)) == whole


def test_the_fingerprint_sees_every_pixel_label_name_and_order() -> None:
    train, test = make_split([0, 1, 0]), make_split([1, 0])
    seen = {make_dataset(train, test).fingerprint}
    for image in range(3):
        images = train.images.clone()
        images[image, 0, 4, 3] ^= 1
        seen.add(make_dataset(Split("train", images, train.labels), test).fingerprint)
    seen.add(make_dataset(make_split([0, 1, 1]), test).fingerprint)
    seen.add(make_dataset(train, make_split([0, 1])).fingerprint)
    seen.add(make_dataset(train, test, val=test).fingerprint)
    seen.add(make_dataset(make_split([0, 0, 1]), test).fingerprint)
    reshaped = Split("train", train.images.reshape(3, 1, 4, 5), train.labels)
    seen.add(make_dataset(reshaped, test).fingerprint)
    seen.add(Dataset("toy", train, None, test, ("a", "c"), "made here").fingerprint)
    assert len(seen) == 10
    assert make_dataset(make_split([0, 1, 0]), make_split([1, 0])).fingerprint in seen


def test_overlap_counts_test_images_seen_in_training() -> None:
    train = make_split([0, 1, 0, 1])
    val = Split("val", torch.from_numpy(make_images(2, 1, 5, 4, seed=5)), torch.tensor([0, 1]))
    images = torch.cat([train.images[1:2], val.images[:1], 255 - train.images[:1]])
    test = Split("test", images, torch.tensor([0, 1, 0]))
    dataset = make_dataset(train, test, val)
    assert dataset.overlap == 2
    assert "2 of 3 test images" in dataset.notes[0]
    assert make_dataset(train, val).notes == ()


def test_digests_are_of_the_pixels() -> None:
    split = make_split([0, 1])
    assert split.digests[1] == hashlib.sha256(split.images[1].numpy().tobytes()).digest()


def test_they_print_well() -> None:
    dataset = make_dataset(make_split([0, 1, 0]), make_split([1, 0]))
    assert repr(dataset) == "Dataset(toy: train 3, train 2; 1x5x4, 2 classes)"
    assert repr(dataset.train) == "Split(train: 3 images 1x5x4)"
    assert (dataset.image_shape, dataset.num_classes) == ((1, 5, 4), 2)
