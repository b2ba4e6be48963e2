"""Bounded reads of untrusted data files: which files may be opened, and how many bytes are read.

Nothing in a data set is executed or unpickled, and the size that a file declares is checked
before memory is allocated for it.
"""

from __future__ import annotations

import math
import os
import stat
import zipfile
import zlib
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from whit.errors import DataError

# The maximal bytes that one array of a file may declare: a data set is kept in memory.
MAX_BYTES = 4 << 30

# An array may be MAX_RATIO times as large as it is on disk; one of up to RATIO_EXEMPT_BYTES
# always passes. MNIST compresses 5 : 1, sorted labels about 100 : 1 (but they are small); a
# deflate bomb reaches 1000 : 1, and a sparse file has no limit.
RATIO_EXEMPT_BYTES = 4 << 20
MAX_RATIO = 100

# Reading in chunks bounds what a decompressor may hold at once.
CHUNK_BYTES = 1 << 20


class Stream(Protocol):
    """Anything that returns its next bytes, at most `size`; none at the end."""

    def read(self, size: int, /) -> bytes: ...


def is_inside(path: Path, root: Path) -> bool:
    """Whether `path`, with all links resolved, is in `root`."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def open_file(path: Path, root: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises DataError if it cannot be read, is a pipe or device, or leads outside `root` by a link.
    """
    # Only the last component is checked here: its folders are `root` or were checked before.
    if os.path.islink(path) and not is_inside(path, root):
        raise DataError(
            f"{path}: expected a file inside {root}, found a link to {os.path.realpath(path)}; "
            "copy the file itself there"
        )
    try:
        # O_NONBLOCK: opening a pipe without a writer must not block.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{path}: expected a regular file, found a pipe, device or folder")
    return os.fdopen(descriptor, "rb")


def file_size(file: BinaryIO) -> int:
    """Return the bytes in an open file."""
    return os.fstat(file.fileno()).st_size


def disk_size(file: BinaryIO) -> int:
    """Return the bytes that an open file takes on disk: fewer than its size if it is sparse."""
    status = os.fstat(file.fileno())
    blocks = getattr(status, "st_blocks", 0)  # some file systems do not report them
    return min(status.st_size, 512 * blocks) if blocks else status.st_size


def check_declared_size(name: str, shape: tuple[int, ...], itemsize: int, on_disk: int) -> None:
    """Raise DataError if an array of `shape` is too large, or too large for its bytes on disk."""
    # A size of 0 counts as 1: NumPy refuses even an empty array whose other sizes are too large.
    declared = itemsize * math.prod(max(size, 1) for size in shape)
    if declared > MAX_BYTES:
        raise DataError(
            f"{name}: its header declares {declared:,} bytes; whit keeps a data set in memory "
            f"and reads at most {MAX_BYTES:,} bytes of one array; use fewer or smaller images"
        )
    if declared > max(RATIO_EXEMPT_BYTES, MAX_RATIO * on_disk):
        raise DataError(
            f"{name}: its header declares {declared:,} bytes, of which {on_disk:,} are on disk, "
            f"more than {MAX_RATIO} to 1, as in a decompression bomb; if it is none, store it "
            "unpacked"
        )


def read_into(stream: Stream, array: npt.NDArray[Any]) -> int:
    """Fill the memory of a contiguous `array`; return the bytes read, fewer at the stream's end."""
    memory = memoryview(array.reshape(-1).view(np.uint8).data)
    num_read = 0
    while num_read < len(memory):
        chunk = stream.read(min(CHUNK_BYTES, len(memory) - num_read))
        if not chunk:
            break
        memory[num_read : num_read + len(chunk)] = chunk
        num_read += len(chunk)
    return num_read


class BoundedFile(FileIO):
    """A file that refuses large reads.

    `zipfile` reads a whole central directory at once, whatever size the file declares for it.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes. Raises zipfile.BadZipFile for more than a chunk."""
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > CHUNK_BYTES:
            raise zipfile.BadZipFile(f"its directory is larger than {CHUNK_BYTES:,} bytes")
        return super().read(size)


class BoundedGzipReader:
    """The decompressed bytes of a gzip file, never more at once than requested.

    `gzip.GzipFile` does the same in half as much time again, and with more memory.
    Raises DataError if the compressed bytes or their checksum are wrong, or end too early.
    """

    def __init__(self, compressed: Stream, name: str):
        self._compressed = compressed
        self._name = name
        self._member = zlib.decompressobj(wbits=31)  # 31: with gzip's header and checksum
        self._pending = b""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none only at the end."""
        while True:
            pending = self._pending or self._compressed.read(1 << 16)
            if self._member.eof:
                if not pending:
                    return b""
                self._member = zlib.decompressobj(wbits=31)  # gzip allows several in a row
            try:
                # Output may be left from before, even without new input.
                out = self._member.decompress(pending, size)
            except zlib.error as error:
                raise DataError(
                    f"{self._name}: expected gzip data, found damage ({error}); download it again"
                ) from error
            self._pending = self._member.unconsumed_tail or self._member.unused_data
            if out:
                return out
            if not pending and not self._member.eof:
                raise DataError(
                    f"{self._name}: expected complete gzip data, found a truncated file; "
                    "download it again"
                )
