"""Names of files and folders that cannot be stored or shown as text."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path


def name_problem(path: Path | str) -> str | None:
    """Return why a path cannot be written into a text file or a message; None where it can.

    Linux allows any bytes in a name: such that are not UTF-8, line breaks, and control sequences
    of a terminal.
    """
    categories = {unicodedata.category(character) for character in os.fspath(path)}
    if "Cs" in categories:  # how Python represents bytes that are not UTF-8
        return "its name contains bytes that are not UTF-8"
    if "Cc" in categories:
        return "its name contains control characters, such as a line break"
    return None


def encodable(text: str) -> str:
    """Return text with escapes for what is not UTF-8 in the names of files in it."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """Return text in which control characters, but for line breaks and tabs, are escaped."""
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) != "Cc"
        else f"\\x{ord(character):02x}"
        for character in text
    )
