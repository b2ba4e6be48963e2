"""An .npy file, as in an .npz: the header by NumPy's parser, within limits; nothing is unpickled.

NumPy evaluates the header as a literal. It is at most MAX_HEADER_BYTES long, and only arrays of
numbers, booleans and text are accepted.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from whit.data.readers.arrays import ArrayHeader, format_shape
from whit.data.readers.bounded_io import check_declared_size, read_into
from whit.errors import DataError

MAX_HEADER_BYTES = 4096  # that of an array of numbers has 118
_MAX_SIZE = 10**15  # of one dimension
_MAX_ITEM_BYTES = {"b": 1, "i": 8, "u": 8, "f": 8, "U": 4 * 9999}  # by dtype.kind

# By major version. 3 differs from 2 in the names of fields alone, and those are refused.
_PARSERS = {
    1: npy_format.read_array_header_1_0,
    2: npy_format.read_array_header_2_0,
    3: npy_format.read_array_header_2_0,
}


@dataclass(frozen=True)
class NpyHeader(ArrayHeader):
    fortran_order: bool
    length: int  # bytes of the header itself


def read_npy(stream: IO[bytes], on_disk: int, name: str) -> npt.NDArray[Any]:
    """Return the array of an .npy file of `on_disk` bytes. Raises DataError, and as `stream`."""
    header = read_npy_header(stream, name)
    check_declared_size(name, header.shape, header.dtype.itemsize, on_disk)
    values = np.empty(math.prod(header.shape), header.dtype)
    length = read_into(stream, values) + len(stream.read(1))
    if length != header.num_bytes:
        actual = "more" if length > header.num_bytes else f"only {length:,}"
        raise DataError(
            f"{name}: its header declares {format_shape(header.shape)} values of "
            f"{header.dtype}, expected {header.num_bytes:,} bytes after {header.length} of header, "
            f"found {actual}"
        )
    return values.reshape(header.shape, order="F" if header.fortran_order else "C")


def read_npy_header(stream: IO[bytes], name: str) -> NpyHeader:
    """Return the header, at most MAX_HEADER_BYTES long. Raises DataError, and as `stream`."""
    magic = stream.read(npy_format.MAGIC_LEN)
    prefix = stream.read(2 if magic[6:7] == b"\x01" else 4)
    length = int.from_bytes(prefix, "little")
    text = stream.read(min(length, MAX_HEADER_BYTES))
    try:
        parse = _PARSERS[npy_format.read_magic(io.BytesIO(magic))[0]]
    except (ValueError, KeyError):
        raise DataError(f"{name}: expected an .npy array, found bytes {magic.hex()}") from None
    if length > MAX_HEADER_BYTES:
        raise DataError(
            f"{name}: expected the header of an array of numbers, found one of {length:,} bytes"
        )
    refusal = DataError(
        f"{name}: expected an array of numbers or text, found "
        f"{text.decode('latin-1').strip()[:80]!r}; arrays of objects or records are refused: whit "
        "unpickles nothing"
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy warns of text that it has to repair
            shape, fortran_order, dtype = parse(io.BytesIO(prefix + text), MAX_HEADER_BYTES)
    # A hostile literal can raise nearly anything: SyntaxError, TokenError, MemoryError, ...
    except Exception as error:
        raise refusal from error
    if not (
        all(type(size) is int and 0 <= size < _MAX_SIZE for size in shape)
        and 0 < dtype.itemsize <= _MAX_ITEM_BYTES.get(dtype.kind, 0)
    ):
        raise refusal
    return NpyHeader(dtype, shape, fortran_order, len(magic + prefix + text))
