"""Packed files of built-in data sets, unpacked by a thread while torch is imported.

Reading, unpacking and hashing do not hold Python's lock. This module imports the standard library
only.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

_GZIP = 31  # of zlib's wbits: with gzip's header and checksum
_MAX_BYTES = 1 << 27  # unpacked


@dataclass(frozen=True)
class Unpacked:
    """The content of a gzip file, and its SHA-256 (hex)."""

    content: bytearray
    sha256: str


_unpacking: dict[Path, Future[Unpacked]] = {}


def prefetch(data_name: str) -> None:
    """Start unpacking the files of a built-in data set; others have nothing to unpack."""
    if data_name == "mnist":
        folder = Path(str(files("whit.data"))) / "mnist"
        start_unpacking(sorted(folder.glob("*.gz")))


def start_unpacking(paths: Iterable[Path]) -> None:
    """Start a thread that unpacks those files that no other does, for `take_unpacked`."""
    futures: dict[Path, Future[Unpacked]] = {
        path: Future() for path in paths if path not in _unpacking
    }
    _unpacking.update(futures)
    # The process may end before the thread does.
    threading.Thread(target=_unpack_all, args=(futures,), daemon=True).start()


def take_unpacked(path: Path) -> Unpacked | None:
    """Return an unpacked file, waiting for it; None if it was not started, or cannot be unpacked.

    It is returned once: a later call returns None, and the file is read as it is then.
    """
    future = _unpacking.pop(path, None)
    return None if future is None or future.exception() else future.result()


def _unpack_all(futures: dict[Path, Future[Unpacked]]) -> None:
    for path, future in futures.items():
        try:
            future.set_result(_unpack(path))
        except Exception as error:  # whoever takes it reads the file again, and says what is wrong
            future.set_exception(error)


def _unpack(path: Path) -> Unpacked:
    member = zlib.decompressobj(wbits=_GZIP)
    content = member.decompress(path.read_bytes(), _MAX_BYTES)
    if not member.eof or member.unused_data:
        raise ValueError(f"{path}: not one gzip member of at most {_MAX_BYTES:,} bytes")
    return Unpacked(bytearray(content), hashlib.sha256(content).hexdigest())
