"""A user's code as text: read and parsed without running it, with the location of each line."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import tokenize
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from whit.errors import SourceError
from whit.system.untrusted_files import unreadable_reason

_MAX_BYTES = 100_000_000  # of a file; a notebook with its outputs may have many


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A module beside a user's file that it imports, read but not yet run."""

    module: str  # its dotted name
    path: Path
    text: str  # exactly what is executed
    content: bytes  # of its file; of a notebook, its code
    is_package: bool = False
    origins: tuple[tuple[int, int], ...] = ()  # as of PythonFile

    @property
    def filename(self) -> str:
        return str(self.path.absolute())

    def format_location(self, line: int) -> str:
        """Return the location of a line of the executed code in the file."""
        return format_origin(self.path, self.origins, line)


@dataclass(frozen=True, slots=True)
class Source:
    """The code that defines one model, read but not yet run."""

    path: Path  # as given, for messages
    name: str  # of the class or function
    text: str  # exactly what is executed
    origins: tuple[tuple[int, int], ...] = ()  # of a notebook: (cell, line) of each line of text
    content: bytes = b""  # of the file; of a notebook, the text
    neighbours: tuple[Neighbour, ...] = ()
    package: str = ""  # of which the file is a part, for its relative imports
    run_whole_file: bool = False
    lines: tuple[tuple[int, int], ...] = ()  # of no notebook: the origins of its PythonFile
    is_copy: bool = False  # the copy in a run folder: it imports no files but `neighbours`

    @property
    def target(self) -> str:
        return f"{self.path}:{self.name}"

    @property
    def sha256(self) -> str:
        """SHA-256 of the executed code in UTF-8, as 64 hexadecimal digits.

        That of the modules that it imports is included. Empty lines do not count: a change of what
        is not executed leaves the digest as it is.
        """
        digest = hashlib.sha256(_without_empty_lines(self.text).encode())
        for neighbour in self.neighbours:
            text = _without_empty_lines(neighbour.text)
            digest.update(f"\0{neighbour.module}\0{text}".encode())
        return digest.hexdigest()

    @property
    def folder(self) -> Path:
        return self.path.absolute().parent

    @property
    def filename(self) -> str:
        """The file name with which the code is compiled, as tracebacks show it."""
        path = self.path.absolute()
        return f"{path}:{self.name}" if self.origins else str(path)

    def format_location(self, line: int) -> str:
        """Return the location of a line of the executed code in the user's file.

        Cells are numbered from 1 at the top of the notebook, Markdown cells included.
        """
        if not self.origins:
            return format_origin(self.path, self.lines, line)
        cell, line = self.origins[min(line, len(self.origins)) - 1]
        return f"{self.path}, cell {cell}, line {line}" if cell else str(self.path)


def format_origin(path: Path, origins: Sequence[tuple[int, int]], line: int) -> str:
    """Return the location of a line of code, of which `origins` are those of a PythonFile."""
    cell, line = origins[min(line, len(origins)) - 1] if origins else (0, line)
    return f"{path}, cell {cell}, line {line}" if cell else f"{path}, line {line}"


def _without_empty_lines(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.strip())


def read_bytes(path: Path) -> bytes:
    try:
        real = os.path.realpath(path)
        if (reason := unreadable_reason(real, _MAX_BYTES)) and not os.path.isdir(real):
            raise SourceError(f"{path} cannot be read: {reason}.")
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from error


def decode_python(path: Path, raw: bytes) -> str:
    """Return the text of a Python file, in UTF-8 or the encoding that its coding line declares."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise_encoding_error(path, raw, error)
    except (SyntaxError, LookupError) as error:  # its first lines are binary, or no such encoding
        try:
            raw.decode()
        except UnicodeDecodeError as undecodable:
            raise_encoding_error(path, raw, undecodable)
        raise SourceError(f"{path}: {summarize_exception(error)}.") from error


def raise_encoding_error(path: Path, raw: bytes, error: UnicodeDecodeError) -> NoReturn:
    line = raw.count(b"\n", 0, error.start) + 1
    raise SourceError(
        f"{path} is not {error.encoding.upper()} text: line {line} contains the byte "
        f"0x{raw[error.start]:02x}. Save it as UTF-8."
    ) from error


def parse(text: str, path: Path) -> ast.Module:
    try:
        return parse_quietly(text)
    except SyntaxError as error:
        location = f"{path}, line {error.lineno}"
        raise SourceError(describe_syntax_error(location, error)) from error


def parse_quietly(text: str) -> ast.Module:
    """Parse user code without the warnings about its style, such as for `"\\d"`.

    Raises SyntaxError for everything that Python cannot parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes, deep nesting
            raise SyntaxError(str(error) or "nested too deeply", ("", 1, 1, "")) from error


def describe_syntax_error(location: str, error: SyntaxError, line: str | None = None) -> str:
    line = (error.text or "" if line is None else line).strip()
    return f"{location}: syntax error, {error.msg}{f': `{line}`' if line else '.'}"


def summarize_exception(error: BaseException) -> str:
    """Return an exception's type and the first line of its message, at most 300 characters."""
    try:
        message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    except Exception:  # a user's exception whose own __str__ fails
        message = ""
    if len(message) > 300:
        message = message[:297] + "..."
    kind = type(error).__name__
    return f"{kind}: {message.rstrip('.')}" if message else kind
