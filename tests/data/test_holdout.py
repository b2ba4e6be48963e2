"""The split is stratified, disjoint, exact in size, fixed, and independent of the files' order.

pytest tests/data/test_holdout.py
"""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from make import make_split

from whit.data.holdout import holdout_block, holdout_split, select_block, select_indices
from whit.data.splits import Split
from whit.errors import DataError

labels_of_2_to_4_classes = st.lists(st.integers(0, 3), min_size=8, max_size=60).filter(
    lambda labels: len(set(labels)) >= 2
)


@given(labels=labels_of_2_to_4_classes, share=st.floats(0.01, 0.99))
@settings(max_examples=60)
def test_a_cut_keeps_proportions_and_loses_nothing(labels: list[int], share: float) -> None:
    split = make_split(labels)
    counts = Counter(labels)
    size = max(1, int(share * (len(labels) - len(counts))))
    try:
        rest, val = holdout_split(split, size, "val")
    except DataError as error:
        # Only a class that would lose its last image can stand in the way.
        assert "stratified" in str(error)  # noqa: PT017
        assert min(counts.values()) * size / len(labels) > min(counts.values()) - 1
        return
    assert (rest.name, val.name, len(val)) == ("train", "val", size)
    assert sorted(rest.digests + val.digests) == sorted(split.digests)
    assert not set(rest.digests) & set(val.digests)
    place = {digest: index for index, digest in enumerate(split.digests)}
    for part in (rest, val):
        places = [place[digest] for digest in part.digests]
        assert places == sorted(places)
        assert part.labels.tolist() == [labels[index] for index in places]
    for label, count in counts.items():
        given_up = int((val.labels == label).sum())
        # Exactly 1 where a class of one image passed its place on.
        assert abs(given_up - size * count / len(labels)) <= 1
        assert given_up < count


def test_the_cut_is_fixed() -> None:
    """A changed sum here means that every val result recorded so far is of other images."""
    images = torch.arange(200 * 4).reshape(200, 1, 2, 2).remainder(251).to(torch.uint8)
    split = Split("train", images, torch.tensor([0, 1, 2, 2, 1] * 40))
    chosen = select_indices(split, 50, "val")
    assert chosen[:6].tolist() == [12, 15, 16, 18, 19, 21]
    digest = hashlib.sha256(chosen.numpy().astype("<i8").tobytes()).hexdigest()
    assert digest == "fe07beac499c3601701d58e3712f8897b13cf03e4a9d70c53d2301e51b436673"


def test_val_and_test_cuts_are_unrelated() -> None:
    split = make_split([0, 1] * 100)
    assert select_indices(split, 50, "val").tolist() != select_indices(split, 50, "test").tolist()
    rest, test = holdout_split(split, 50, "test")
    assert (len(rest), test.name, len(test)) == (150, "test", 50)


def test_the_order_of_the_files_does_not_matter() -> None:
    split = make_split([0, 1, 2] * 20)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    shuffled = Split("train", split.images[order], split.labels[order])
    assert set(holdout_split(split, 12, "val")[1].digests) == set(
        holdout_split(shuffled, 12, "val")[1].digests
    )


def test_copies_stay_in_train_together() -> None:
    split = make_split([0] * 20 + [1] * 20, copies_of_first=10)
    rest, val = holdout_split(split, 20, "val")
    assert not set(rest.digests) & set(val.digests)
    assert Counter(rest.digests)[split.digests[0]] == 10
    with pytest.raises(DataError, match="class 0 can give 10"):
        holdout_split(split, 30, "val")


def test_copies_under_two_labels_stay_in_train() -> None:
    images = make_split([0, 1] * 10).images
    images[1] = images[0]
    split = Split("train", images, torch.tensor([0, 1] * 10))
    for size in range(1, 17):
        rest, val = holdout_split(split, size, "val")
        assert not set(rest.digests) & set(val.digests)


@pytest.mark.parametrize("size", [-1, 0, 5, 6, 7, 100])
def test_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(DataError, match="between 1 and 4"):
        holdout_split(make_split([0, 0, 0, 1, 1, 1]), size, "val")


def test_a_rare_class_keeps_its_only_image() -> None:
    rest, val = holdout_split(make_split([0] + [1] * 9 + [2] * 9), 10, "val")
    assert (rest.labels == 0).sum() == 1
    assert len(val) == 10


def test_blocks_are_consecutive_and_share_no_image() -> None:
    split = make_split([0, 1, 2] * 34)  # 102 images: three blocks of 30, and 12 that no block has
    blocks = [select_block(split, 30, number).tolist() for number in range(3)]
    assert blocks == [list(range(30)), list(range(30, 60)), list(range(60, 90))]
    assert select_block(split, 30).tolist() == list(range(72, 102))
    rest, val = holdout_block(split, 30, 1)
    assert (rest.name, val.name) == ("train", "val")
    assert val.digests == split.digests[30:60]
    assert rest.digests == split.digests[:30] + split.digests[60:]
    assert rest.labels.tolist() == [*split.labels[:30].tolist(), *split.labels[60:].tolist()]


def test_a_block_has_no_copy_of_a_training_image() -> None:
    split = make_split([0, 1] * 30, copies_of_first=5)
    rest, val = holdout_block(split, 20, 0)
    assert val.digests == split.digests[5:25]
    assert not set(rest.digests) & set(val.digests)
    assert len(rest) == 40


@pytest.mark.parametrize(
    ("size", "block", "problem"),
    [
        (30, 3, "val_block = 3: 90 training images have 3 blocks of 30; allowed: 0 to 2"),
        (91, None, "choose a smaller size"),
        (90, None, "choose a smaller size"),
    ],
)
def test_an_impossible_block_is_refused(size: int, block: int | None, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        holdout_block(make_split([0, 1, 2] * 30), size, block)


def test_blocks_of_images_in_the_order_of_their_classes_are_refused() -> None:
    by_class = make_split([0] * 50 + [1] * 50)
    for block in (0, 1, None):
        with pytest.raises(DataError, match='in the order of their classes; use val_by = "digest"'):
            holdout_block(by_class, 50, block)
    with pytest.raises(DataError, match="has no image of class 1, and 20 were expected"):
        holdout_block(by_class, 40, 0)
    rare = make_split([0, 1] * 40 + [2])  # by chance no image of the rare class in a block
    assert len(holdout_block(rare, 20, 0)[1]) == 20
