"""A file of Python text: read and parsed, and in words what hinders that."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from pathlib import Path
from typing import NoReturn

from whit.errors import SourceError


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_python(path: Path) -> str:
    """Return the text of a Python file: UTF-8, or what its coding line says."""
    raw = read_bytes(path)
    encoding = "utf-8"
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        refuse_encoding(path, raw, error)
    except (SyntaxError, LookupError) as error:  # its first lines are not text, or name no codec
        try:
            raw.decode()
        except UnicodeDecodeError as undecodable:
            refuse_encoding(path, raw, undecodable)
        raise SourceError(f"{path}: {said(error)}.") from error


def refuse_encoding(path: Path, raw: bytes, error: UnicodeDecodeError) -> NoReturn:
    line = raw.count(b"\n", 0, error.start) + 1
    raise SourceError(
        f"{path} is not {error.encoding.upper()} text: line {line} holds the byte "
        f"0x{raw[error.start]:02x}. Save it as UTF-8."
    ) from error


def parse(text: str, path: Path) -> ast.Module:
    try:
        return parse_quietly(text)
    except SyntaxError as error:
        raise SourceError(syntax_problem(f"{path}, line {error.lineno}", error)) from error


def parse_quietly(text: str) -> ast.Module:
    """Parse user code; warnings about its style (as of `"\\d"`) are not our message.

    Raises SyntaxError for everything that Python cannot read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (ValueError, RecursionError, MemoryError) as error:  # a NUL byte, endless brackets
            raise SyntaxError(str(error) or "nested too deeply", ("", 1, 1, "")) from error


def syntax_problem(place: str, error: SyntaxError, line: str | None = None) -> str:
    line = (error.text or "" if line is None else line).strip()
    return f"{place}: syntax error, {error.msg}{f': `{line}`' if line else '.'}"


def said(error: BaseException) -> str:
    """Return an exception's type and the first line of its message, at most 300 characters."""
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # a user's exception whose own __str__ fails
        lines = []
    message = lines[0] if lines else ""
    if len(message) > 300:
        message = message[:297] + "..."
    kind = type(error).__name__
    return f"{kind}: {message.rstrip('.')}" if message else kind
