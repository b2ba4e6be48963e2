"""Which files of a data set may be opened, and how much of them may be read.

A data set may come from a stranger. Nothing in it is executed or unpickled, and what a file
declares is checked before memory is taken for it.
"""

from __future__ import annotations

import math
import os
import stat
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from whit.errors import DataError

# whit keeps the whole data set in memory: one array of a file may declare so many bytes.
MAX_BYTES = 4 << 30

# An array may be MAX_RATIO times as large as it is on disk; FREE_BYTES may be in any case.
# MNIST packs 5 : 1, sorted labels some hundred to 1 (but they are small); a deflate bomb
# reaches 1000 : 1, and a file with holes has no limit.
FREE_BYTES = 4 << 20
MAX_RATIO = 100

# Reading in pieces bounds what a decompressor may hold at once.
PIECE = 1 << 20


class Stream(Protocol):
    """Anything that gives its next bytes, at most `size`; none at the end."""

    def read(self, size: int, /) -> bytes: ...


def is_inside(path: Path, root: Path) -> bool:
    """Whether `path`, with all links followed, lies in `root`."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def open_file(path: Path, root: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises DataError if it cannot be read, is a pipe or device, or leads outside `root` by a link.
    """
    # Only the last step is looked at: the folders on the way are `root` or were checked.
    if os.path.islink(path) and not is_inside(path, root):
        raise DataError(
            f"{path}: wanted a file inside {root}, found a link to {os.path.realpath(path)}; "
            "put the file itself there"
        )
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to must not wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{path}: wanted a regular file, found a pipe, device or folder")
    return os.fdopen(descriptor, "rb")


def file_size(file: BinaryIO) -> int:
    """Bytes in an open file."""
    return os.fstat(file.fileno()).st_size


def disk_size(file: BinaryIO) -> int:
    """Bytes that an open file takes on disk: fewer than it has if it is mostly a hole."""
    status = os.fstat(file.fileno())
    blocks = getattr(status, "st_blocks", 0)  # some file systems do not count them
    return min(status.st_size, 512 * blocks) if blocks else status.st_size


def check_declared(name: str, shape: tuple[int, ...], itemsize: int, packed: int) -> None:
    """Raise DataError if an array of `shape` is more than whit reads, or unpacks from `packed`.

    packed: bytes on disk, of a packed file or a plain one
    """
    # A size of 0 counts as 1: even an empty array cannot be made with the others too large.
    declared = itemsize * math.prod(max(size, 1) for size in shape)
    if declared > MAX_BYTES:
        raise DataError(
            f"{name}: its header declares {declared:,} bytes; whit keeps a data set in memory "
            f"and reads at most {MAX_BYTES:,} bytes of one array; use fewer or smaller images"
        )
    if declared > max(FREE_BYTES, MAX_RATIO * packed):
        raise DataError(
            f"{name}: its header declares {declared:,} bytes, of which {packed:,} are on disk, "
            f"more than {MAX_RATIO} to 1, as in a decompression bomb; if it is none, store it "
            "unpacked"
        )


def fill(stream: Stream, array: npt.NDArray[Any]) -> int:
    """Read into the memory of a contiguous `array`; return the bytes read, fewer at the end."""
    memory = memoryview(array.reshape(-1).view(np.uint8).data)
    filled = 0
    while filled < len(memory):
        piece = stream.read(min(PIECE, len(memory) - filled))
        if not piece:
            break
        memory[filled : filled + len(piece)] = piece
        filled += len(piece)
    return filled


class Gunzip:
    """The unpacked bytes of a gzip file, never more at once than asked for.

    `gzip.GzipFile` does the same at a third of the speed, which is half a second on MNIST.
    Raises DataError if the packed bytes or their check sum are wrong, or end too early.
    """

    def __init__(self, packed: Stream, name: str):
        self._packed = packed
        self._name = name
        self._member = zlib.decompressobj(wbits=31)  # 31: with gzip's header and check sum
        self._pending = b""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none only at the end."""
        while True:
            pending = self._pending or self._packed.read(1 << 16)
            if self._member.eof:
                if not pending:
                    return b""
                self._member = zlib.decompressobj(wbits=31)  # gzip allows several in a row
            try:
                # Even without new input there may be output left from before.
                out = self._member.decompress(pending, size)
            except zlib.error as error:
                raise DataError(
                    f"{self._name}: wanted gzip data, found damage ({error}); fetch it again"
                ) from error
            self._pending = self._member.unconsumed_tail or self._member.unused_data
            if out:
                return out
            if not pending and not self._member.eof:
                raise DataError(
                    f"{self._name}: wanted whole gzip data, found that it ends too early; "
                    "fetch it again"
                )
