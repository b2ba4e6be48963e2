"""The IDX format of MNIST and its relatives, plain or gzipped.

A file is: two zero bytes, a byte for the type, a byte for the number of dimensions, each
dimension as a big-endian 32-bit number, then the values, and nothing else.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from whit.data.files import Gunzip, Stream, check_declared, disk_size, file_size, fill, open_file
from whit.errors import DataError

# Images and labels of the known sets are unsigned bytes; QMNIST's labels are 32-bit integers.
TYPES = {0x08: "u1", 0x0C: ">i4"}


@dataclass(frozen=True)
class IdxHeader:
    """What an IDX file says about itself; `raw` are its bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    raw: bytes

    @property
    def num_bytes(self) -> int:
        """Bytes of the values, without the header."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_idx(path: Path, root: Path | None = None) -> npt.NDArray[Any]:
    """Return the values of one IDX file; gzip is recognised by its first bytes.

    Raises DataError if the file cannot be read, leads outside `root` (its folder, by default),
    or is damaged, too large, too short or too long.
    """
    with open_file(path, root or path.parent) as file:
        return parse_idx(file, str(path))[1]


def read_idx_header(path: Path, root: Path | None = None) -> IdxHeader:
    """Return what one IDX file declares, without reading its values. Raises DataError."""
    with open_file(path, root or path.parent) as file:
        return _parse_header(_unpacked(file, str(path)), str(path))


def parse_idx(file: BinaryIO, name: str) -> tuple[IdxHeader, npt.NDArray[Any]]:
    """Return the header and the values of an open file; `name` is what errors call it."""
    stream = _unpacked(file, name)
    header = _parse_header(stream, name)
    check_declared(name, header.shape, header.dtype.itemsize, disk_size(file))
    if stream is file:  # told from the file's size, before memory is taken for the values
        _check_length(name, header, file_size(file) - len(header.raw))
    values = np.empty(header.shape, header.dtype)
    length = fill(stream, values)
    # One byte more than declared shows trailing bytes, and makes gzip check its sum.
    _check_length(name, header, length + len(stream.read(1)))
    return header, values


def _unpacked(file: BinaryIO, name: str) -> Stream:
    """Return a stream of the file's content: the file itself unless it is gzipped."""
    start = file.read(2)
    file.seek(0)
    return Gunzip(file, name) if start == b"\x1f\x8b" else file


def _parse_header(stream: Stream, name: str) -> IdxHeader:
    magic = _read_exactly(stream, 4, name)
    zeros, code, num_dims = struct.unpack(">HBB", magic)
    if zeros or code not in TYPES or not 1 <= num_dims <= 4:
        raise DataError(
            f"{name}: wanted IDX data of unsigned bytes (magic 0000080n, n dimensions, 1 to 4), "
            f"found magic {magic.hex()}; is this the right file?"
        )
    raw = _read_exactly(stream, 4 * num_dims, name)
    return IdxHeader(np.dtype(TYPES[code]), struct.unpack(f">{num_dims}I", raw), magic + raw)


def _read_exactly(stream: Stream, size: int, name: str) -> bytes:
    data = b""
    while len(data) < size:
        piece = stream.read(size - len(data))
        if not piece:
            raise DataError(
                f"{name}: wanted an IDX header, found the end of the file in it; fetch it again"
            )
        data += piece
    return data


def _check_length(name: str, header: IdxHeader, length: int) -> None:
    if length == header.num_bytes:
        return
    found = "more" if length > header.num_bytes else f"only {length:,}"
    raise DataError(
        f"{name}: its header declares {'x'.join(map(str, header.shape))} values, wanted "
        f"{header.num_bytes:,} bytes after it, found {found}; fetch it again"
    )
