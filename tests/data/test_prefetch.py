"""Files that are unpacked ahead: the same data, and the same errors, as without."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from whit.data import prefetch
from whit.data.datasets import load_dataset
from whit.data.prefetch import start_unpacking, take_unpacked
from whit.data.readers.mnist import SHA256, read_mnist
from whit.errors import DataError

FOLDER = Path(str(files("whit.data"))) / "mnist"


@pytest.fixture(autouse=True)
def nothing_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "_unpacking", {})


def test_a_file_is_unpacked_and_returned_once(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    content = bytes(range(256)) * 1000
    path.write_bytes(gzip.compress(content))
    start_unpacking([path])
    unpacked = take_unpacked(path)
    assert unpacked is not None
    assert unpacked.content == content
    assert unpacked.sha256 == hashlib.sha256(content).hexdigest()
    assert take_unpacked(path) is None


@pytest.mark.parametrize("damage", ["missing", "short", "no gzip", "more behind it", "too large"])
def test_what_cannot_be_unpacked_is_none(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gz"
    packed = gzip.compress(bytes(1000))
    damaged = {"short": packed[:-5], "no gzip": b"abc", "more behind it": packed + b"abc"}
    if damage != "missing":
        path.write_bytes(damaged.get(damage, packed))
    if damage == "too large":
        monkeypatch.setattr(prefetch, "_MAX_BYTES", 999)
    good = tmp_path / "b.gz"
    good.write_bytes(gzip.compress(bytes(500)))
    start_unpacking([path, good])
    assert take_unpacked(path) is None
    assert take_unpacked(good) is not None


def test_mnist_is_the_same() -> None:
    plain = read_mnist()
    prefetch.prefetch("mnist")
    assert len(prefetch._unpacking) == 4
    ahead = read_mnist()
    assert not prefetch._unpacking  # all were used
    for name, split in plain.items():
        np.testing.assert_array_equal(split.images, ahead[name].images)
        np.testing.assert_array_equal(split.labels, ahead[name].labels)
    prefetch.prefetch("mnist")
    assert load_dataset("mnist").train.images.is_contiguous()


def test_a_wrong_byte_is_refused_with_the_same_message(tmp_path: Path) -> None:
    for path in FOLDER.glob("*.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    changed = tmp_path / "t10k-labels-idx1-ubyte.gz"
    labels = bytearray(gzip.decompress(changed.read_bytes()))
    labels[-1] ^= 1
    changed.write_bytes(gzip.compress(bytes(labels)))
    messages = []
    for ahead in (False, True):
        if ahead:
            start_unpacking(sorted(tmp_path.glob("*.gz")))
        with pytest.raises(DataError, match=SHA256["t10k-labels-idx1-ubyte"]) as caught:
            read_mnist(tmp_path)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_nothing_but_the_standard_library_is_imported() -> None:
    code = (
        "import sys, whit.data.prefetch as p; p.prefetch('mnist'); "
        "print(*{'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_other_data_have_nothing_to_unpack() -> None:
    prefetch.prefetch("no/such/data")
    assert not prefetch._unpacking
