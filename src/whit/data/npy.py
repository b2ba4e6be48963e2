"""One array inside an .npz, read without numpy's loader: nothing is unpickled or evaluated.

The header of an .npy is the text of a Python dict; its three values are picked out by patterns,
so that a hostile header can do nothing but be refused.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from io import FileIO
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from whit.data.files import PIECE, check_declared, fill
from whit.errors import DataError

_MAX_HEADER = 4096  # bytes; that of an array of numbers has 118
_DTYPE = re.compile(r"['\"]descr['\"]\s*:\s*['\"]([<>|=]?(?:[?biuf][1248]?|U[1-9]\d{0,3}))['\"]")
_ORDER = re.compile(r"['\"]fortran_order['\"]\s*:\s*(True|False)")
_SHAPE = re.compile(r"['\"]shape['\"]\s*:\s*\(((?:\s*\d{1,15}\s*,?)*)\)")


@dataclass(frozen=True)
class NpyHeader:
    """What an array says about itself."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def num_bytes(self) -> int:
        """Bytes of the values, without the header."""
        return math.prod(self.shape) * self.dtype.itemsize


class BoundedFile(FileIO):
    """A file that refuses to be read in large pieces.

    `zipfile` reads a whole directory at once, however large the file says that it is.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes. Raises zipfile.BadZipFile for more than a piece."""
        if size is None or size < 0:
            here = self.tell()
            size = self.seek(0, 2) - here
            self.seek(here)
        if size > PIECE:
            raise zipfile.BadZipFile(f"its directory is larger than {PIECE:,} bytes")
        return super().read(size)


def read_npy_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> NpyHeader:
    """Return what one member declares, without reading its values. Raises DataError."""
    with _open(archive, member, name) as stream:
        return _guarded_header(stream, name)[0]


def read_npy(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, on_disk: int, name: str
) -> npt.NDArray[Any]:
    """Return the values of one member of an archive of `on_disk` bytes. Raises DataError."""
    with _open(archive, member, name) as stream:
        header, header_bytes = _guarded_header(stream, name)
        packed = on_disk
        if member.compress_type != zipfile.ZIP_STORED:
            packed = min(member.compress_size, on_disk)
        check_declared(name, header.shape, header.dtype.itemsize, packed)
        values = np.empty(math.prod(header.shape), header.dtype)
        try:
            length = fill(stream, values) + len(stream.read(1))
        except _DAMAGE as error:
            raise _damaged(name, error) from error
    if length != header.num_bytes:
        found = "more" if length > header.num_bytes else f"only {length:,}"
        raise DataError(
            f"{name}: its header declares {'x'.join(map(str, header.shape))} values of "
            f"{header.dtype}, wanted {header.num_bytes:,} bytes after {header_bytes} of header, "
            f"found {found}"
        )
    return values.reshape(header.shape, order="F" if header.fortran_order else "C")


# What zipfile and zlib raise for damaged, encrypted or unsupported members.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


def _damaged(name: str, error: Exception) -> DataError:
    return DataError(f"{name}: wanted a whole array, found damage ({error}); make it anew")


def _open(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> IO[bytes]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{name}: wanted a stored or deflated member, found compression method "
            f"{member.compress_type}; save it with numpy.savez_compressed"
        )
    try:
        return archive.open(member)
    except _DAMAGE as error:
        raise _damaged(name, error) from error


def _guarded_header(stream: IO[bytes], name: str) -> tuple[NpyHeader, int]:
    try:
        return _parse_header(stream, name)
    except (*_DAMAGE, struct.error) as error:
        raise _damaged(name, error) from error


def _parse_header(stream: IO[bytes], name: str) -> tuple[NpyHeader, int]:
    """Return the header and its length in bytes."""
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
        raise DataError(f"{name}: wanted an .npy array, found bytes {start[:8].hex()}")
    wide = start[6] > 1
    (length,) = struct.unpack("<I" if wide else "<H", stream.read(4 if wide else 2))
    if length > _MAX_HEADER:
        raise DataError(
            f"{name}: wanted the header of an array of numbers, found one of {length:,} bytes"
        )
    text = stream.read(length).decode("latin-1")
    dtype, order, shape = (pattern.search(text) for pattern in (_DTYPE, _ORDER, _SHAPE))
    if dtype is None or order is None or shape is None:
        raise DataError(
            f"{name}: wanted an array of whole numbers, found {text.strip()[:80]!r}; objects "
            "and records are refused, for whit unpickles nothing"
        )
    sizes = tuple(int(size) for size in shape[1].split(",") if size.strip())
    header = NpyHeader(np.dtype(dtype[1]), sizes, order[1] == "True")
    return header, len(start) + (4 if wide else 2) + length
