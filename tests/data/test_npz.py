"""An .npz loads under the usual names; nothing in it is unpickled, and bombs take no memory.

pytest tests/data/test_npz.py
"""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make import arrays, make_images, make_labels, npz_arrays, problems, write_npz

from whit.data.datasets import load_dataset, probe_dataset
from whit.data.readers.arrays import to_uint8
from whit.errors import DataError

Values = npt.NDArray[Any]


def load_changed(tmp_path: Path, **changed: Values | None) -> Any:
    """Load the usual .npz with some arrays replaced, added, or (None) taken away."""
    values = {**npz_arrays(), **changed}
    path = write_npz(tmp_path / "toy.npz", **{k: v for k, v in values.items() if v is not None})
    return load_dataset(str(path))


def refused(tmp_path: Path, **changed: Values | None) -> str:
    with pytest.raises(DataError) as caught:
        load_changed(tmp_path, **changed)
    message = problems(caught.value)
    assert "toy.npz" in message
    return message


def zip_of(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip of raw members, as a hostile hand would."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def npy(header: str, data: bytes = b"", *, version: int = 1) -> bytes:
    """The bytes of an .npy with any header."""
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + data


def npy_bytes(values: Values) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("images_train", "targets_train", "images_test", "targets_test"),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_it_loads_what_was_written(tmp_path: Path, names: tuple[str, ...], save: Any) -> None:
    expected = arrays()
    path = tmp_path / "toy.npz"
    save(path, **dict(zip(names, expected.values(), strict=True)), notes=np.array("not read"))
    dataset = load_dataset(str(path))
    for split in (dataset.train, dataset.test):
        assert (split.images[:, 0].numpy() == expected[split.name, "images"]).all()
        assert (split.labels.numpy() == expected[split.name, "labels"]).all()
    assert (dataset.name, dataset.classes, dataset.val) == ("toy", ("0", "1", "2"), None)
    assert probe_dataset(str(path)) == ((1, 5, 4), 3, 30)


def test_its_own_val_split_is_used(tmp_path: Path) -> None:
    own = {"x_val": make_images(6, 5, 4, seed=9), "y_val": make_labels(6).reshape(6, 1)}
    dataset = load_changed(tmp_path, **own)
    assert dataset.val is not None
    assert (len(dataset.val), len(dataset.train), dataset.notes) == (6, 30, ())
    path = str(tmp_path / "toy.npz")
    assert load_dataset(path, val=6).fingerprint == dataset.fingerprint
    with pytest.raises(DataError, match="has 6 val images of its own"):
        load_dataset(path, val=5)


def test_val_images_that_occur_in_train_are_left_out(tmp_path: Path) -> None:
    images = make_images(6, 5, 4, seed=9)
    images[2] = npz_arrays()["x_train"][5]
    dataset = load_changed(tmp_path, x_val=images, y_val=make_labels(6))
    assert len(dataset.val) == 5
    assert not set(dataset.val.digests) & set(dataset.train.digests)
    assert "1 of 6 val images" in dataset.notes[0]
    all_of_them = npz_arrays()["x_train"][:6]
    assert "all 6" in refused(tmp_path, x_val=all_of_them, y_val=make_labels(6))


def test_without_a_test_split_one_in_five_is_cut(tmp_path: Path) -> None:
    values = {"images": make_images(60, 5, 4), "labels": make_labels(60)}
    path = write_npz(tmp_path / "toy.npz", **values)
    dataset = load_dataset(str(path), val=6)
    assert [len(split) for split in dataset.splits] == [42, 6, 12]
    assert dataset.overlap == 0
    assert probe_dataset(str(path)) == ((1, 5, 4), 3, 48)


@pytest.mark.parametrize("words", [False, True])
def test_a_split_array_says_where_images_belong(tmp_path: Path, words: bool) -> None:
    codes: Values = np.array([0, 0, 0, 0, 2, 1] * 10)
    if words:
        codes = np.array(["train", "validation", "test"])[codes]
    values = {"images": make_images(60, 5, 4), "labels": make_labels(60, 2), "split": codes}
    path = write_npz(tmp_path / "toy.npz", **values)
    dataset = load_dataset(str(path))
    assert [(split.name, len(split)) for split in dataset.splits] == [
        ("train", 40), ("val", 10), ("test", 10),
    ]  # fmt: skip
    assert (dataset.test.images[1, 0].numpy() == values["images"][10]).all()
    assert probe_dataset(str(path)) == ((1, 5, 4), 2, 40)
    for wrong in (codes[:-1], np.arange(60), codes.reshape(2, 30), np.zeros(60)):
        write_npz(path, **{**values, "split": wrong})
        with pytest.raises(DataError, match="split"):
            load_dataset(str(path))
        with pytest.raises(DataError, match="split"):
            probe_dataset(str(path))


def test_classes_may_have_names(tmp_path: Path) -> None:
    assert load_changed(tmp_path, classes=np.array(["a", "b", "c"])).classes == ("a", "b", "c")
    assert "all 4 classes" in refused(tmp_path, classes=np.array(["a", "b", "c", "d"]))
    assert "labels from 0 to 1" in refused(tmp_path, classes=np.array(["a", "b"]))
    assert "'a' twice" in refused(tmp_path, classes=np.array(["a", "a", "b"]))
    assert "printable" in refused(tmp_path, classes=np.array(["a", "b", "\x1b[2J"]))
    no_text = np.full(3, 2**31, np.uint32).view("<U1")
    assert "expected text" in refused(tmp_path, classes=no_text)


@pytest.mark.parametrize("shape", [(5, 4, 3), (3, 5, 4), (5, 4, 1), (1, 5, 4)])
def test_channels_first_and_last(tmp_path: Path, shape: tuple[int, ...]) -> None:
    train, test = make_images(30, *shape), make_images(9, *shape, seed=4)
    dataset = load_changed(tmp_path, x_train=train, x_test=test)
    channels = min(shape[0], shape[-1])
    assert dataset.image_shape == (channels, 5, 4)
    pixel = train[3, 2, 1, -1] if shape[-1] == channels else train[3, -1, 2, 1]
    assert dataset.train.images[3, channels - 1, 2, 1] == pixel


def test_fortran_order_and_other_types_give_the_same_data(tmp_path: Path) -> None:
    expected = load_changed(tmp_path).fingerprint
    train = npz_arrays()["x_train"]
    for same in (
        np.asfortranarray(train),
        train.astype(">i8"),
        train.astype(np.uint16),
        train.astype(np.float64),
        train.astype(np.float32) / np.float32(255),
        np.asfortranarray(train.astype(np.float64) / 255),
        (train / 255).astype(np.float16),
    ):
        assert load_changed(tmp_path, x_train=same).fingerprint == expected
    assert load_changed(tmp_path, y_train=make_labels(30).astype(np.int32)).fingerprint == expected


def test_booleans_are_black_and_white() -> None:
    assert to_uint8(np.array([True, False]), "x").tolist() == [255, 0]


@pytest.mark.parametrize(
    "pixels",
    [
        [-1.0, 0.5], [0.0, 256.0], [0.1234, 0.5], [0.5, np.nan], [np.inf, 0.0], [1.5, 3.0],
        [-0.4242, 2.8215],
    ],
)  # fmt: skip
def test_pixels_that_are_no_bytes_are_refused(pixels: list[float]) -> None:
    with pytest.raises(DataError, match="original bytes"):
        to_uint8(np.array(pixels), "x")


@pytest.mark.parametrize("pixels", [[-1, 3], [0, 256], [2**62, 0]])
def test_integers_beyond_a_byte_are_refused(pixels: list[int]) -> None:
    with pytest.raises(DataError, match="original bytes"):
        to_uint8(np.array(pixels), "x")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"y_train": None}, ["missing: train_labels", "x_train"]),
        ({"x_train": None, "x_test": None}, ["train_images", "test_images"]),
        ({"y_train": np.eye(3)[make_labels(30)]}, ["y_train", "one-hot", "argmax"]),
        ({"y_train": np.zeros(30)}, ["y_train", "float64"]),
        ({"y_train": make_labels(29)}, ["y_train", "expected 30", "found 29"]),
        ({"y_train": make_labels(30) * 5}, ["y_train", "none of class 1"]),
        ({"y_train": make_labels(30).astype(int) - 1}, ["y_train", "found -1"]),
        ({"y_train": np.full(30, 2**63, np.uint64)}, ["y_train", str(2**63)]),
        ({"y_train": np.array(make_labels(30), np.int64) * 10**15}, ["y_train", "class 1"]),
        ({"y_test": make_labels(9) + 1}, ["y_test", "from 0 to 2", "found 3 at index 2"]),
        ({"x_train": make_images(30, 5)}, ["x_train", "30x5"]),
        ({"x_train": make_images(30, 5, 4, 2)}, ["x_train", "1 or 3 channels"]),
        ({"x_train": make_images(30, 3, 4, 3)}, ["x_train", "second or the last"]),
        ({"x_test": make_images(9, 5, 5)}, ["x_test", "1x5x4", "1x5x5"]),
        ({"x_test": make_images(9, 5, 4).astype(complex)}, ["x_test", "objects"]),
        ({"x_train": np.array(["a"] * 30)}, ["x_train"]),
        ({"train_images": make_images(30, 5, 4)}, ["x_train", "train_images", "found both"]),
        ({"x_val": make_images(3, 5, 4)}, ["val_labels"]),
        ({"x_test": make_images(0, 5, 4), "y_test": make_labels(0)}, ["x_test", "at least one"]),
        ({"x_train": -npz_arrays()["x_train"] / 3, "y_test": np.eye(3)}, ["x_train", "y_test"]),
    ],
)
def test_a_wrong_array_is_refused_by_name(
    tmp_path: Path, changed: dict[str, Values | None], words: list[str]
) -> None:
    message = refused(tmp_path, **changed)
    assert all(word in message for word in words), message


class Bomb:
    """An object that makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, ("unpickled", "w")


@pytest.mark.parametrize(
    ("dtype", "advice"), [(str, "numpy.unique"), (float, r"labels.astype\(int\)")]
)
def test_other_labels_are_refused_with_what_to_store(
    tmp_path: Path, dtype: type, advice: str
) -> None:
    values = npz_arrays()
    path = write_npz(tmp_path / "a.npz", **values | {"y_train": values["y_train"].astype(dtype)})
    with pytest.raises(DataError, match=advice):
        load_dataset(str(path))


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bombs = np.array([Bomb()] * 30, dtype=object)
    for name in ("x_train", "y_train", "classes", "other"):
        path = tmp_path / "toy.npz"
        np.savez(path, allow_pickle=True, **{**npz_arrays(), name: bombs})
        if name == "other":
            load_dataset(str(path))
        else:
            with pytest.raises(DataError, match=f"{name}.*unpickles nothing"):
                load_dataset(str(path))
    assert not (tmp_path / "unpickled").exists()


HEADER = "{{'descr': '|u1', 'fortran_order': False, 'shape': {}, }}\n"


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (npy(HEADER.format("(1000000000000, 5, 4)")), "memory"),
        (npy(HEADER.format("(2500000, 5, 4)"), bytes(50_000_000)), "bomb"),
        (npy(HEADER.format("(30, 5, 4)"), bytes(599)), "only 599"),
        (npy(HEADER.format("(30, 5, 4)"), bytes(601)), "more"),
        (npy(HEADER.format("(30, 5, 4)"), bytes(50_000_000)), "more"),
        (npy(HEADER.format("(-30, 5, 4)")), "array of numbers or text"),
        (npy(HEADER.format("(__import__('os').abort(), 5, 4)")), "array of numbers or text"),
        (npy("(" * 3000), "array of numbers or text"),
        (npy("-" * 4000), "array of numbers or text"),
        (npy("9" * 4000), "array of numbers or text"),
        (npy("'\\d'"), "array of numbers or text"),
        (npy(HEADER.format("(30L, 5, 4)")), "array of numbers or text"),
        (npy(HEADER.format("(True, 5, 4)")), "array of numbers or text"),
        (npy(HEADER.format("(" + "9" * 16 + ", 5, 4)")), "array of numbers or text"),
        (npy(HEADER.format("(30, 5, 4)").replace("|u1", "<f16")), "array of numbers or text"),
        (npy(" " * 60_000), "60,000 bytes"),
        (npy(" " * 30_000_000, version=2), "30,000,000 bytes"),
        (npy(HEADER.format("(30, 5, 4)").replace("|u1", "|O")), "unpickles nothing"),
        (npy(HEADER.format("(30, 5, 4)").replace("'|u1'", "[('a', '|O')]")), "unpickles nothing"),
        (npy(HEADER.format("(30, 5, 4)").replace("|u1", "<U9999")), "expected pixels as numbers"),
        (npy(HEADER.format("(30, 5, 4)").replace("|u1", "|u3")), "x_train"),
        (npy(HEADER.format("(" + "1, " * 100 + ")"), b"0"), "x_train"),
        (npy(HEADER.format("(0, 99999999999, 99999999999)")), "x_train"),
        (b"", ".npy"),
        (b"\x93NUMPY\x01", "x_train"),
        (b"\x80\x04cos\nsystem\n", ".npy"),
    ],
)
def test_a_hostile_member_is_refused_without_memory(
    tmp_path: Path, member: bytes, words: str
) -> None:
    members = {f"{name}.npy": npy_bytes(values) for name, values in npz_arrays().items()}
    path = zip_of(tmp_path / "toy.npz", {**members, "x_train.npy": member})
    size = len(member)
    del member
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        load_dataset(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert words in problems(caught.value)
    assert peak < 20_000_000, size
    try:
        probe_dataset(str(path))
    except DataError as error:
        assert "toy.npz" in str(error)  # noqa: PT017


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compressions_are_refused(tmp_path: Path, method: int) -> None:
    members = {f"{name}.npy": npy_bytes(values) for name, values in npz_arrays().items()}
    with pytest.raises(DataError, match="savez_compressed"):
        load_dataset(str(zip_of(tmp_path / "toy.npz", members, method)))


def test_odd_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.npz"
    with pytest.raises(DataError, match="1,001 members"):
        load_dataset(str(zip_of(path, {str(i): b"" for i in range(1001)})))
    with pytest.raises(DataError, match="larger than"):
        load_dataset(str(zip_of(path, {str(i) * 50: b"" for i in range(9000)})))
    with pytest.raises(DataError, match="twice"):
        load_dataset(str(zip_of(path, {"x_train": b"", "x_train.npy": b""})))
    with pytest.raises(DataError, match="found: none"):
        load_dataset(str(zip_of(path, {})))
    np.save(tmp_path / "one.npy", make_images(3, 5, 4))
    with pytest.raises(DataError, match="another kind of file"):
        load_dataset(str(tmp_path / "one.npy"))


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), short=st.booleans())
@settings(max_examples=120)
def test_a_flipped_bit_or_a_short_file_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int, short: bool
) -> None:
    path = tmp_path_factory.mktemp("flip") / "toy.npz"
    np.savez_compressed(path, **npz_arrays())  # type: ignore[arg-type]
    expected = load_dataset(str(path)).fingerprint
    data = bytearray(path.read_bytes())
    index = int(place * len(data))
    if short:
        del data[index:]
    else:
        data[index] ^= 1 << bit
    path.write_bytes(data)
    try:
        found = load_dataset(str(path))
    except DataError as error:
        assert "toy.npz" in str(error)  # noqa: PT017
    else:  # times and attributes in the zip's directory have no meaning here
        assert not short
        assert found.fingerprint == expected
